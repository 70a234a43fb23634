"""Spatial mixing against explicit convolutions and norms."""

import pytest
import torch
import torch.nn.functional as F
from helpers import randomise_as_trained
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmslak.models import SLaK, SpatialMixing, branches_kept_apart
from mmslak.ops import reference

odd = st.integers(0, 6).map(lambda n: 2 * n + 1)


def batch_norm(x, norm):
    """Batch norm in training mode by its definition: biased variance over N, H and W."""
    mean = x.mean((0, 2, 3), keepdim=True)
    var = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    x = (x - mean) / torch.sqrt(var + norm.eps)
    return norm.weight[None, :, None, None] * x + norm.bias[None, :, None, None]


def randomise(module, seed=0):
    """Draw all parameters from a standard normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)


@settings(max_examples=25, deadline=None)
@given(m=odd, n=odd, h=st.integers(2, 12), w=st.integers(2, 12), c=st.integers(1, 4))
def test_decomposed_is_the_sum_of_three_convolutions_and_norms(m, n, h, w, c):
    m, n = max(m, n), min(m, n)
    block = SpatialMixing(c, m, n, 'decomposed').double()
    randomise(block)
    x = torch.randn(2, c, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = 0
    for branch, kernel in ((block.tall, (m, n)), (block.wide, (n, m)), (block.small, (n, n))):
        assert branch.conv.weight.shape == (c, 1, *kernel)
        assert branch.conv.bias is None
        y = reference.forward(x, branch.conv.weight)
        expected = expected + batch_norm(y, branch.norm)
    torch.testing.assert_close(block(x), expected, rtol=1e-8, atol=1e-8)


def test_one_pixel_becomes_a_cross():
    """One channel, one pixel of value 1, kernels of ones: a cross whose centre counts twice."""
    block = SpatialMixing(1, 5, 1, 'decomposed').eval()
    for branch in (block.tall, block.wide, block.small):
        torch.nn.init.ones_(branch.conv.weight)
        branch.norm.eps = 1e-12  # with mean 0 and variance 1 the norm returns its input
    x = torch.zeros(1, 1, 7, 7)
    x[0, 0, 3, 3] = 1.0
    expected = torch.zeros(7, 7)
    expected[1:6, 3] += 1
    expected[3, 1:6] += 1
    expected[3, 3] += 1
    torch.testing.assert_close(block(x)[0, 0], expected)


def test_reparam_and_naive_against_explicit_convolutions():
    x = torch.randn(2, 3, 9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    block = SpatialMixing(3, 7, 3, 'reparam').double()
    randomise(block)
    expected = sum(
        batch_norm(reference.forward(x, b.conv.weight), b.norm) for b in (block.large, block.small)
    )
    torch.testing.assert_close(block(x), expected, rtol=1e-8, atol=1e-8)

    block = SpatialMixing(3, 7, 3, 'naive').double()
    randomise(block)
    assert [name for name, _ in block.named_parameters()] == [
        'large.conv.weight',
        'large.conv.bias',
    ]
    expected = reference.forward(x, block.large.conv.weight)
    expected = expected + block.large.conv.bias[None, :, None, None]
    torch.testing.assert_close(block(x), expected, rtol=1e-8, atol=1e-8)


def test_norm_cfg_reaches_every_branch():
    block = SpatialMixing(4, 5, 3, norm_cfg=dict(type='GN', num_groups=2))
    kinds = {type(branch.norm) for branch in (block.tall, block.wide, block.small)}
    assert kinds == {torch.nn.GroupNorm}


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (dict(kernel_size=50), ['kernel_sizes', '50', 'odd']),
        (dict(kernel_size=0), ['kernel_sizes', '0']),
        (dict(kernel_size=7, small_kernel=4), ['small_kernel', '4', 'odd']),
        (dict(kernel_size=3, small_kernel=5), ['kernel_sizes', '3', 'small_kernel=5']),
        (dict(kernel_size=5, mode='lora'), ['mode', 'lora', 'decomposed', 'reparam', 'naive']),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(ValueError) as error:
        SpatialMixing(4, **arguments)
    for word in words:
        assert word in str(error.value)


def sum_of_branches(block, x):
    """Compute each branch by PyTorch's convolution and the norm, and add them."""
    out = 0
    for branch in block.children():
        kernel = branch.conv.weight.shape[-2:]
        padding = (kernel[0] // 2, kernel[1] // 2)
        y = F.conv2d(x, branch.conv.weight, branch.conv.bias, padding=padding, groups=x.shape[1])
        out = out + (branch.norm(y) if hasattr(branch, 'norm') else y)
    return out


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    m=odd, n=odd, mode=st.sampled_from(['decomposed', 'reparam', 'naive']), seed=st.integers(0, 99)
)
def test_merged_branches_compute_the_same_function(m, n, mode, seed):
    m, n = max(m, n), min(m, n)
    block = randomise_as_trained(SpatialMixing(3, m, n, mode), seed).double()
    x = torch.randn(2, 3, 9, 12, dtype=torch.float64)
    expected = sum_of_branches(block, x)
    # First fused in the forward pass, then merged in place.
    torch.testing.assert_close(block(x), expected)
    block.switch_to_deploy()
    torch.testing.assert_close(block(x), expected)
    fresh = SpatialMixing(3, m, n, mode, deploy=True).double()
    fresh.load_state_dict(block.state_dict())
    torch.testing.assert_close(fresh(x), expected)
    assert not any('norm' in name or 'small' in name for name in fresh.state_dict())
    # Merging again changes nothing.
    block.switch_to_deploy()
    torch.testing.assert_close(block(x), expected)


