"""Weights and masks in one safetensors file: lossless up to float16, and safe to read."""

import json
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mmslak.checkpoints import SPARSITY_STATE, CheckpointError, read_checkpoint
from mmslak.checkpoints.safetensors_file import write_safetensors
from mmslak.sparsity import SparseMasks, pack_mask, unpack_masks


def sparse_state(shapes, density=0.5, seed=0):
    """Return random weights by name, their masks and the state of the masks."""
    generator = torch.Generator().manual_seed(seed)
    weights, masks = {}, {}
    for index, shape in enumerate(shapes):
        name = f'layers.{index}.weight'
        weights[name] = torch.randn(shape, generator=generator)
        masks[name] = torch.rand(shape, generator=generator) < density
    parameters = {name: torch.nn.Parameter(weight.clone()) for name, weight in weights.items()}
    sparse = SparseMasks(parameters, masks)
    sparse.apply_()
    return {name: p.detach() for name, p in parameters.items()}, masks, sparse


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=4), min_size=1, max_size=4),
    density=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 999),
)
def test_round_trip(tmp_path_factory, shapes, density, seed):
    file = tmp_path_factory.mktemp('round_trip') / 'm.safetensors'
    weights, masks, sparse = sparse_state(shapes, density, seed)
    write_safetensors(file, weights, sparse.state_dict(), dict(note='ä', list=[1, 2.5, None]))
    found = read_checkpoint(file)
    assert found['meta'] == dict(note='ä', list=[1, 2.5, None])
    assert set(found['state_dict']) == set(weights)
    for name, weight in weights.items():
        value = found['state_dict'][name]
        assert value.dtype == torch.float32
        assert torch.equal(value, weight.half().float() if weight.dim() >= 2 else weight)
    unpacked = unpack_masks(found[SPARSITY_STATE])
    assert set(unpacked) == {name for name, mask in masks.items() if not mask.all()}
    for name, mask in unpacked.items():
        assert torch.equal(mask, masks[name])
        assert not found['state_dict'][name][~mask].any()
    restored = SparseMasks({k: torch.nn.Parameter(v) for k, v in found['state_dict'].items()})
    restored.load_state_dict(found[SPARSITY_STATE])
    assert restored.checksum() == sparse.checksum()
    assert restored.active == sparse.active == sum(int(mask.sum()) for mask in masks.values())


def test_dtypes_and_order_in_memory(tmp_path):
    weights = {
        'conv.weight': torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last),
        'norm.weight': torch.rand(4),
        'norm.num_batches_tracked': torch.tensor(2**40 + 1),
        'shared': torch.ones(2, 2),
        'index': torch.arange(6).reshape(2, 3),
    }
    weights['same'] = weights['shared']
    write_safetensors(tmp_path / 'm.safetensors', weights, None, {})
    stored = load_file(tmp_path / 'm.safetensors')
    assert {name: value.dtype for name, value in stored.items()} == {
        'conv.weight': torch.float16,
        'norm.weight': torch.float32,
        'norm.num_batches_tracked': torch.int64,
        'shared': torch.float16,
        'same': torch.float16,
        'index': torch.int64,
    }
    found = read_checkpoint(tmp_path / 'm.safetensors')
    assert SPARSITY_STATE not in found
    for name, value in weights.items():
        assert torch.equal(found['state_dict'][name], value.half().float() if '.w' in name
                           and value.dim() > 1 else value)  # fmt: skip


def test_masked_weights_become_zero(tmp_path):
    mask = torch.tensor([[True, False], [False, True]])
    state = dict(shapes={'w': [2, 2]}, packed={'w': pack_mask(mask)})
    weight = torch.tensor([[1.0, np.nan], [5.0, -2.0]])
    write_safetensors(tmp_path / 'm.safetensors', {'w': weight}, state, {})
    assert read_checkpoint(tmp_path / 'm.safetensors')['state_dict']['w'].tolist() == [
        [1, 0],
        [0, -2],
    ]
    # The weights of the caller do not change.
    assert weight[1, 0] == 5


