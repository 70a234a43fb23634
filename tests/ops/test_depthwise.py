"""The operator: every implementation on CPUs against the reference, and its use by PyTorch."""

import functools
import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from tensors import LAYOUTS, TOLERANCE, arrange, assert_accurate
from torch.utils import backend_registration
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mmslak.ops import (
    LargeKernelConv2d,
    cpp,
    decomposed_conv2d,
    depthwise,
    depthwise_conv2d,
    reference,
)
from mmslak.ops.depthwise import choose

ON_CPU = ['native', 'pytorch', *(['cpp'] if cpp.available() else [])]

kernels = st.tuples(st.sampled_from([1, 3, 5, 7]), st.integers(1, 30).map(lambda n: 2 * n + 1))
sides = st.one_of(st.integers(1, 9), st.integers(10, 70))
# Dilations of more than a side of the feature map leave only the central weights.
steps = st.one_of(st.integers(1, 6), st.integers(7, 100))
dilations = st.one_of(st.just((1, 1)), st.tuples(steps, steps))


@pytest.mark.parametrize('implementation', ON_CPU)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    kernel=kernels,
    dilation=dilations,
    transposed=st.booleans(),
    height=sides,
    width=sides,
    images=st.integers(1, 5),
    channels=st.integers(1, 19),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(list(TOLERANCE)),
    seed=st.integers(0, 2**31),
)
def test_forward_and_both_gradients(
    implementation,
    kernel,
    dilation,
    transposed,
    height,
    width,
    images,
    channels,
    layout,
    dtype,
    seed,
):
    kernel = kernel[::-1] if transposed else kernel
    torch.manual_seed(seed)
    x, grad = (
        arrange(torch.randn(images, channels, height, width).to(dtype), layout) for _ in range(2)
    )
    weight = (torch.randn(channels, 1, *kernel) / max(kernel)).to(dtype)
    bias = torch.randn(channels).to(dtype)
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    out = depthwise_conv2d(*leaves, implementation, dilation)
    if implementation != 'native':
        assert out.stride() == torch.empty_like(x).stride()
    wanted = reference.forward(x, weight, dilation) + bias.double().view(-1, 1, 1)
    assert_accurate(out, wanted, dtype)
    got = torch.autograd.grad(out, leaves, grad)
    assert_accurate(got[0], reference.input_gradient(grad, weight, dilation), dtype)
    assert_accurate(got[1], reference.weight_gradient(x, grad, kernel, dilation), dtype)
    assert_accurate(got[2], grad.double().sum((0, 2, 3)), dtype)


@pytest.mark.parametrize('implementation', ON_CPU)
def test_square_kernels_and_feature_maps_in_several_chunks(implementation):
    torch.manual_seed(0)
    for kernel, size, dilation in (
        ((31, 31), (40, 33), 1),
        ((13, 31), (150, 21), 1),
        ((5, 51), (12, 400), 1),
        ((13, 13), (90, 40), (5, 3)),
        ((3, 5), (12, 300), (2, 40)),
    ):
        x, grad = torch.randn(2, 17, *size), torch.randn(2, 17, *size)
        weight = torch.randn(17, 1, *kernel, requires_grad=True)
        out = depthwise_conv2d(x.requires_grad_(), weight, None, implementation, dilation)
        pair = (dilation, dilation) if dilation == 1 else dilation
        got = torch.autograd.grad(out, (x, weight), grad)
        # Each output is a sum of about a thousand products.
        for value, wanted in zip(
            (out, *got),
            (
                reference.forward(x, weight, pair),
                reference.input_gradient(grad, weight, pair),
                reference.weight_gradient(x, grad, kernel, pair),
            ),
            strict=True,
        ):
            scale = wanted.abs().max().item()
            torch.testing.assert_close(value.double(), wanted, rtol=0, atol=2e-6 * scale)


@pytest.mark.parametrize('dilation', [1, (2, 3)], ids=str)
@pytest.mark.parametrize('implementation', ON_CPU)
def test_gradients_of_first_and_second_order(implementation, dilation):
    torch.manual_seed(0)
    shapes = [(2, 2, 4, 5), (2, 1, 7, 3), (2, 1, 3, 7), (2, 1, 3, 3), (2,)]
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def run(*tensors):
        return decomposed_conv2d(*tensors, implementation=implementation, dilation=dilation)

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


