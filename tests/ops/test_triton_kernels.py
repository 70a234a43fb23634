"""The Triton kernels against the reference, on a GPU or in Triton's interpreter.

Triton decides at import whether kernels are compiled or interpreted. With a GPU all tests run in
this process, compiled. Without a GPU, `test_in_the_interpreter` runs the tests of kernels in
another process. The compiler does not need a GPU and is tested in this process.
"""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensors import LAYOUTS, arrange

triton = pytest.importorskip('triton', minversion='3.4')

from triton_testing import (  # noqa: E402
    DEVICE,
    INTERPRETED,
    compiled,
    compiles,
    run_in_the_interpreter,
    runs_kernels,
    starts_the_interpreter,
    usage,
)

from mmslak.ops import (  # noqa: E402
    decomposed_conv2d,
    measured,
    reference,
    triton_kernels,
    triton_launch,
)
from mmslak.ops.layout import to_channels_last, to_planar  # noqa: E402
from mmslak.ops.precision import allow_tf32, tf32_allowed  # noqa: E402

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@starts_the_interpreter
@pytest.mark.parametrize('selection', ['not slow', pytest.param('slow', marks=pytest.mark.slow)])
def test_in_the_interpreter(selection):
    run_in_the_interpreter(__file__, selection)


def assert_near(got, operation, *operands):
    """Compare with the reference, within the rounding of the result and of float32 sums."""
    operands = [o.double().cpu() if isinstance(o, torch.Tensor) else o for o in operands]
    sizes = [o.abs() if isinstance(o, torch.Tensor) else o for o in operands]
    want = operation(*operands)
    # Rounding to nearest has an error of eps / 2, but Triton's interpreter truncates bfloat16.
    allowed = torch.finfo(got.dtype).eps * want.abs() + 4e-6 * operation(*sizes) + 1e-7
    error = (got.double().cpu() - want).abs()
    assert got.shape == want.shape
    assert bool((error <= allowed).all()), (
        f'{float((error / allowed).max())} times the allowed error'
    )


def tensor(shape, dtype, layout='contiguous', seed=0):
    """Return random values in a memory layout, with NaN between them."""
    generator = torch.Generator().manual_seed(seed)
    return arrange(torch.randn(shape, generator=generator).to(DEVICE, dtype), layout)


def input_gradient(grad, weight, dilation=(1, 1)):
    """Return the gradient of the input as the operator computes it."""
    return triton_kernels.forward(grad, weight.flip((2, 3)), dilation=dilation)


def check(
    shape,
    kernel,
    dtype=torch.float32,
    layout='contiguous',
    grad_layout='contiguous',
    dilation=(1, 1),
):
    x = tensor(shape, dtype, layout, 1)
    grad = tensor(shape, dtype, grad_layout, 2)
    weight = tensor((shape[1], 1, *kernel), dtype, 'contiguous', 3)
    copies = [t.clone() for t in (x, grad, weight)]

    out = triton_kernels.forward(x, weight, dilation=dilation)
    x_grad = input_gradient(grad, weight, dilation)
    weight_grad = triton_kernels.weight_gradient(x, grad, kernel, dilation)

    assert out.dtype == x_grad.dtype == weight_grad.dtype == dtype
    assert out.stride() == torch.empty_like(x).stride()
    assert x_grad.stride() == torch.empty_like(grad).stride()
    assert weight_grad.is_contiguous()
    assert_near(out, reference.forward, x, weight, dilation)
    assert_near(x_grad, reference.input_gradient, grad, weight, dilation)
    assert_near(weight_grad, reference.weight_gradient, x, grad, kernel, dilation)
    assert all(map(torch.equal, copies, (x, grad, weight)))


