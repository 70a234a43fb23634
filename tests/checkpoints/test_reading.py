"""Reading checkpoint files safely, and errors for files that cannot be read."""

import argparse
import ast
import pickle
import random
from pathlib import PurePosixPath

import pytest
import torch
from helpers import ROOT
from mmengine.runner import CheckpointLoader

from mmslak.checkpoints import (
    CheckpointError,
    UnsafeCheckpointError,
    read_checkpoint,
    weights_of,
)

#: Damaged files that are tried in each format.
MUTATIONS = 2500
#: Functions that can run code of a file.
FORBIDDEN = {
    'torch.load', 'pickle.load', 'pickle.loads', 'Config.fromstring', 'eval', 'exec', 'load_url',
    'torch.hub.load', 'joblib.load',
}  # fmt: skip
CHECKPOINT = dict(model={f'{i}.weight': torch.ones(20, 20) for i in range(20)})


def test_files_that_cannot_be_read(tmp_path):
    file = tmp_path / 'c.pth'
    with pytest.raises(FileNotFoundError, match=r'c\.pth does not exist'):
        read_checkpoint(file)
    torch.save(dict(CHECKPOINT), file)
    whole = file.read_bytes()
    for part in (len(whole) // 2, 10, 100):
        file.write_bytes(whole[:part])
        with pytest.raises(CheckpointError, match='truncated or damaged') as error:
            read_checkpoint(file)
        assert '\n' not in str(error.value)
    torch.save(dict(CHECKPOINT), file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match='truncated or damaged'):
        read_checkpoint(file)
    with pytest.raises(CheckpointError, match='is a directory'):
        read_checkpoint(tmp_path)
    others = (b'', b'<html>not found</html>', b'\x89PNG\r\n\x1a\n', pickle.dumps(dict(a=1)))
    for content in others:
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match='not a checkpoint') as error:
            read_checkpoint(file)
        assert '\n' not in str(error.value)
    torch.save([1, 2], file)
    with pytest.raises(CheckpointError, match='must contain a dict of weights, got a list'):
        read_checkpoint(file)


class CreatesFile:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('zipped', [True, False])
def test_other_objects_are_not_unpickled(zipped, tmp_path):
    file, trace = tmp_path / 'c.pth', tmp_path / 'trace'
    torch.save(dict(CHECKPOINT, x=CreatesFile(trace)), file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeCheckpointError, match=r'\.open.*--trust'):
        read_checkpoint(file)
    assert not trace.exists()


def test_trusted_objects_are_unpickled(tmp_path):
    file = tmp_path / 'c.pth'
    torch.save(dict(CHECKPOINT, path=PurePosixPath('a/b')), file)
    with pytest.raises(UnsafeCheckpointError, match=r'pathlib\.PurePosixPath'):
        read_checkpoint(file)
    assert read_checkpoint(file, trust=True)['path'].name == 'b'


@pytest.mark.parametrize('zipped', [True, False])
def test_command_line_of_the_authors_is_read(zipped, tmp_path):
    file, trace = tmp_path / 'c.pth', tmp_path / 'trace'
    args = argparse.Namespace(lr=1, betas=[0.9, 0.999])
    torch.save(dict(CHECKPOINT, args=args), file, _use_new_zipfile_serialization=zipped)
    assert read_checkpoint(file)['args'] == args
    args.x = CreatesFile(trace)
    torch.save(dict(CHECKPOINT, args=args), file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeCheckpointError, match=r'\.open'):
        read_checkpoint(file)
    assert not trace.exists()


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('zipped', [True, False])
def test_damaged_files_give_one_clear_error(zipped, tmp_path):
    file = tmp_path / 'c.pth'
    content = dict(
        state_dict={f'{i}.weight': torch.ones(3, 2) for i in range(3)},
        meta=dict(epoch=1, seed=None, names=['a', 'b'], lr=0.1),
    )
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    whole = file.read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(MUTATIONS):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            # Cut, replace, insert or remove some bytes.
            position, length = rng.randrange(len(damaged)), rng.randint(1, 8)
            new = rng.randbytes(rng.choice([0, length, length, 2 * length]))
            damaged[position : position + length] = new
        if rng.random() < 0.1:
            del damaged[rng.randrange(1, len(damaged)) :]
        file.write_bytes(damaged)
        try:
            assert isinstance(read_checkpoint(file), dict)
        except CheckpointError as error:
            assert 'c.pth' in str(error) and '\n' not in str(error)
            refused += 1
    assert refused > MUTATIONS / 10


def test_text_that_mmengine_would_evaluate_is_removed(tmp_path):
    file = tmp_path / 'c.pth'
    torch.save(dict(state_dict={}, meta=dict(config='evil()', cfg='kept', iter=3)), file)
    assert read_checkpoint(file)['meta'] == dict(cfg='kept', iter=3)
    torch.save(dict(state_dict={}, meta='text'), file)
    assert read_checkpoint(file)['meta'] == 'text'


def test_mmengine_reads_local_files_without_running_code(tmp_path):
    file, trace = tmp_path / 'c.pth', tmp_path / 'trace'
    torch.save(dict(state_dict=dict(x=CreatesFile(trace))), file)
    # MMEngine's function, which the toolboxes call with many paths.
    with pytest.raises(UnsafeCheckpointError):
        CheckpointLoader.load_checkpoint(str(file), map_location='cpu')
    assert not trace.exists()


def test_files_are_unpickled_in_one_place_only():
    """A new entry must read checkpoints with ``read_checkpoint``."""
    found = []
    for folder in ('mmslak', 'tools'):
        for path in (ROOT / folder).rglob('*.py'):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN:
                    found.append((path.relative_to(ROOT).as_posix(), ast.unparse(node.func)))
    assert found == [('mmslak/checkpoints/file_content.py', 'torch.load')]


@pytest.mark.parametrize('wrap', [dict, lambda weights: dict(state_dict=weights, meta={})])
def test_weights_of_a_checkpoint(wrap):
    weights = {'module.a': torch.ones(1), 'b.module.c': torch.zeros(2)}
    found = weights_of(wrap(weights))
    assert list(found) == ['a', 'b.module.c']
    assert found['a'] is weights['module.a']