@pytest.mark.parametrize('implementation', ON_CPU)
@pytest.mark.parametrize('needed', range(1, 16))
def test_gradients_of_some_of_the_inputs(implementation, needed):
    torch.manual_seed(0)
    shapes = [(2, 3, 4, 6), (3, 1, 7, 3), (3, 1, 3, 7), (3,)]
    leaves = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    asked = [leaf.requires_grad_() for i, leaf in enumerate(leaves) if needed >> i & 1]
    x, tall, wide, bias = leaves
    out = decomposed_conv2d(x, tall, wide, bias=bias, implementation=implementation)
    grad = torch.randn_like(out)
    wanted = [
        sum(reference.input_gradient(grad, weight.detach()) for weight in (tall, wide)),
        reference.weight_gradient(x.detach(), grad, (7, 3)),
        reference.weight_gradient(x.detach(), grad, (3, 7)),
        grad.sum((0, 2, 3)),
    ]
    wanted = [value for i, value in enumerate(wanted) if needed >> i & 1]
    for value, expected in zip(torch.autograd.grad(out, asked, grad), wanted, strict=True):
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize('dilation', [(1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize('implementation', ON_CPU)
def test_decomposed_is_the_sum_of_its_branches(implementation, dilation):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 9, 14)
    weights = [torch.randn(5, 1, *size) for size in ((11, 3), (3, 11), (3, 3))]
    bias = torch.randn(5)
    out = decomposed_conv2d(x, *weights, bias, implementation, dilation)
    wanted = sum(reference.forward(x, weight, dilation) for weight in weights)
    assert_accurate(out, wanted + bias.double().view(-1, 1, 1), torch.float32)


@pytest.mark.parametrize('implementation', ON_CPU)
@pytest.mark.parametrize('shape', [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_empty_feature_maps(implementation, shape):
    if implementation == 'native' and shape[0]:
        pytest.skip('of empty feature maps PyTorch convolves only empty batches')
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(shape[1], 1, 5, 9, requires_grad=True)
    out = depthwise_conv2d(x, weight, None, implementation)
    assert out.shape == shape
    x_grad, weight_grad = torch.autograd.grad(out.sum(), (x, weight))
    assert x_grad.shape == shape
    assert weight_grad.shape == weight.shape
    assert not weight_grad.any()


class Layer(torch.nn.Module):
    """One convolution with a bias."""

    def __init__(self, kernel=(3, 7), dilation=1):
        super().__init__()
        self.dilation = dilation
        torch.manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(4, 1, *kernel))
        self.bias = torch.nn.Parameter(torch.randn(4))

    def forward(self, x):
        return depthwise_conv2d(x, self.weight, self.bias, dilation=self.dilation)


def test_operators_pass_the_checks_of_pytorch():
    torch.manual_seed(0)
    x, tall, wide, bias = (
        torch.randn(shape, requires_grad=True)
        for shape in ((2, 3, 4, 6), (3, 1, 7, 3), (3, 1, 3, 7), (3,))
    )
    operators = torch.ops.mmslak
    torch.library.opcheck(operators.depthwise_conv2d, (x, [tall, wide], bias, 'auto'))
    torch.library.opcheck(operators.depthwise_conv2d, (x, [tall, wide], bias, 'auto', [2, 3]))
    last = x.detach().contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(operators.depthwise_conv2d, (last, [tall], None, 'pytorch'))
    grad = torch.randn(2, 3, 4, 6, requires_grad=True)
    for arguments in ((x, grad, 7, 3, 'auto'), (x, grad, 7, 3, 'auto', [2, 3])):
        torch.library.opcheck(operators.depthwise_conv2d_weight_gradient, arguments)


@pytest.mark.parametrize('dilation', [1, (2, 3)], ids=str)
def test_operations_are_counted_like_those_of_a_convolution(dilation):
    x, weight = torch.randn(2, 4, 8, 9), torch.randn(4, 1, 3, 7, requires_grad=True)
    counts = []
    for implementation in ('native', 'auto'):
        with FlopCounterMode(display=False) as counter:
            out = depthwise_conv2d(x.requires_grad_(), weight, None, implementation, dilation)
            forward = counter.get_total_flops()
            out.sum().backward()
        counts.append(forward)
    # The forward pass and two gradients. PyTorch counts gradients of its grouped convolutions
    # differently.
    assert counts == [2 * 2 * 4 * 8 * 9 * 21] * 2
    assert counter.get_total_flops() == 3 * counts[0]


@pytest.mark.parametrize(
    ('shape', 'dilation'), [((2, 4, 8, 9), 1), ((1, 4, 5, 5), 1), ((2, 4, 8, 9), (2, 3))], ids=str
)
def test_compiles_and_exports(shape, dilation):
    torch._dynamo.reset()
    layer, x = Layer(dilation=dilation), torch.randn(shape)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager', dynamic=True)
    torch.testing.assert_close(compiled(x), layer(x))
    wanted = torch.autograd.grad(layer(x).square().sum(), layer.parameters())
    got = torch.autograd.grad(compiled(x).square().sum(), layer.parameters())
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), layer(x))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast(dtype):
    layer, x = Layer(), torch.randn(2, 4, 8, 9)
    with torch.autocast('cpu', dtype):
        out = layer(x)
    assert out.dtype == dtype
    out.float().square().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    wanted = reference.forward(x.to(dtype), layer.weight.detach().to(dtype))
    wanted += layer.bias.detach().to(dtype).double().view(-1, 1, 1)
    assert_accurate(out.detach(), wanted, dtype)


def test_activation_checkpointing():
    layer, x = Layer(), torch.randn(2, 4, 8, 9, requires_grad=True)
    plain = torch.autograd.grad(layer(x).square().sum(), (x, layer.weight))
    again = checkpoint(layer, x, use_reentrant=False).square().sum()
    assert all(map(torch.equal, torch.autograd.grad(again, (x, layer.weight)), plain))


@pytest.mark.parametrize('dilation', [(1, 1), (2, 3)], ids=str)
def test_function_transforms_and_forward_mode_derivatives(dilation):
    torch.manual_seed(0)
    x, tangent = torch.randn(2, 3, 4, 6, 5, dtype=torch.float64)
    weight = torch.randn(4, 1, 3, 7, dtype=torch.float64)

    def run(x):
        return depthwise_conv2d(x, weight, dilation=dilation)

    # The derivative of a linear function is the function itself.
    out, moved = torch.func.jvp(run, (x,), (tangent,))
    torch.testing.assert_close(out, reference.forward(x, weight, dilation))
    torch.testing.assert_close(moved, reference.forward(tangent, weight, dilation))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        moved = torch.autograd.forward_ad.unpack_dual(run(dual)).tangent
        torch.testing.assert_close(moved, reference.forward(tangent, weight, dilation))
    both = torch.func.vmap(run)(torch.stack([x, tangent]))
    torch.testing.assert_close(both[1], reference.forward(tangent, weight, dilation))
    grad = torch.func.grad(lambda x: run(x).square().sum())(x)
    wanted = reference.input_gradient(2 * out, weight, dilation)
    torch.testing.assert_close(grad, wanted)


def native_and_own(kernel, dilation):
    """Return ``nn.Conv2d`` and the operator as functions of (x, weight, bias)."""

    def plain(x, weight, bias):
        padding = [k // 2 * step for k, step in zip(kernel, dilation, strict=True)]
        return torch.nn.functional.conv2d(
            x, weight, bias, padding=padding, dilation=dilation, groups=len(weight)
        )

    return plain, functools.partial(depthwise_conv2d, dilation=dilation)


@pytest.mark.parametrize('dilation', [(1, 1), (2, 3)], ids=str)
def test_batched_gradients(dilation):
    torch.manual_seed(0)
    shapes = ((2, 3, 4, 6), (3, 1, 3, 7), (3,))
    leaves = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    grads = torch.randn(4, 2, 3, 4, 6, dtype=torch.float64)
    first, second, jacobians, hessians = [], [], [], []
    for convolve in native_and_own((3, 7), dilation):
        got = torch.autograd.grad(
            convolve(*leaves), leaves, grads, is_grads_batched=True, create_graph=True
        )
        first.append(got)
        loss = sum(value.square().sum() for value in got)
        second.append(torch.autograd.grad(loss, leaves[:2]))
        jacobians.append(
            torch.autograd.functional.jacobian(convolve, tuple(leaves), vectorize=True)
        )
        hessians.append(
            torch.autograd.functional.hessian(
                lambda *tensors, f=convolve: f(*tensors).square().sum(),
                tuple(leaves),
                vectorize=True,
            )
        )
    for wanted, value in (first, second, jacobians, hessians):
        torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize(
    'dims',
    [
        (1, [None, None], None),
        (0, [2, None], None),
        (None, [0, 4], None),
        (None, [None, None], 1),
        (2, [0, 1], 0),
    ],
    ids=str,
)
@pytest.mark.parametrize('dilation', [None, (2, 3)], ids=str)
def test_batch_of_operators(dims, dilation):
    """The operators themselves under ``torch.vmap``, with any of their tensors batched."""
    torch.manual_seed(0)

    def batched(shape, dim):
        values = torch.randn(shape) if dim is None else torch.randn(5, *shape).movedim(0, dim)
        return values

    x = batched((2, 3, 4, 6), dims[0])
    weights = [batched((3, 1, *k), d) for k, d in zip(((3, 7), (7, 3)), dims[1], strict=True)]
    bias = batched((3,), dims[2])

    def of(i, tensor, dim):
        return tensor if dim is None else tensor.select(dim, i)

    options = ('auto', *([dilation] if dilation else []))
    alike = (None,) * len(options)
    operator = torch.ops.mmslak.depthwise_conv2d
    got = torch.vmap(operator, (*dims, *alike))(x, weights, bias, *options)
    for i in range(5):
        alone = [of(i, w, d) for w, d in zip(weights, dims[1], strict=True)]
        wanted = operator(of(i, x, dims[0]), alone, of(i, bias, dims[2]), *options)
        torch.testing.assert_close(got[i], wanted)

    grad = torch.randn(5, 2, 3, 4, 6)
    operator = torch.ops.mmslak.depthwise_conv2d_weight_gradient
    got = torch.vmap(operator, (dims[0], 0, None, None, *alike))(x, grad, 3, 7, *options)
    for i in range(5):
        torch.testing.assert_close(got[i], operator(of(i, x, dims[0]), grad[i], 3, 7, *options))


@pytest.mark.skipif(
    not hasattr(backend_registration, '_setup_privateuseone_for_python_backend'),
    reason='this version of PyTorch cannot register a device in Python',
)
def test_other_devices_use_the_convolution_of_pytorch():
    """A device other than CPU and CUDA, such as MPS, XPU or NPU, in a process of its own."""
    done = subprocess.run(
        [sys.executable, ROOT / 'tests' / 'ops' / 'other_device.py'],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == 'equal\n'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(x=torch.randn(3, 4, 5)), r'x must have shape \(N, C, H, W\), got \(3, 4, 5\)'),
        (dict(x=torch.zeros(1, 3, 4, 5, dtype=torch.long)), 'floating-point'),
        (dict(weight=torch.randn(3, 1, 4, 5)), r'odd kernel sizes .* got \(4, 5\)'),
        (dict(weight=torch.randn(2, 1, 3, 5)), r'\(3, 1, kh, kw\) for 3 channels'),
        (dict(weight=torch.randn(3, 3, 3, 5)), r'\(3, 1, kh, kw\) for 3 channels'),
        (dict(weight=torch.randn(3, 1, 3, 5).double()), r'torch.float32 on cpu, got torch.float64'),
        (dict(bias=torch.randn(2)), r'bias must have shape \(3,\), got \(2,\)'),
        (dict(dilation=0), 'dilation must be a positive int or two of them, got 0'),
        (dict(dilation=(1, 2, 3)), r'dilation must be .* got \(1, 2, 3\)'),
        (dict(dilation=(2, 1.5)), r'dilation must be .* got \(2, 1.5\)'),
        (dict(implementation='fast'), r"one of 'auto', .* got 'fast'"),
        (
            dict(implementation='triton'),
            "needs Triton and .* CUDA device, got torch.float32 on cpu; .*'auto' runs everywhere",
        ),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(change, message):
    good = dict(x=torch.randn(1, 3, 4, 5), weight=torch.randn(3, 1, 3, 5))
    with pytest.raises(ValueError, match=message):
        depthwise_conv2d(**{**good, **change})


def test_small_kernel_larger_than_the_large_one_is_an_error():
    x, one, five = torch.randn(1, 2, 4, 4), torch.randn(2, 1, 1, 1), torch.randn(2, 1, 5, 5)
    with pytest.raises(
        ValueError, match=r'size \(5, 5\) does not fit inside a kernel of size \(1, 1\)'
    ):
        decomposed_conv2d(x, one, one, five)


def test_environment_variable_selects_the_implementation():
    code = """
import torch
from torch.profiler import profile
from mmslak.ops import depthwise_conv2d
with profile() as record:
    depthwise_conv2d(torch.randn(1, 3, 8, 8), torch.randn(3, 1, 5, 11))
names = {event.name for event in record.events()}
print('mmslak::depthwise_conv2d' in names, 'aten::conv2d' in names)
"""
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'MMSLAK_DEPTHWISE': 'native'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert 'False True' in done.stdout, done.stderr


def test_wrong_environment_variable_is_named(monkeypatch):
    monkeypatch.setattr(depthwise, '_DEFAULT', 'nativ')
    with pytest.raises(ValueError, match=r"MMSLAK_DEPTHWISE must be one of 'auto', .* got 'nativ'"):
        LargeKernelConv2d(3, 3, 5)


@pytest.mark.parametrize('avx512', [False, True])
def test_choice_by_shape(avx512, monkeypatch):
    monkeypatch.setattr(depthwise, '_has_avx512', lambda: avx512)
    x = torch.randn(1, 3, 14, 14)
    last = x.contiguous(memory_format=torch.channels_last)
    assert choose(last, (3, 3)) == 'native'
    assert choose(x, (51, 5)) == 'native'
    if cpp.available():
        assert choose(x, (51, 5), gradient=True) == 'cpp'
        assert choose(last, (51, 5)) == ('native' if avx512 else 'cpp')
        small = last[..., :7, :7].contiguous(memory_format=torch.channels_last)
        assert choose(small, (51, 5)) == 'native'
    assert choose(x, (5, 51)) == ('cpp' if cpp.available() else 'pytorch')
    assert choose(x.to('meta'), (5, 51)) == 'native'


@pytest.mark.parametrize('shape', [(2, 3, 8, 7), (1, 3, 20, 20)])
def test_autocast_does_not_reach_the_implementations(shape):
    """Under autocast PyTorch's convolution returns 16 bits where the CPU kernels expect 32.

    With auto, small planar feature maps take PyTorch's convolution for the tall kernel.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    tall, wide = (torch.randn(3, 1, *k, generator=generator) for k in ((9, 3), (3, 9)))
    with torch.autocast('cpu', torch.bfloat16):
        out = decomposed_conv2d(x, tall, wide)
        grad = torch.autograd.functional.vjp(lambda t: decomposed_conv2d(x, t, wide), tall, out)[1]
    rounded = [t.bfloat16() for t in (x, tall, wide)]
    want = sum(reference.forward(rounded[0], kernel) for kernel in rounded[1:])
    assert out.dtype == torch.bfloat16
    assert (out - want).abs().max() <= 1e-2 * want.abs().max()
    wanted = reference.weight_gradient(rounded[0], out, (9, 3))
    assert (grad - wanted).abs().max() <= 2e-2 * wanted.abs().max()
    with pytest.raises(ValueError, match='dtype of x'):
        cpp.forward(x, wide, None, out)
