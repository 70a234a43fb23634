"""Every implementation against the definition in double precision, and how PyTorch uses it."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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

ROOT = Path(__file__).resolve().parents[2]
ON_CPU = ['native', 'pytorch', *(['cpp'] if cpp.available() else [])]
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}

kernels = st.tuples(st.sampled_from([1, 3, 5, 7]), st.integers(1, 30).map(lambda n: 2 * n + 1))
sides = st.one_of(st.integers(1, 9), st.integers(10, 70))


def arrange(x, layout):
    """Values of ``x`` in memory in several ways."""
    if layout == 'channels_last':
        return x.contiguous(memory_format=torch.channels_last)
    if layout == 'sliced':
        big = torch.full([s + 2 for s in x.shape], float('nan'), dtype=x.dtype)
        part = big[1:-1, 1:-1, 1:-1, 1:-1]
        return part.copy_(x)
    if layout == 'transposed':
        return x.mT.contiguous().mT
    return x


def check(got, wanted, dtype):
    assert got.dtype == dtype
    assert got.shape == wanted.shape
    scale = max(1.0, wanted.abs().max().item()) if wanted.numel() else 1.0
    torch.testing.assert_close(
        got.double(), wanted, rtol=0, atol=TOLERANCE[dtype] * scale * 4, check_stride=False
    )


@pytest.mark.parametrize('implementation', ON_CPU)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kernel=kernels,
    turned=st.booleans(),
    height=sides,
    width=sides,
    images=st.integers(1, 5),
    channels=st.integers(1, 19),
    layout=st.sampled_from(['contiguous', 'channels_last', 'sliced', 'transposed']),
    dtype=st.sampled_from(list(TOLERANCE)),
    seed=st.integers(0, 2**31),
)
def test_forward_and_both_gradients(
    implementation, kernel, turned, height, width, images, channels, layout, dtype, seed
):
    kernel = kernel[::-1] if turned else kernel
    torch.manual_seed(seed)
    x, grad = (
        arrange(torch.randn(images, channels, height, width).to(dtype), layout) for _ in range(2)
    )
    weight = (torch.randn(channels, 1, *kernel) / max(kernel)).to(dtype)
    bias = torch.randn(channels).to(dtype)
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    out = depthwise_conv2d(*leaves, implementation)
    if implementation != 'native':
        assert out.stride() == torch.empty_like(x).stride()
    check(out, reference.forward(x, weight) + bias.double().view(-1, 1, 1), dtype)
    got = torch.autograd.grad(out, leaves, grad)
    check(got[0], reference.input_gradient(grad, weight), dtype)
    check(got[1], reference.weight_gradient(x, grad, kernel), dtype)
    check(got[2], grad.double().sum((0, 2, 3)), dtype)


@pytest.mark.parametrize('implementation', ON_CPU)
def test_square_kernels_and_maps_in_several_chunks(implementation):
    torch.manual_seed(0)
    for kernel, size in (((31, 31), (40, 33)), ((13, 31), (150, 21)), ((5, 51), (12, 400))):
        x, grad = torch.randn(2, 17, *size), torch.randn(2, 17, *size)
        weight = torch.randn(17, 1, *kernel, requires_grad=True)
        out = depthwise_conv2d(x.requires_grad_(), weight, None, implementation)
        got = torch.autograd.grad(out, (x, weight), grad)
        # Sums of a thousand terms.
        for value, wanted in zip(
            (out, *got),
            (
                reference.forward(x, weight),
                reference.input_gradient(grad, weight),
                reference.weight_gradient(x, grad, kernel),
            ),
            strict=True,
        ):
            scale = wanted.abs().max().item()
            torch.testing.assert_close(value.double(), wanted, rtol=0, atol=2e-6 * scale)


def test_the_reference_by_hand():
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    weight = torch.tensor([[[[10.0, 100.0, 1000.0]]]])
    assert reference.forward(x, weight).tolist() == [[[[2100, 3210, 320]]]]
    assert reference.input_gradient(x, weight).tolist() == [[[[120, 1230, 2300]]]]
    # Taps one to the left: x[0] g[1] + x[1] g[2], and so on.
    assert reference.weight_gradient(x, x, (1, 3)).tolist() == [[[[8, 14, 8]]]]


@pytest.mark.parametrize('implementation', ON_CPU)
def test_gradients_of_first_and_second_order(implementation):
    torch.manual_seed(0)
    shapes = [(2, 2, 4, 5), (2, 1, 7, 3), (2, 1, 3, 7), (2, 1, 3, 3), (2,)]
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def run(*tensors):
        return decomposed_conv2d(*tensors, implementation=implementation)

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


@pytest.mark.parametrize('implementation', ON_CPU)
def test_decomposed_is_the_sum_of_its_branches(implementation):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 9, 14)
    weights = [torch.randn(5, 1, *size) for size in ((11, 3), (3, 11), (3, 3))]
    bias = torch.randn(5)
    out = decomposed_conv2d(x, *weights, bias, implementation)
    wanted = sum(reference.forward(x, weight) for weight in weights)
    check(out, wanted + bias.double().view(-1, 1, 1), torch.float32)


@pytest.mark.parametrize('implementation', ON_CPU)
@pytest.mark.parametrize('shape', [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_empty_maps(implementation, shape):
    if implementation == 'native' and shape[0]:
        pytest.skip('PyTorch convolves no empty maps, but for an empty batch')
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(shape[1], 1, 5, 9, requires_grad=True)
    out = depthwise_conv2d(x, weight, None, implementation)
    assert out.shape == shape
    x_grad, weight_grad = torch.autograd.grad(out.sum(), (x, weight))
    assert x_grad.shape == shape
    assert weight_grad.shape == weight.shape
    assert not weight_grad.any()


@pytest.mark.skipif(not cpp.available(), reason='no compiler')
def test_same_bits_every_time_and_for_any_number_of_threads():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    try:
        for kernel, size in (((5, 51), (56, 56)), ((49, 5), (28, 28)), ((5, 5), (7, 7))):
            x, weight = torch.randn(3, 40, *size), torch.randn(40, 1, *kernel)
            x, weight = x.requires_grad_(), weight.requires_grad_()
            results = []
            for threads in (1, 1, 2, 3, 8):
                torch.set_num_threads(threads)
                out = depthwise_conv2d(x, weight, None, 'cpp')
                results.append((out, *torch.autograd.grad(out.square().sum(), (x, weight))))
            for result in results[1:]:
                assert all(map(torch.equal, result, results[0]))
    finally:
        torch.set_num_threads(before)


def test_in_a_forked_process_after_threads_ran():
    torch.manual_seed(0)
    x, weight = torch.randn(4, 40, 28, 28), torch.randn(40, 1, 5, 51)
    out = depthwise_conv2d(x, weight)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        # Threads of the parent do not exist here: the kernels must not wait for them.
        # (Those of PyTorch's own operators do wait: nothing of it may be asked for anything large.)
        again = torch.ops.mmslak.depthwise_conv2d(x, [weight], None, 'auto').numpy()
        os.write(writer, b'same' if (again == out.numpy()).all() else b'other')
        os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], 60)
    if not ready:
        os.kill(child, 9)
    os.waitpid(child, 0)
    assert ready, 'the child hangs'
    assert os.read(reader, 9) == b'same'
    os.close(reader)


class Layer(torch.nn.Module):
    """One convolution."""

    def __init__(self, kernel=(3, 7)):
        super().__init__()
        torch.manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(4, 1, *kernel))
        self.bias = torch.nn.Parameter(torch.randn(4))

    def forward(self, x):
        return depthwise_conv2d(x, self.weight, self.bias)


def test_operators_keep_what_pytorch_expects_of_them():
    torch.manual_seed(0)
    x, tall, wide, bias = (
        torch.randn(shape, requires_grad=True)
        for shape in ((2, 3, 4, 6), (3, 1, 7, 3), (3, 1, 3, 7), (3,))
    )
    operators = torch.ops.mmslak
    torch.library.opcheck(operators.depthwise_conv2d, (x, [tall, wide], bias, 'auto'))
    last = x.detach().contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(operators.depthwise_conv2d, (last, [tall], None, 'pytorch'))
    grad = torch.randn(2, 3, 4, 6, requires_grad=True)
    torch.library.opcheck(operators.depthwise_conv2d_weight_gradient, (x, grad, 7, 3, 'auto'))


def test_counted_by_pytorch_as_its_own_convolution():
    x, weight = torch.randn(2, 4, 8, 9), torch.randn(4, 1, 3, 7, requires_grad=True)
    counts = []
    for implementation in ('native', 'auto'):
        with FlopCounterMode(display=False) as counter:
            out = depthwise_conv2d(x.requires_grad_(), weight, None, implementation)
            forward = counter.get_total_flops()
            out.sum().backward()
        counts.append(forward)
    # Forward and two gradients; PyTorch counts the gradients of groups in another way.
    assert counts == [2 * 2 * 4 * 8 * 9 * 21] * 2
    assert counter.get_total_flops() == 3 * counts[0]


@pytest.mark.parametrize('shape', [(2, 4, 8, 9), (1, 4, 5, 5)])
def test_compiles_and_exports(shape):
    torch._dynamo.reset()
    layer, x = Layer(), torch.randn(shape)
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
    check(out.detach(), wanted, dtype)


def test_activation_checkpointing():
    layer, x = Layer(), torch.randn(2, 4, 8, 9, requires_grad=True)
    plain = torch.autograd.grad(layer(x).square().sum(), (x, layer.weight))
    again = checkpoint(layer, x, use_reentrant=False).square().sum()
    assert all(map(torch.equal, torch.autograd.grad(again, (x, layer.weight)), plain))


def test_transforms_of_functions_and_forward_mode():
    torch.manual_seed(0)
    x, tangent = torch.randn(2, 3, 4, 6, 5, dtype=torch.float64)
    weight = torch.randn(4, 1, 3, 7, dtype=torch.float64)

    def run(x):
        return depthwise_conv2d(x, weight)

    # A linear map is its own derivative.
    out, moved = torch.func.jvp(run, (x,), (tangent,))
    torch.testing.assert_close(out, reference.forward(x, weight))
    torch.testing.assert_close(moved, reference.forward(tangent, weight))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        moved = torch.autograd.forward_ad.unpack_dual(run(dual)).tangent
        torch.testing.assert_close(moved, reference.forward(tangent, weight))
    both = torch.func.vmap(run)(torch.stack([x, tangent]))
    torch.testing.assert_close(both[1], reference.forward(tangent, weight))
    grad = torch.func.grad(lambda x: run(x).square().sum())(x)
    wanted = reference.input_gradient(2 * reference.forward(x, weight), weight)
    torch.testing.assert_close(grad, wanted)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(x=torch.randn(3, 4, 5)), r'x must have shape \(N, C, H, W\), got \(3, 4, 5\)'),
        (dict(x=torch.zeros(1, 3, 4, 5, dtype=torch.long)), 'floating-point'),
        (dict(weight=torch.randn(3, 1, 4, 5)), r'odd .* got \(4, 5\)'),
        (dict(weight=torch.randn(2, 1, 3, 5)), r'\(3, 1, kh, kw\) for 3 channels'),
        (dict(weight=torch.randn(3, 3, 3, 5)), r'\(3, 1, kh, kw\) for 3 channels'),
        (dict(weight=torch.randn(3, 1, 3, 5).double()), r'torch.float32 on cpu, got torch.float64'),
        (dict(bias=torch.randn(2)), r'bias must have shape \(3,\), got \(2,\)'),
        (dict(implementation='fast'), r"one of 'auto', .* got 'fast'"),
        (dict(implementation='triton'), "needs Triton and .* CUDA .*'auto' runs everywhere"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_sentence(change, message):
    good = dict(x=torch.randn(1, 3, 4, 5), weight=torch.randn(3, 1, 3, 5))
    with pytest.raises(ValueError, match=message):
        depthwise_conv2d(**{**good, **change})


def test_a_small_kernel_that_is_larger_than_the_large_one():
    x, one, five = torch.randn(1, 2, 4, 4), torch.randn(2, 1, 1, 1), torch.randn(2, 1, 5, 5)
    with pytest.raises(ValueError, match=r'kernel of \(5, 5\) does not fit inside one of \(1, 1\)'):
        decomposed_conv2d(x, one, one, five)


@pytest.fixture
def new_process(tmp_path, monkeypatch, caplog):
    """The state of a new process with an empty cache; yields what is logged."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    cpp._library.cache_clear()
    yield caplog
    cpp._library.cache_clear()