def odd(first, last):
    return st.integers(first // 2, last // 2).map(lambda half: 2 * half + 1)


def cases(long, square, side, channels):
    kernels = st.one_of(
        st.tuples(odd(1, 5), odd(1, long)),
        st.tuples(odd(1, long), odd(1, 5)),
        odd(1, square).map(lambda size: (size, size)),
    )
    shapes = st.tuples(
        st.integers(0, 3), st.integers(1, channels), st.integers(1, side), st.integers(1, side)
    )
    layouts = st.sampled_from(LAYOUTS)
    steps = st.integers(1, 5)
    dilations = st.one_of(st.just((1, 1)), st.tuples(steps, steps))
    return given(shapes, kernels, st.sampled_from(DTYPES), layouts, layouts, dilations)


@runs_kernels
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@cases(long=61, square=9, side=20, channels=5)
@example((1, 1, 1, 1), (1, 1), torch.float32, 'contiguous', 'contiguous', (1, 1))
@example((1, 1, 1, 1), (5, 51), torch.float16, 'contiguous', 'contiguous', (1, 1))
@example((2, 3, 16, 8), (51, 5), torch.float16, 'channels_last', 'sliced', (1, 1))
@example((2, 3, 8, 16), (5, 51), torch.bfloat16, 'sliced', 'channels_last', (1, 1))
@example((3, 2, 7, 7), (13, 5), torch.bfloat16, 'transposed', 'expanded', (1, 1))
@example((2, 3, 16, 8), (7, 3), torch.float16, 'channels_last', 'sliced', (2, 3))
@example((1, 1, 5, 9), (3, 5), torch.float32, 'contiguous', 'contiguous', (40, 10**12))
def test_equals_the_reference(shape, kernel, dtype, layout, grad_layout, dilation):
    check(shape, kernel, dtype, layout, grad_layout, dilation)


@pytest.mark.slow
@runs_kernels
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@cases(long=151, square=31, side=80, channels=5)
def test_equals_the_reference_at_larger_sizes(shape, kernel, dtype, layout, grad_layout, dilation):
    check(shape, kernel, dtype, layout, grad_layout, dilation)


@runs_kernels
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize(
    'shape, kernel, dilation',
    [
        ((1, 1, 2, 200), (3, 51), (1, 1)),
        ((1, 1, 200, 2), (151, 1), (1, 1)),
        ((1, 1, 3, 136), (1, 5), (1, 1)),
        ((3, 1, 70, 5), (3, 3), (1, 1)),
        ((1, 1, 4, 200), (3, 13), (2, 5)),
    ],
    ids=['wide', 'tall', 'small', 'many-lines', 'dilated'],
)
def test_several_blocks(shape, kernel, dilation, dtype):
    check(shape, kernel, dtype, dilation=dilation)


@runs_kernels
def test_lines_divided_into_parts(monkeypatch):
    check((3, 2, 40, 9), (3, 7))
    x, grad = tensor((3, 2, 40, 9), torch.float32), tensor((3, 2, 40, 9), torch.float32, seed=1)
    monkeypatch.setattr(triton_kernels, 'PROGRAMS', 1)
    monkeypatch.setattr(triton_launch, '_plans', {})
    whole = triton_kernels.weight_gradient(x, grad, (3, 7))
    assert_near(whole, reference.weight_gradient, x, grad, (3, 7))


@runs_kernels
@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    st.tuples(*(st.integers(0, most) for most in (3, 140, 12, 12))),
    st.sampled_from(LAYOUTS),
    st.sampled_from(DTYPES),
    st.sampled_from(DTYPES),
    st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
@example((2, 130, 9, 9), 'channels_last', torch.float32, torch.float16, torch.contiguous_format)
@example((2, 70, 11, 12), 'contiguous', torch.bfloat16, torch.float32, torch.channels_last)
@example((1, 65, 1, 1), 'contiguous', torch.bfloat16, torch.float32, torch.channels_last)
def test_conversion_of_the_memory_format(shape, layout, dtype, into, memory_format):
    # Small integers are exact in every dtype, also in the interpreter, which truncates bfloat16.
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-100, 100, shape, generator=generator).to(DEVICE, dtype)
    x = arrange(values, layout)

    got = triton_kernels.converted(x, into, memory_format)

    assert got.dtype == into
    assert got.is_contiguous(memory_format=memory_format)
    assert torch.equal(got, values.to(into))


