"""Masks: masking, counting, packing, saving and loading."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import small_network
from torch import nn

from mmslak.sparsity import SparseMasks, pack_mask, select_targets, unpack_mask, unpack_masks

few = settings(max_examples=50, deadline=None, derandomize=True)


def some_masks(parameters, density=0.6):
    generator = torch.Generator().manual_seed(1)
    return {n: torch.rand(p.shape, generator=generator) < density for n, p in parameters.items()}


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'transposed'])
def test_any_masked_value_becomes_plus_zero(dtype, layout):
    values = torch.randn(4, 6, 3, 5)
    values.view(-1)[::3] = torch.nan
    values.view(-1)[1::5] = -torch.inf
    values.view(-1)[2::7] = -0.0
    values = values.to(dtype)
    if layout == 'channels_last':
        values = values.contiguous(memory_format=torch.channels_last)
    elif layout == 'transposed':
        values = values.transpose(0, 3)
    parameter = nn.Parameter(values.clone(memory_format=torch.preserve_format))
    assert parameter.stride() == values.stride()
    parameter.grad = values.clone()
    mask = torch.rand(parameter.shape) < 0.5
    masks = SparseMasks({'w': parameter}, {'w': mask})
    masks.apply_()
    masks.mask_gradients_()
    expected = torch.where(mask, values, torch.zeros((), dtype=dtype))
    for got in (parameter.detach(), parameter.grad):
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
        assert not torch.signbit(got[~mask].float()).any()
    assert torch.equal(masks['w'], mask) and masks['w'].is_contiguous()


def test_dense_layer_is_counted_but_has_no_mask():
    parameters = select_targets(small_network())
    masks = SparseMasks(parameters, {'0.weight': torch.ones(6, 3, 3, 3, dtype=torch.bool)})
    assert masks.masked == [] and masks.dense == list(parameters)
    assert masks.sparsity == 0 and masks.active == masks.numel
    assert masks['0.weight'].all()
    masks.apply_()


def test_counts():
    parameters = select_targets(small_network())
    given_masks = some_masks(parameters)
    masks = SparseMasks(parameters, given_masks)
    kept = {n: int(m.sum()) for n, m in given_masks.items()}
    total = sum(m.numel() for m in given_masks.values())
    assert masks.active == sum(kept.values())
    assert masks.numel == total
    assert masks.sparsity == pytest.approx(1 - sum(kept.values()) / total)
    for name in parameters:
        assert masks.kept(name) == kept[name]
        assert masks.density(name) == kept[name] / parameters[name].numel()


def test_zero_weights_are_masked_by_from_weights():
    model = small_network()
    model[0].weight.data[2] = 0
    masks = SparseMasks.from_weights(select_targets(model))
    assert masks.masked == ['0.weight']
    assert torch.equal(masks['0.weight'], model[0].weight != 0)


def test_mask_must_fit():
    parameters = select_targets(small_network())
    with pytest.raises(ValueError, match="'head'"):
        SparseMasks(parameters, {'head': torch.ones(1, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r'shape \(6, 3, 3, 3\), .* got \(2, 2\)'):
        SparseMasks(parameters, {'0.weight': torch.ones(2, 2, dtype=torch.bool)})


def test_copy_is_masked_by_name():
    model, copy = small_network(), small_network()
    parameters = select_targets(model, prefix='backbone.')
    masks = SparseMasks(parameters, some_masks(parameters))
    before = {n: p.detach().clone() for n, p in copy.named_parameters()}
    masks.apply_to(copy, prefix='backbone.')
    for name, parameter in copy.named_parameters():
        mask = masks[f'backbone.{name}'] if f'backbone.{name}' in parameters else True
        assert torch.equal(parameter, before[name] * mask)
    with pytest.raises(ValueError, match=r"'backbone\.0\.weight'.* no such parameter"):
        masks.apply_to(copy)
    copy[4] = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"'backbone\.4\.weight'.* shape \(2, 2\)"):
        masks.apply_to(copy, 'backbone.')


@few
@given(shape=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 999))
def test_packing_is_lossless_and_takes_one_bit_per_weight(shape, seed):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack_mask(mask)
    assert packed.dtype == torch.uint8 and packed.shape == ((mask.numel() + 7) // 8,)
    bits = [int(packed[i // 8]) >> (i % 8) & 1 for i in range(mask.numel())]
    assert bits == mask.flatten().int().tolist()
    assert torch.equal(unpack_mask(packed, shape), mask)
    with pytest.raises(ValueError, match='bytes'):
        unpack_mask(packed, [*shape, 16])


def test_state_can_be_saved_and_loaded_safely(tmp_path):
    parameters = select_targets(small_network())
    masks = SparseMasks(parameters, {**some_masks(parameters), '0.weight': torch.ones(6, 3, 3, 3)})
    torch.save(masks.state_dict(), tmp_path / 'masks.pth')
    state = torch.load(tmp_path / 'masks.pth', weights_only=True)
    other = SparseMasks(select_targets(small_network()), some_masks(parameters, 0.3))
    assert other.checksum() != masks.checksum()
    other.load_state_dict(state)
    assert other.checksum() == masks.checksum()
    assert other.dense == ['0.weight']
    for name in parameters:
        assert torch.equal(other[name], masks[name])
    assert set(unpack_masks(state)) == {'2.weight', '4.weight'}


def test_state_of_other_weights_is_refused_with_the_differences():
    parameters = select_targets(small_network())
    masks = SparseMasks(parameters, some_masks(parameters))
    state = masks.state_dict()
    del state['shapes']['4.weight']
    state['shapes']['9.weight'] = [2, 2]
    state['shapes']['2.weight'] = [6, 1, 7, 5]
    before = masks.checksum()
    with pytest.raises(ValueError) as caught:
        masks.load_state_dict(state)
    for words in (
        'selected only in the saved state: 9.weight',
        'missing in the saved state: 4.weight',
        '2.weight ((6, 1, 7, 5) in the saved state, (6, 1, 9, 5) here)',
    ):
        assert words in str(caught.value)
    assert masks.checksum() == before


def test_checksums_differ_by_mask_name_and_shape():
    mask = torch.arange(12).reshape(3, 4) % 2 == 0
    sums = set()
    for name, values in (('a', mask), ('b', mask), ('a', mask.T), ('a', ~mask)):
        sums.add(
            SparseMasks({name: nn.Parameter(torch.ones(values.shape))}, {name: values}).checksum()
        )
    assert len(sums) == 4
    assert all(len(text) == 16 for text in sums)