def assert_right(chosen):
    x, weight = torch.randn(1, 3, 8, 8), torch.randn(3, 1, 5, 11)
    assert choose(x, (5, 11)) == chosen
    check(depthwise_conv2d(x, weight), reference.forward(x, weight), torch.float32)


@pytest.mark.parametrize('compiler', ['/nowhere/g++', 'false'])
def test_without_a_compiler_it_still_works_and_says_so_once(
    new_process, tmp_path, monkeypatch, compiler
):
    monkeypatch.setenv('CXX', compiler)
    for _ in range(3):
        assert_right('pytorch')
    assert len(new_process) == 1
    assert 'run without the compiled CPU kernels' in new_process.messages[0]
    assert not list(tmp_path.rglob('*.so'))


@pytest.mark.skipif(not cpp.available(), reason='no compiler')
def test_compiled_once_and_kept(new_process, tmp_path):
    assert_right('cpp')
    (file,) = tmp_path.rglob('*.so')
    made = file.stat().st_mtime_ns
    cpp._library.cache_clear()
    assert_right('cpp')
    assert [f.stat().st_mtime_ns for f in tmp_path.rglob('*.so')] == [made]
    assert not new_process.messages


@pytest.mark.skipif(not cpp.available(), reason='no compiler')
def test_a_damaged_file_in_the_cache_is_made_again(new_process):
    file = cpp._compiled(cpp._compiler())
    file.write_bytes(b'')
    assert_right('cpp')
    assert file.stat().st_size > 1000


@pytest.mark.skipif(not cpp.available(), reason='no compiler')
def test_a_cache_that_cannot_be_written_to(new_process, tmp_path):
    (tmp_path / 'mmslak').write_text('a file where a folder should be')
    assert_right('cpp')


def test_the_environment_variable_switches_back():
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


def test_a_wrong_environment_variable_is_named(monkeypatch):
    monkeypatch.setattr(depthwise, '_DEFAULT', 'nativ')
    with pytest.raises(ValueError, match=r"MMSLAK_DEPTHWISE must be one of 'auto', .* got 'nativ'"):
        LargeKernelConv2d(3, 3, 5)


def test_the_choice_by_shape():
    x = torch.randn(1, 3, 8, 8)
    last = x.contiguous(memory_format=torch.channels_last)
    assert choose(last, (3, 3)) == 'native'
    assert choose(x, (51, 5)) == 'native'
    assert choose(x, (51, 5), gradient=True) == choose(last, (51, 5))
    assert choose(x, (5, 51)) == ('cpp' if cpp.available() else 'pytorch')
    assert choose(x.to('meta'), (5, 51)) == 'native'