@runs_kernels
def test_conversion_is_a_transposition(monkeypatch):
    # Both directions run the kernel, not PyTorch's copy.
    launched = []
    launch = triton_kernels.launch
    monkeypatch.setattr(
        triton_kernels,
        'launch',
        lambda kernel, *args: launched.append(kernel) or launch(kernel, *args),
    )
    x = torch.randn(2, 20, 5, 6, device=DEVICE)
    last = triton_kernels.converted(x, torch.float32, torch.channels_last)
    assert last.stride() == (600, 1, 120, 20)
    assert torch.equal(last, x)
    planar = triton_kernels.converted(last, torch.float32, torch.contiguous_format)
    assert planar.stride() == (600, 30, 6, 1)
    assert torch.equal(planar, x)
    assert launched == [triton_kernels._transpose_kernel] * 2


@runs_kernels
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_gradient_of_the_conversion(dtype, monkeypatch):
    monkeypatch.setattr(measured, '_state', measured._State(read_file=False))
    x = torch.randint(-9, 9, (2, 20, 5, 6), device=DEVICE).float()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == torch.bfloat16):
        planar = to_planar(x)
    assert planar.dtype == dtype
    assert planar.is_contiguous()
    assert not measured._state.warned
    out = to_channels_last(planar * planar)
    (grad,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    assert grad.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(grad, 2 * x)
    # The conversion can be differentiated twice.
    (second,) = torch.autograd.grad(grad.sum(), x)
    assert torch.equal(second, torch.full_like(x, 2))


@runs_kernels
def test_worked_out_by_hand():
    x = torch.tensor([1.0, 2.0, 3.0], device=DEVICE).view(1, 1, 1, 3)
    weight = torch.tensor([10.0, 1.0, 100.0], device=DEVICE).view(1, 1, 1, 3)
    assert triton_kernels.forward(x, weight).flatten().tolist() == [201, 312, 23]
    grad = torch.tensor([1.0, 0.0, 0.0], device=DEVICE).view(1, 1, 1, 3)
    assert input_gradient(grad, weight).flatten().tolist() == [1, 100, 0]
    assert triton_kernels.weight_gradient(x, grad, (1, 3)).flatten().tolist() == [0, 1, 2]


@runs_kernels
def test_weights_of_another_dtype():
    x = tensor((1, 2, 4, 9), torch.bfloat16).requires_grad_()
    weight = tensor((2, 1, 3, 5), torch.float32).requires_grad_()
    out = triton_kernels.forward(x, weight)
    assert not out.requires_grad
    assert_near(out, reference.forward, x.detach(), weight.detach().bfloat16())


@runs_kernels
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_through_the_operator_with_gradients(dtype):
    shape, kernels = (2, 3, 9, 12), [(17, 3), (3, 17)]
    x = tensor(shape, dtype, 'channels_last').requires_grad_()
    weights = [tensor((3, 1, *k), dtype, seed=i).requires_grad_() for i, k in enumerate(kernels)]
    bias = tensor((1, 3, 1, 1), dtype).flatten()
    grad = tensor(shape, dtype, seed=2)
    out = decomposed_conv2d(x, *weights, bias=bias, implementation='triton')
    plain = [t.detach() for t in (x, *weights)]
    wanted = sum(reference.forward(plain[0], weight) for weight in plain[1:]).cpu()
    # The sum is in 16 bits, and so are its two terms.
    tolerance = 4 * torch.finfo(dtype).eps * wanted.abs().max().item()
    total = wanted + bias.double().cpu().view(-1, 1, 1)
    torch.testing.assert_close(out.detach().double().cpu(), total, rtol=0, atol=tolerance)
    got = torch.autograd.grad(out, (x, *weights), grad)
    for value, weight, size in zip(got[1:], plain[1:], kernels, strict=True):
        assert value.shape == weight.shape
        assert_near(value, reference.weight_gradient, plain[0], grad, size)
    wanted = sum(reference.input_gradient(grad, w) for w in plain[1:]).cpu()
    torch.testing.assert_close(got[0].double().cpu(), wanted, rtol=0, atol=tolerance)


@runs_kernels
@pytest.mark.parametrize(
    'dtype',
    [torch.float16, *(pytest.param(d, marks=pytest.mark.slow) for d in DTYPES[::2])],
    ids=str,
)
def test_measured_choice(dtype, monkeypatch, tmp_path, caplog):
    """Every block size agrees with PyTorch, and the fastest one is used."""
    caplog.set_level('INFO', logger='mmslak.ops.measured')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(measured, '_state', measured._State())
    if DEVICE == 'cpu':
        times = iter([3.0, 1.0, *[2.0] * 98])
        monkeypatch.setattr(measured, 'milliseconds', lambda run, best: next(times))
    monkeypatch.setattr(triton_kernels, 'PROGRAMS', 1)
    shape, kernel = (2, 2, 17, 20), (1, 9)
    x, grad = (tensor(shape, dtype, 'channels_last', seed) for seed in (1, 2))
    weight = tensor((2, 1, *kernel), dtype, seed=3)
    for _ in range(2):
        assert_near(measured.forward(x, weight), reference.forward, x, weight)
        got = measured.weight_gradient(x, grad, kernel)
        assert_near(got, reference.weight_gradient, x, grad, kernel)
    made = measured.choices()
    assert [record['task'] for record in made] == ['forward', 'weight_gradient']
    for record in made:
        assert len(record['milliseconds']) > 2 and not record['rejected'], record
    if DEVICE == 'cpu':
        blocks = triton_kernels.candidates('forward', x, kernel)
        assert made[0]['blocks'] == tuple(blocks[1]) != tuple(blocks[0])
    assert len(caplog.records) == 2


@runs_kernels
def test_result_is_bitwise_the_same_in_every_run():
    x = tensor((3, 2, 60, 9), torch.float16)
    results = [triton_kernels.weight_gradient(x, x, (5, 9)) for _ in range(2)]
    assert torch.equal(*results)


@runs_kernels
@pytest.mark.parametrize('shape', [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_empty_feature_maps(shape, monkeypatch):
    monkeypatch.setattr(triton_kernels, 'launch', None)
    x, weight = torch.empty(shape, device=DEVICE), torch.ones(shape[1], 1, 3, 5, device=DEVICE)
    assert triton_kernels.forward(x, weight).shape == shape
    assert input_gradient(x, weight).shape == shape
    gradient = triton_kernels.weight_gradient(x, x, (3, 5))
    assert gradient.shape == weight.shape and not gradient.any()


@runs_kernels
@pytest.mark.parametrize('tall', [False, True], ids=['wide', 'tall'])
@pytest.mark.parametrize(
    'shape, kernel, axis, stride',
    [
        ((3, 2, 2, 2), (1, 3), 0, 2**30 + 500),
        ((2, 3, 2, 2), (1, 3), 1, 2**30 + 500),
        ((2, 2, 3, 4), (5, 7), 2, 2**30 + 500),
        ((2, 1, 2, 18), (1, 7), 3, 2**27 + 4),
    ],
    ids=['images', 'channels', 'lines', 'positions'],
)
def test_more_than_two_to_the_31_elements(shape, kernel, axis, stride, tall, monkeypatch):
    """The strides fit into 32 bits, but the offsets do not."""
    if DEVICE == 'cuda' and torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip('needs 16 GiB of free memory')
    # With these blocks a line of 18 positions needs several blocks.
    blocks = triton_kernels.Blocks(16, 16, 16, 4, 2)
    monkeypatch.setattr(triton_kernels, 'TABLE', (((None,) * 6, blocks),))
    monkeypatch.setattr(triton_launch, '_plans', {})
    small = [1 if i == axis else size for i, size in enumerate(shape)]
    strides = [2 * step for step in torch.empty(small).stride()]
    strides[axis] = stride
    if tall:
        kernel = kernel[::-1]
        shape, strides = ([*values[:2], values[3], values[2]] for values in (shape, strides))
    views = []
    for seed in range(3):
        # On a CPU, memory that is not written does not occupy anything.
        size = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        assert size > 2**31
        memory = torch.empty(size, dtype=torch.float16, device=DEVICE)
        views.append(
            memory.as_strided(shape, strides).copy_(tensor(shape, torch.float16, seed=seed))
        )
    x, grad, out = views
    weight = tensor((shape[1], 1, *kernel), torch.float16)
    with monkeypatch.context() as patch:
        patch.setattr(torch, 'empty_like', lambda _: out)
        triton_kernels.forward(x, weight)
    assert_near(out, reference.forward, x, weight)
    weight_grad = triton_kernels.weight_gradient(x, grad, kernel)
    assert_near(weight_grad, reference.weight_gradient, x, grad, kernel)


@runs_kernels
@pytest.mark.parametrize('shape, kernel', [((1, 2, 2, 200), (3, 51)), ((1, 2, 70, 3), (9, 1))])
def test_no_access_outside_the_tensors(shape, kernel, monkeypatch):
    """There are NaN around the padded weights, and ones around the result."""
    surroundings = []

    def between(shape, value, fill):
        size = torch.Size(shape).numel()
        memory = torch.full((size + 2000,), value, dtype=torch.float16, device=DEVICE)
        surroundings.append((memory, value))
        inside = memory[1000:-1000].view(shape)
        return inside.fill_(fill)

    def pad_between(weights, margin):
        *lines, length = weights.shape
        padded = between((*lines, margin + length + margin), torch.nan, 0)
        padded[..., margin : margin + length] = weights
        return padded

    x = tensor(shape, torch.float16, 'sliced')
    weight = tensor((shape[1], 1, *kernel), torch.float16)
    with monkeypatch.context() as patch:
        patch.setattr(triton_kernels.F, 'pad', lambda w, sides: pad_between(w, sides[0]))
        patch.setattr(torch, 'empty_like', lambda like: between(like.shape, 1.0, torch.nan))
        out = triton_kernels.forward(x, weight)
    assert len(surroundings) == 2
    assert_near(out, reference.forward, x, weight)
    memory, value = surroundings[0] if surroundings[0][1] == 1 else surroundings[1]
    assert bool((memory[:1000] == value).all()) and bool((memory[-1000:] == value).all())


@pytest.mark.parametrize(
    'x, weight, message',
    [
        (torch.ones(3, 4, 5), torch.ones(3, 1, 3, 3), r'\(N, C, H, W\), got \(3, 4, 5\)'),
        (torch.ones(1, 3, 4, 5).double(), torch.ones(3, 1, 3, 3), 'got torch.float64'),
        (torch.ones(1, 3, 4, 5), torch.ones(4, 1, 3, 3), r'\(3, 1, kh, kw\).*\(4, 1, 3, 3\)'),
        (torch.ones(1, 3, 4, 5), torch.ones(3, 1, 3, 4), r'odd kernel sizes .*, got \(3, 4\)'),
        (torch.ones(1, 3, 4, 5), torch.ones(3, 1, 3, 3, device='meta'), 'device of x, cpu'),
    ],
)
def test_wrong_arguments_are_refused(x, weight, message):
    with pytest.raises(ValueError, match=message):
        triton_kernels.forward(x, weight)
    with pytest.raises(ValueError):
        triton_kernels.weight_gradient(x, torch.ones(1, 3, 4, 6), weight.shape[2:])


@pytest.fixture
def tf32():
    """Return a function that allows or forbids TF32 until the test ends."""
    before = tf32_allowed()[0]
    yield allow_tf32
    allow_tf32(before)


def test_tf32_is_used_only_if_pytorch_allows_it(tf32):
    assert triton_kernels._precision(torch.float32) == 'ieee'
    for allowed, precision in ((True, 'tf32'), (False, 'ieee')):
        tf32(allowed)
        assert triton_kernels._precision(torch.float32) == precision
        assert triton_kernels._precision(torch.bfloat16) == '16'


def test_available():
    assert triton_kernels.available(torch.ones(1, device=DEVICE)) == (
        INTERPRETED or DEVICE == 'cuda'
    )
    assert not triton_kernels.available(torch.ones(1, device=DEVICE, dtype=torch.float64))


def launches(monkeypatch, capability, shape, kernel, dtype, layout, dilation):
    """Return what the forward pass and the weight gradient would launch with this capability.

    Conversions of the memory format are left out.
    """
    recorded = []
    with monkeypatch.context() as patch:
        patch.setattr(triton_kernels, 'launch', lambda *launch: recorded.append(launch))
        patch.setattr(triton_kernels, '_capability', lambda x: capability)
        patch.setattr(triton_launch, '_plans', {})
        x = torch.empty(shape, dtype=dtype, device='meta')
        grad = x.to(memory_format=torch.channels_last) if layout == 'channels_last' else x
        triton_kernels.forward(grad, x.new_empty(shape[1], 1, *kernel), dilation=dilation)
        triton_kernels.weight_gradient(x, grad, kernel, dilation)
    kernels = [launch for launch in recorded if launch[0] is not triton_kernels._transpose_kernel]
    assert len(kernels) == 2
    return kernels


@pytest.fixture
def check_compiled(monkeypatch, tf32, tmp_path):
    monkeypatch.setattr(triton.knobs.cache, 'dir', str(tmp_path))

    def check(capability, shape, kernel, precision, layout, dilation=(1, 1)):
        tf32(precision == 'tf32')
        case = shape, kernel, precision, layout, dilation
        compile_and_inspect(monkeypatch, tmp_path, capability, *case)

    return check


def compile_and_inspect(
    monkeypatch, folder, capability, shape, kernel, precision, layout, dilation
):
    dtype = getattr(torch, precision if 'float' in precision else 'float32')
    for launch in launches(monkeypatch, capability, shape, kernel, dtype, layout, dilation):
        arguments = launch[1].arguments
        result = compiled(launch, capability)
        registers, stack = usage(result, folder)
        print(
            f'{launch[0].__name__} {capability} {shape} {kernel} {precision} {layout} '
            f'{arguments}: {result.metadata.shared} bytes shared, '
            f'{registers} registers, {stack} bytes of stack'
        )
        # All GPUs of compute capability 8 and 9 have this much shared memory for a program.
        assert result.metadata.shared <= 99 * 1024
        # Some registers may be spilled, so that more programs share a multiprocessor.
        assert stack <= 64, 'too many registers are spilled'
        tensor_cores = 'wgmma.mma_async' in result.asm['ptx'] or 'mma.sync' in result.asm['ptx']
        assert tensor_cores == (precision != 'ieee')
        if capability == (9, 0) and arguments['LINES'] >= 64 and arguments['OUTPUTS'] >= 64:
            assert ('wgmma.mma_async' in result.asm['ptx']) == tensor_cores


@compiles
@pytest.mark.parametrize('precision', ['float16', 'tf32', 'ieee'])
def test_compiles(precision, check_compiled):
    shape, kernel = (64, 384, 56, 56), (5, 51)
    check_compiled((9, 0), shape, kernel, precision, 'contiguous')


@pytest.mark.slow
@compiles
@pytest.mark.parametrize('precision', ['float16', 'bfloat16', 'tf32', 'ieee'])
@pytest.mark.parametrize('capability', [(8, 0), (9, 0)], ids=str)
@pytest.mark.parametrize(
    'shape, kernel, layout',
    [
        ((64, 384, 56, 56), (5, 51), 'channels_last'),
        ((64, 384, 56, 56), (51, 5), 'contiguous'),
        ((64, 384, 56, 56), (5, 5), 'contiguous'),
        ((64, 384, 28, 28), (5, 49), 'contiguous'),
        ((64, 384, 28, 28), (49, 5), 'contiguous'),
        ((64, 384, 14, 14), (47, 5), 'contiguous'),
        ((64, 384, 7, 7), (5, 13), 'contiguous'),
        ((1, 384, 200, 320), (5, 51), 'contiguous'),
        ((1, 384, 200, 320), (51, 5), 'contiguous'),
        ((1, 384, 200, 320), (5, 5), 'contiguous'),
        ((1, 384, 200, 321), (31, 31), 'contiguous'),
        ((64, 700, 224, 224), (5, 51), 'contiguous'),  # 64-bit positions
        ((64, 700, 224, 224), (51, 5), 'channels_last'),
        ((1, 1, 1, 1), (1, 1), 'contiguous'),
        ((1, 1, 1, 1), (3, 3), 'contiguous'),
    ],
    ids=str,
)
def test_compiles_for_all_shapes(shape, kernel, layout, capability, precision, check_compiled):
    check_compiled(capability, shape, kernel, precision, layout)


@pytest.mark.slow
@compiles
@pytest.mark.parametrize('precision', ['float16', 'tf32', 'ieee'])
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_compiles_with_dilation(layout, precision, check_compiled):
    check_compiled((9, 0), (64, 384, 56, 56), (7, 7), precision, layout, (3, 3))
