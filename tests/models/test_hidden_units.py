"""Hidden units without influence: removed from merged blocks, left out in training."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmslak.models import SLaK, SLaKBlock
from mmslak.models.hidden_units import constant_units, zero_units

CHANNELS, HIDDEN = 5, 20
ARCH = dict(depths=(1, 1, 1, 1), widths=(8, 12, 16, 20))


def make_block(rows=(), columns=(), **kwargs):
    """Return a block, far from its initial values, with some rows and columns set to zero."""
    torch.manual_seed(0)
    block = SLaKBlock(CHANNELS, 5, 3, layer_scale_init_value=0.7, **kwargs).double()
    for parameter in block.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    block.pwconv1.weight.data[list(rows)] = 0
    block.pwconv2.weight.data[:, list(columns)] = 0
    return block


units = st.sets(st.integers(0, HIDDEN - 1))


@settings(max_examples=30, deadline=None)
@given(rows=units, columns=units, aligned=st.booleans())
def test_a_merged_block_computes_the_same_with_fewer_units(rows, columns, aligned):
    block = make_block(rows, columns, aligned=aligned).eval()
    x = torch.randn(2, CHANNELS, 6, 7, dtype=torch.float64)
    before = block(x)
    assert set(constant_units(block.pwconv1, block.pwconv2).nonzero().flatten().tolist()) == (
        rows | columns
    )
    block.switch_to_deploy()
    torch.testing.assert_close(block(x), before, rtol=1e-10, atol=1e-10)
    live = HIDDEN - len(rows | columns)
    # Widths are rounded up to a multiple of 32, but not above the original one.
    assert block.pwconv1.out_features == block.pwconv2.in_features == (HIDDEN if live else 1)


def test_wide_blocks_get_aligned_widths():
    torch.manual_seed(0)
    block = SLaKBlock(64, 5, 3).eval()
    block.pwconv1.weight.data[:100] = 0
    block.pwconv2.weight.data[:, 50:120] = 0
    x = torch.randn(1, 64, 4, 4)
    before = block(x)
    block.switch_to_deploy()
    # 256 - 120 = 136 units remain; the next multiple of 32 is 160.
    assert block.pwconv1.weight.shape == (160, 64)
    assert block.pwconv2.weight.shape == (64, 160)
    torch.testing.assert_close(block(x), before, rtol=1e-5, atol=1e-6)


def test_a_constant_unit_becomes_part_of_the_bias():
    block = make_block(rows=range(HIDDEN)).eval()
    x = torch.randn(1, CHANNELS, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        constant = block.pwconv2(nn.functional.gelu(block.pwconv1.bias))
        expected = x + (block.gamma * constant).view(1, -1, 1, 1)
    block.switch_to_deploy()
    torch.testing.assert_close(block(x), expected)


def test_scales_are_folded():
    block = make_block().eval()
    block.switch_to_deploy()
    assert block.gamma is None
    assert block.norm.weight is None
    names = set(block.state_dict())
    assert not any('norm' in name or 'gamma' in name for name in names)


def test_files_of_merged_networks_load_and_are_smaller(tmp_path):
    torch.manual_seed(0)
    network = SLaK(ARCH, (7, 7, 7, 7), layer_scale_init_value=1.0).eval()
    for stage in network.stages:
        stage[0].pwconv1.weight.data[:40] = 0
        stage[0].pwconv2.weight.data[:, :40] = 0
    image = torch.randn(1, 3, 64, 64)
    before = network(image)
    whole = sum(p.numel() for p in copy.deepcopy(network).parameters())
    network.switch_to_deploy()
    torch.save(network.state_dict(), tmp_path / 'merged.pth')
    state = torch.load(tmp_path / 'merged.pth')
    # 48, 64 and 80 hidden units became 8, 24 and 40, rounded up to 32, 32 and 64. The 32 units of
    # the first stage are all masked.
    saved = [tuple(state[f'stages.{i}.0.pwconv1.weight'].shape) for i in range(4)]
    assert saved == [(1, 8), (32, 12), (32, 16), (64, 20)]
    assert sum(value.numel() for value in state.values()) < whole
    loaded = SLaK(ARCH, (7, 7, 7, 7), deploy=True).eval()
    assert loaded.load_state_dict(state)
    for a, b in zip(loaded(image), before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_network_that_is_not_merged_keeps_its_shapes():
    plain = SLaK(ARCH, (7, 7, 7, 7))
    state = plain.state_dict()
    state['stages.0.0.pwconv1.weight'] = state['stages.0.0.pwconv1.weight'][:16]
    with pytest.raises(RuntimeError, match='size mismatch'):
        plain.load_state_dict(state)


@pytest.mark.parametrize('aligned', [False, True])
def test_zero_units_are_left_out_in_training(aligned):
    block = make_block(rows=[0, 1, 2, 5], columns=[1, 2, 3, 5], aligned=aligned)
    # With its bias, unit 5 has an output, so that its column has a gradient.
    block.pwconv1.bias.data[[1, 2]] = 0
    assert zero_units(block.pwconv1, block.pwconv2).nonzero().flatten().tolist() == [1, 2]
    x = torch.randn(2, CHANNELS, 6, 7, dtype=torch.float64, requires_grad=True)

    def run():
        block.zero_grad()
        out = block(x)
        (grad,) = torch.autograd.grad(out.square().sum(), x, retain_graph=True)
        out.square().sum().backward()
        return out.detach(), grad, {name: p.grad.clone() for name, p in block.named_parameters()}

    out, x_grad, grads = run()
    block.leave_out_zero_units()
    assert block.active_units.tolist() == [i for i in range(HIDDEN) if i not in (1, 2)]
    out_left, x_grad_left, grads_left = run()
    torch.testing.assert_close(out_left, out)
    torch.testing.assert_close(x_grad_left, x_grad)
    for name, grad in grads.items():
        torch.testing.assert_close(grads_left[name], grad)
    # A unit with a zero column is new, and its column has a gradient.
    assert grads_left['pwconv2.weight'][:, 3].abs().min() > 0
    block.leave_out_zero_units(False)
    assert block.active_units is None


def test_evaluation_computes_all_units():
    block = make_block(rows=[4], columns=[4])
    block.pwconv1.bias.data[4] = 0
    block.leave_out_zero_units()
    block.pwconv1.weight.data[4] = 1.0
    block.pwconv2.weight.data[:, 4] = 1.0
    x = torch.randn(1, CHANNELS, 4, 4, dtype=torch.float64)
    block.eval()
    expected = copy.deepcopy(block)
    expected.leave_out_zero_units(False)
    assert torch.equal(block(x), expected(x))


def test_blocks_without_or_with_only_zero_units_compute_all():
    block = make_block()
    block.leave_out_zero_units()
    assert block.active_units is None
    block = make_block(range(HIDDEN), range(HIDDEN))
    block.pwconv1.bias.data.zero_()
    block.leave_out_zero_units()
    assert block.active_units is None