def test_refused_weights_leave_no_file(tmp_path):
    for value in (1e6, np.inf, np.nan):
        with pytest.raises(
            ValueError, match=r'a\.b contains values that are not finite in float16'
        ):
            write_safetensors(
                tmp_path / 'm.safetensors', {'a.b': torch.full((1, 1), value)}, None, {}
            )
    with pytest.raises(ValueError, match='not JSON compliant'):
        write_safetensors(
            tmp_path / 'm.safetensors', {'a': torch.ones(1)}, None, dict(score=np.nan)
        )
    assert not list(tmp_path.iterdir())


def test_permissions_are_those_of_other_files(tmp_path):
    (tmp_path / 'other').touch()
    write_safetensors(tmp_path / 'm.safetensors', {'a': torch.ones(1)}, None, {})
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_files_are_not_overwritten(tmp_path):
    file = tmp_path / 'm.safetensors'
    file.write_text('mine')
    with pytest.raises(ValueError, match=r'm\.safetensors already exists'):
        write_safetensors(file, {'a': torch.ones(1)}, None, {})
    assert file.read_text() == 'mine'
    assert list(tmp_path.iterdir()) == [file]


def test_files_of_other_programs(tmp_path):
    file = tmp_path / 'plain.safetensors'
    save_file({'a': torch.ones(2).half(), 'b': torch.arange(3)}, file, dict(format='pt'))
    found = read_checkpoint(file)
    assert found['meta'] == {}
    assert set(found) == {'state_dict', 'meta'}
    assert found['state_dict']['a'].dtype == torch.float32
    assert found['state_dict']['b'].tolist() == [0, 1, 2]


def test_the_tensors_do_not_depend_on_the_file(tmp_path):
    file = tmp_path / 'm.safetensors'
    write_safetensors(file, {'a': torch.ones(1000)}, None, {})
    found = read_checkpoint(file)['state_dict']['a']
    with open(file, 'r+b') as stream:
        stream.write(bytes(file.stat().st_size))
    assert found.sum() == 1000


def refused(file):
    """Return the message with which the file is refused: one line that names it."""
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(file)
    message = str(error.value)
    assert '\n' not in message
    assert str(file) in message
    assert len(message) < 600
    return message


