"""The spatial mixing block against explicit convolutions and norms."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmslak.models import SpatialMixing

odd = st.integers(0, 6).map(lambda n: 2 * n + 1)


def naive_depthwise(x, weight):
    """Depth-wise "same" convolution, one tap after the other."""
    kh, kw = weight.shape[-2:]
    h, w = x.shape[-2:]
    padded = F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2))
    out = torch.zeros_like(x)
    for i in range(kh):
        for j in range(kw):
            out += weight[None, :, 0, i, j, None, None] * padded[..., i : i + h, j : j + w]
    return out


def naive_batch_norm(x, norm):
    """Batch norm in training mode by its definition: biased variance over N, H and W."""
    mean = x.mean((0, 2, 3), keepdim=True)
    var = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    x = (x - mean) / torch.sqrt(var + norm.eps)
    return norm.weight[None, :, None, None] * x + norm.bias[None, :, None, None]


def randomise(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)


@settings(max_examples=25, deadline=None)
@given(m=odd, n=odd, h=st.integers(2, 12), w=st.integers(2, 12), c=st.integers(1, 4))
def test_decomposed_is_the_sum_of_three_convolutions_and_norms(m, n, h, w, c):
    m, n = max(m, n), min(m, n)
    block = SpatialMixing(c, m, n, 'decomposed')
    randomise(block)
    block.double()
    x = torch.randn(2, c, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = 0
    for branch, kernel in ((block.tall, (m, n)), (block.wide, (n, m)), (block.small, (n, n))):
        assert branch.conv.weight.shape == (c, 1, *kernel)
        assert branch.conv.bias is None
        y = naive_depthwise(x, branch.conv.weight)
        expected = expected + naive_batch_norm(y, branch.norm)
    torch.testing.assert_close(block(x), expected, rtol=1e-8, atol=1e-8)


def test_hand_worked_case():
    """One channel, a single bright pixel, kernels of ones: a cross with a doubled centre."""
    block = SpatialMixing(1, 5, 1, 'decomposed').eval()
    for branch in (block.tall, block.wide, block.small):
        torch.nn.init.ones_(branch.conv.weight)
        branch.norm.eps = 1e-12  # mean 0, variance 1: the norm is then the identity
    x = torch.zeros(1, 1, 7, 7)
    x[0, 0, 3, 3] = 1.0
    expected = torch.zeros(7, 7)
    expected[1:6, 3] += 1
    expected[3, 1:6] += 1
    expected[3, 3] += 1
    torch.testing.assert_close(block(x)[0, 0], expected)


def test_reparam_and_naive_against_explicit_convolutions():
    x = torch.randn(2, 3, 9, 6, generator=torch.Generator().manual_seed(2))
    block = SpatialMixing(3, 7, 3, 'reparam')
    randomise(block)
    expected = sum(
        naive_batch_norm(naive_depthwise(x, b.conv.weight), b.norm)
        for b in (block.large, block.small)
    )
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)

    block = SpatialMixing(3, 7, 3, 'naive')
    randomise(block)
    assert [name for name, _ in block.named_parameters()] == [
        'large.conv.weight',
        'large.conv.bias',
    ]
    expected = naive_depthwise(x, block.large.conv.weight)
    expected = expected + block.large.conv.bias[None, :, None, None]
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


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
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError) as error:
        SpatialMixing(4, **arguments)
    for word in words:
        assert word in str(error.value)