def test_fused_branches_have_the_same_gradients():
    """In evaluation mode, as for receptive fields and frozen norms."""
    block = randomise_as_trained(SpatialMixing(3, 9, 3)).double()
    x = torch.randn(2, 3, 9, 12, dtype=torch.float64, requires_grad=True)
    leaves = (x, *block.parameters())
    wanted = torch.autograd.grad(sum_of_branches(block, x).square().sum(), leaves)
    got = torch.autograd.grad(block(x).square().sum(), leaves)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_only_the_flag_decides_whether_branches_are_fused():
    block, x = randomise_as_trained(SpatialMixing(3, 9, 3)), torch.randn(1, 3, 8, 8)
    assert block.fuse_in_eval
    plain, seen = block(x), []
    block.small.conv.register_forward_hook(lambda module, inputs, out: seen.append(out))
    # A forward hook changes nothing, not even the rounding.
    assert torch.equal(block(x), plain)
    assert not seen
    block.fuse_in_eval = False
    torch.testing.assert_close(block(x), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[0], F.conv2d(x, block.small.conv.weight, padding=1, groups=3))
    block.fuse_in_eval = True
    with branches_kept_apart(nn.Sequential(block)):
        block(x)
    assert len(seen) == 2 and block.fuse_in_eval


def test_flag_of_the_backbone_applies_to_all_blocks():
    backbone = SLaK('nano').eval()
    assert backbone.fuse_in_eval
    backbone.fuse_in_eval = False
    assert not any(block.mixing.fuse_in_eval for stage in backbone.stages for block in stage)
    backbone.stages[2][1].mixing.fuse_in_eval = True
    assert not backbone.fuse_in_eval


def test_norm_that_cannot_be_merged_is_named():
    block = SpatialMixing(4, 5, 3, norm_cfg=dict(type='GN', num_groups=2)).eval()
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(block(x), sum_of_branches(block, x))
    with pytest.raises(ValueError, match=r'norm_cfg must be a batch norm .* got GroupNorm'):
        block.switch_to_deploy()


@pytest.mark.parametrize('mode', ['decomposed', 'reparam', 'naive'])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('autocast', [True, False])
def test_one_conversion_for_all_branches_changes_nothing(monkeypatch, mode, training, autocast):
    """As on a GPU, where the feature map is converted to planar once."""
    torch.manual_seed(0)
    mixing = SpatialMixing(6, 9, 3, mode).train(training)
    images = torch.randn(2, 6, 8, 7).to(memory_format=torch.channels_last)
    probe = torch.randn(2, 6, 8, 7)
    results = []
    for planar in (False, True):
        monkeypatch.setattr(
            'mmslak.models.large_kernel.prefers_planar', lambda *_, planar=planar: planar
        )
        x = images.clone().requires_grad_()
        with torch.autocast('cpu', torch.bfloat16, autocast):
            out = mixing(x)
        loss = (out.float() * probe).sum()
        grads = torch.autograd.grad(loss, (x, *mixing.parameters()))
        if planar:
            assert out.is_contiguous(memory_format=torch.channels_last)
            assert grads[0].is_contiguous(memory_format=torch.channels_last)
        results.append((out, *grads))
    for plain, planar in zip(*results, strict=True):
        assert plain.dtype == planar.dtype
        tolerance = 3e-2 if autocast else 2e-4
        assert (plain - planar).abs().max() <= tolerance * plain.abs().max()