def test_truncated_files(tmp_path):
    file = tmp_path / 'm.safetensors'
    weights, _, sparse = sparse_state([[8, 3, 5, 5], [16]])
    write_safetensors(file, weights, sparse.state_dict(), {})
    whole = file.read_bytes()
    for size in (0, 4, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert f'truncated or damaged ({size:,} bytes' in refused(file)
    file.write_bytes(whole + b'x')
    assert 'truncated or damaged' in refused(file)


def header(text, data=b''):
    """Return a safetensors file with this header."""
    return struct.pack('<Q', len(text)) + text + data


def entry(**changes):
    """Return the header of one tensor of 4 bytes."""
    return json.dumps(
        {'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4], **changes}}
    ).encode()


@pytest.mark.parametrize(
    'content',
    [
        b'<html>not found</html>',
        b'\x89PNG\r\n\x1a\n' + bytes(100),
        struct.pack('<Q', 2**63) + b'{}',
        struct.pack('<Q', 2**40) + entry() + b'1234',
        header(b'[' * 100_000),
        header(entry(shape=[2**31, 2**31]), b'1234'),
        header(entry(shape=[0, 2**63, 2], data_offsets=[0, 0])),
        header(entry(shape=[0, 1, 2**63 - 1, 2], data_offsets=[0, 0])),
        header(entry(shape=[2]), b'1234'),
        header(entry(shape=[-1]), b'1234'),
        header(entry(data_offsets=[4, 0]), b'1234'),
        header(entry(data_offsets=[0, 2**60]), b'1234'),
        header(entry(dtype='object'), b'1234'),
        header(b'{"__metadata__": {"mmslak": 1}}'),
        header(b'{"__metadata__": {"mmslak": "{}"'),
    ],
    ids=str,
)
def test_foreign_and_hostile_files(content, tmp_path):
    file = tmp_path / 'm.safetensors'
    file.write_bytes(content)
    assert 'is not a safetensors file, or it is truncated or damaged' in refused(file)


def test_files_without_weights(tmp_path):
    file = tmp_path / 'm.safetensors'
    file.write_bytes(header(b'{}'))
    assert 'contains no weights' in refused(file)


class CreatesFile:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('trust', [False, True])
def test_no_pickle_is_loaded(tmp_path, trust, monkeypatch):
    file, trace = tmp_path / 'm.safetensors', tmp_path / 'trace'
    for write in (
        lambda value: torch.save(value, file),
        lambda value: file.write_bytes(pickle.dumps(value)),
    ):
        write(dict(x=CreatesFile(trace)))
        with pytest.raises(CheckpointError, match='is not a safetensors file'):
            read_checkpoint(file, trust)
    assert not trace.exists()
    file.unlink()
    write_safetensors(file, {'a': torch.ones(1)}, None, {})
    monkeypatch.setattr(torch, 'load', None)
    monkeypatch.setattr(pickle, 'Unpickler', None)
    assert read_checkpoint(file)['state_dict']['a'] == 1


def written(file, document, weights=None, **masks):
    """Write a file with this JSON text or document, the weights ``w`` and these masks."""
    text = document if isinstance(document, str) else json.dumps(document)
    masks = {f'mask/{name}': mask for name, mask in masks.items()}
    weights = {'w': torch.zeros(2, 3)} if weights is None else weights
    save_file({**weights, **masks}, file, dict(mmslak=text))


FITS = dict(format_version=1, meta={}, sparsity={'w': [2, 3]})
MASK = torch.tensor([5], dtype=torch.uint8)


def test_metadata_that_does_not_fit(tmp_path):
    file = tmp_path / 'm.safetensors'
    written(file, FITS, w=MASK)
    assert list(read_checkpoint(file)[SPARSITY_STATE]['packed']) == ['w']
    for text in ('', '{', '__import__("os")', '[' * 5000, '1' * 5000):
        written(file, text)
        assert 'is not JSON' in refused(file)
    for document in ([], 1, {}, dict(FITS, format_version='1'), dict(FITS, format_version=2)):
        written(file, document)
        assert 'format version' in refused(file)
    for key in ('meta', 'sparsity'):
        written(file, dict(FITS, **{key: [1]}))
        assert 'lacks the entry' in refused(file)
    for shape in ([3, 2], [6], 6, None, ['x'], [2, 3, 10**12], 'x' * 10**4):
        written(file, dict(FITS, sparsity={'w': shape}), w=MASK)
        assert "it has no weights 'w' of shape" in refused(file)
    written(file, dict(FITS, sparsity={'v' * 10**4: [2, 3]}))
    assert 'it has no weights' in refused(file)
    written(file, FITS, v=MASK)
    assert "the mask 'v' belongs to no weights" in refused(file)
    written(file, dict(FITS, sparsity=None), w=MASK)
    assert "the mask 'w' belongs to no weights" in refused(file)
    for mask in (torch.zeros(2, dtype=torch.uint8), torch.zeros(1), torch.zeros(0).byte()):
        written(file, FITS, w=mask)
        assert 'a packed mask of shape (2, 3) must have 1 bytes' in refused(file)
    written(file, FITS, {'w': torch.ones(2, 3)}, w=MASK)
    assert "masked weights of 'w' are not 0" in refused(file)
    written(file, dict(FITS, sparsity={}), {})
    assert 'contains no weights' in refused(file)
