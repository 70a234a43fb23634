"""The measured choice of GPUs, with fake kernels and times on a CPU.

`test_triton_kernels.py` measures the real kernels.
"""

import json
import logging
from types import SimpleNamespace

import pytest
import torch

from mmslak.ops import depthwise, depthwise_conv2d, measured, native, reference
from mmslak.ops.depthwise import choose
from mmslak.ops.measured import NATIVE, Choice, relative_error
from mmslak.ops.precision import allow_tf32, tf32_allowed

FAST, SLOW = (64, 64, 64, 4, 3, None), (32, 32, 32, 4, 2, 128)
KERNEL = (5, 11)


class Kernels:
    """Acts as the module of the Triton kernels; ``act`` may replace the work of block sizes."""

    __file__ = __file__
    triton = SimpleNamespace(__version__='3')

    def __init__(self):
        self.calls = []
        self.act = {}

    def available(self, x):
        return True

    def candidates(self, task, x, kernel, dilation):
        return [SLOW, FAST]

    def forward(self, *arguments, dilation, blocks=None):
        return self.run(blocks, lambda: native.forward(*arguments, dilation=dilation))

    def weight_gradient(self, *arguments, dilation, blocks=None):
        return self.run(blocks, lambda: native.weight_gradient(*arguments, dilation=dilation))

    def run(self, blocks, compute):
        self.calls.append(blocks)
        return self.act.get(blocks, lambda compute: compute())(compute)


def raises(error):
    def act(*arguments, **options):
        raise error

    return act


@pytest.fixture
def gpu(monkeypatch, tmp_path, caplog):
    """Act as a new process on a GPU on which the Triton kernels with ``FAST`` are fastest."""
    kernels = Kernels()
    kernels.times = {NATIVE: 9.0, Choice('triton', FAST): 1.0, Choice('triton', SLOW): 2.0}

    def milliseconds(run, best):
        kernels.calls.clear()
        run()
        return kernels.times[Choice('triton', kernels.calls[0]) if kernels.calls else NATIVE]

    monkeypatch.setattr(measured, 'triton', lambda: kernels)
    monkeypatch.setattr(measured, 'milliseconds', milliseconds)
    monkeypatch.setattr(depthwise, 'choose', lambda *arguments: 'measured')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    kernels.new_process = lambda: monkeypatch.setattr(measured, '_state', measured._State())
    kernels.new_process()
    measured._machine.cache_clear()
    caplog.set_level(logging.INFO, logger='mmslak.ops.measured')
    kernels.warnings = lambda: [r.message for r in caplog.records if r.levelname == 'WARNING']
    kernels.infos = lambda: [r.message for r in caplog.records if r.levelname == 'INFO']
    yield kernels
    measured._machine.cache_clear()


def tensors(images=1, dtype=torch.float32, kernel=KERNEL):
    torch.manual_seed(0)
    return torch.randn(images, 3, 8, 9).to(dtype), torch.randn(3, 1, *kernel).to(dtype)


def run(kernels, *arguments, task='forward'):
    """Return the result and the block sizes of the kernels that were called."""
    kernels.calls.clear()
    return getattr(measured, task)(*arguments), list(kernels.calls)


def assert_right(out, x, weight):
    tolerance = 1e-6 if x.dtype == torch.float32 else 1e-2
    assert relative_error(out.double(), reference.forward(x, weight)) < tolerance


def test_fastest_candidate_is_kept_with_one_line_in_the_log(gpu):
    x, weight = tensors()
    out, _ = run(gpu, x, weight)
    assert_right(out, x, weight)
    for _ in range(2):
        assert run(gpu, x, weight)[1] == [FAST]
    (line,) = gpu.infos()
    assert line.startswith('forward of 5x11 on 1x3x8x9, torch.float32, planar: triton 64 64 64 4 3')
    assert line.endswith('1.000 ms, triton 32 32 32 4 2 128 2.000 ms, native 9.000 ms)')
    (made,) = measured.choices()
    assert (made['shape'], made['blocks']) == ((1, 3, 8, 9), FAST)
    assert made['milliseconds']['native'] == 9
    gpu.times[NATIVE] = 0.5
    measured.forget()
    run(gpu, x, weight)
    assert run(gpu, x, weight)[1] == []
    assert not gpu.warnings()


def test_each_combination_is_measured(gpu):
    x, weight = tensors()
    last = x.contiguous(memory_format=torch.channels_last)
    for count, arguments in enumerate(
        [(x, weight), (last, weight), tensors(2), tensors(dtype=torch.bfloat16),
         tensors(kernel=(11, 5))], start=1,
    ):  # fmt: skip
        run(gpu, *arguments)
        assert len(gpu.infos()) == count
    for grad in (x, last):
        run(gpu, x, grad, KERNEL, task='weight_gradient')
    assert len(gpu.infos()) == 7
    before = tf32_allowed()[0]
    try:
        allow_tf32(True)
        run(gpu, x, weight)
        run(gpu, *tensors(dtype=torch.bfloat16))
    finally:
        allow_tf32(before)
    assert len(gpu.infos()) == 8


def test_each_dilation_is_measured(gpu):
    x, weight = tensors()
    for count, dilation in enumerate([(1, 1), (2, 1), (1, 2)], start=1):
        for _ in range(2):
            out = measured.forward(x, weight, dilation=dilation)
            assert relative_error(out.double(), reference.forward(x, weight, dilation)) < 1e-6
        assert len(gpu.infos()) == count
    assert gpu.infos()[-1].startswith('forward of 5x11 with dilation 1x2 on 1x3x8x9')
    gpu.new_process()
    gpu.calls.clear()
    measured.forward(x, weight, dilation=(2, 1))
    assert gpu.calls == [FAST]
    got = measured.weight_gradient(x, x, KERNEL, (2, 1))
    wanted = reference.weight_gradient(x, x, KERNEL, (2, 1))
    assert relative_error(got.double(), wanted) < 1e-5
    assert [record['dilation'] for record in measured.choices()] == [(1, 1), (2, 1), (1, 2), (2, 1)]


def test_number_of_measured_shapes_is_limited(gpu, monkeypatch):
    monkeypatch.setattr(measured, 'SHAPES', 2)
    run(gpu, *tensors(images=1))
    gpu.times[NATIVE] = 0.1
    run(gpu, *tensors(images=8))
    assert run(gpu, *tensors(images=2))[1] == [FAST]
    assert run(gpu, *tensors(images=7))[1] == []
    assert len(gpu.infos()) == 2


def test_small_kernels_use_pytorch(gpu):
    assert run(gpu, *tensors(kernel=(3, 3)))[1] == []
    x, weight = tensors(kernel=(7, 7))
    assert run(gpu, x.to(memory_format=torch.channels_last), weight)[1] == []
    assert not gpu.infos()
    assert run(gpu, x, weight)[1] != []
    measured.forward(x.to(memory_format=torch.channels_last), weight, dilation=(2, 2))
    assert 'with dilation 2x2' in gpu.infos()[-1]


def test_result_that_differs_is_rejected(gpu):
    x, weight = tensors()
    gpu.act[FAST] = lambda compute: compute().index_fill(3, torch.tensor(0), 0)
    for images in (1, 2):
        run(gpu, *tensors(images))
    assert run(gpu, x, weight)[1] == [SLOW]
    gpu.act[SLOW] = lambda compute: compute() * torch.nan
    run(gpu, *tensors(3))
    assert run(gpu, *tensors(3))[1] == []
    (warning,) = gpu.warnings()
    assert 'the result of triton 64 64 64 4 3 None differs by' in warning
    assert 'triton 32 32 32 4 2 128: differs by nan' in gpu.infos()[-1]


def test_candidate_that_fails_is_dropped(gpu):
    gpu.act[FAST] = raises(RuntimeError('out of resources: shared memory'))
    for images in (1, 2):
        x, weight = tensors(images)
        out, _ = run(gpu, x, weight)
        assert_right(out, x, weight)
        assert run(gpu, x, weight)[1] == [SLOW]
    (warning,) = gpu.warnings()
    assert 'RuntimeError: out of resources: shared memory' in warning


def test_triton_is_not_tried_again_if_all_of_it_fails(gpu, tmp_path):
    gpu.act[FAST] = gpu.act[SLOW] = raises(RuntimeError('Failed to find C compiler'))
    for images in (1, 2):
        x, weight = tensors(images)
        out, _ = run(gpu, x, weight)
        assert_right(out, x, weight)
    assert gpu.calls == []
    assert not measured.available(x)
    assert len(gpu.warnings()) == 1 and 'Failed to find C compiler' in gpu.warnings()[0]
    # With a compiler the next process tries them.
    assert not list(tmp_path.rglob('*.json'))
    gpu.act.clear()
    gpu.new_process()
    run(gpu, x, weight)
    assert run(gpu, x, weight)[1] == [FAST]


@pytest.mark.parametrize('bad', [torch.nan, torch.inf, -torch.inf])
def test_overflow_of_mixed_precision_does_not_change_the_choice(gpu, bad):
    """The Triton kernels return a whole block of NaN for one NaN."""
    x, weight = tensors()
    x[0, 1, 2, 3] = bad

    def spread(compute):
        out = compute()
        return out if out.isfinite().all() else out * torch.nan

    gpu.act[FAST] = spread
    run(gpu, x, weight)
    assert run(gpu, x, weight)[1] == [FAST]
    grad = tensors()[0]
    run(gpu, grad, x, KERNEL, task='weight_gradient')
    assert run(gpu, grad, x, KERNEL, task='weight_gradient')[1] == [FAST]


def test_agreement_on_zeros_is_not_enough(gpu):
    """The first gradients of some networks are zero."""
    x, weight = tensors()
    state = torch.get_rng_state()
    gpu.act[FAST] = lambda compute: 2 * compute()
    run(gpu, torch.zeros_like(x), weight)
    run(gpu, x, torch.zeros_like(x), KERNEL, task='weight_gradient')
    assert torch.equal(torch.get_rng_state(), state)
    assert run(gpu, x, weight)[1] == [SLOW]
    assert run(gpu, x, x, KERNEL, task='weight_gradient')[1] == [SLOW]


def test_relative_error(monkeypatch):
    monkeypatch.setattr(measured, '_CHUNK', 4)
    wanted = torch.tensor([3.0, 4.0, torch.nan, torch.inf, 0.0, 0.0]).view(1, 3, 1, 2)
    value = torch.tensor([3.0, 4.5, torch.nan, torch.nan, 0.0, 0.0]).view(1, 3, 1, 2)
    assert relative_error(value, wanted) == pytest.approx(0.1)
    assert relative_error(wanted, wanted) == 0
    value[0, 2, 0, 0] = torch.nan
    assert not relative_error(value, wanted) < 1e9
    zeros = torch.zeros(1, 2, 3, 4)
    assert relative_error(zeros, zeros) == 0
    assert relative_error(zeros + 1e-3, zeros) > 1


def test_too_little_memory_for_a_trial(gpu, tmp_path):
    x, weight = tensors()
    gpu.act[FAST] = raises(torch.cuda.OutOfMemoryError('CUDA out of memory'))
    gpu.act[SLOW] = raises(RuntimeError('Triton Error [CUDA]: out of memory'))
    out, _ = run(gpu, x, weight)
    assert_right(out, x, weight)
    assert run(gpu, x, weight)[1] == []
    # It may suffice for smaller feature maps, and in the next process.
    assert measured.available(x)
    assert not list(tmp_path.rglob('*.json'))


def test_too_little_memory_for_the_chosen_kernel(gpu):
    x, weight = tensors()
    run(gpu, x, weight)
    gpu.act[FAST] = raises(torch.cuda.OutOfMemoryError('CUDA out of memory'))
    out, calls = run(gpu, x, weight, None, torch.ones_like(x))
    assert calls == [FAST]
    assert_right(out - 1, x, weight)
    gpu.act.clear()
    assert run(gpu, x, weight)[1] == [FAST]


def test_chosen_kernel_that_fails_later(gpu):
    x, weight = tensors()
    run(gpu, x, weight)
    gpu.act[FAST] = raises(RuntimeError('unknown architecture'))
    for calls in ([FAST], [], []):
        out, called = run(gpu, x, weight)
        assert called == calls
        assert_right(out, x, weight)
    assert len(gpu.warnings()) == 1


def test_failure_of_pytorch_is_not_hidden(gpu, monkeypatch):
    x, weight = tensors()
    monkeypatch.setattr(native, 'forward', raises(RuntimeError('no engine')))
    with pytest.raises(RuntimeError, match='no engine'):
        run(gpu, x, weight)


def test_choices_are_kept_in_a_file(gpu, tmp_path):
    x, weight = tensors()
    run(gpu, x, weight)
    gpu.new_process()
    assert run(gpu, x, weight)[1] == [FAST]
    # Another process adds its choices.
    gpu.new_process()
    run(gpu, x, x, KERNEL, task='weight_gradient')
    gpu.new_process()
    assert len(measured.choices()) == 2
    (file,) = tmp_path.rglob('*.json')
    assert file.parent == tmp_path / 'mmslak' / 'ops'
    assert list(file.parent.iterdir()) == [file]
    assert len(gpu.infos()) == 2


@pytest.mark.parametrize(
    'damage',
    [
        lambda text: '',
        lambda text: text[: len(text) // 2],
        lambda text: '{}',
        lambda text: '[1, {}]',
        lambda text: text.replace('"triton"', '"fast"'),
        lambda text: text.replace('64', '63'),
        lambda text: text.replace('"kernel"', '"size"'),
    ],
)
def test_damaged_file_is_ignored_and_replaced(gpu, tmp_path, damage):
    x, weight = tensors()
    run(gpu, x, weight)
    (file,) = tmp_path.rglob('*.json')
    file.write_text(damage(file.read_text()))
    gpu.new_process()
    run(gpu, x, weight)
    assert len(gpu.infos()) == 2
    (record,) = json.loads(file.read_text())
    assert record['blocks'] == list(FAST)
    assert not gpu.warnings()


@pytest.mark.parametrize('writable', ['mmslak', 'mmslak/ops', 'mmslak/ops/choices.json'])
def test_file_that_others_can_write_is_not_read(gpu, tmp_path, writable):
    x, weight = tensors()
    run(gpu, x, weight)
    path = tmp_path / writable
    path.chmod(path.stat().st_mode | 0o002)
    gpu.new_process()
    run(gpu, x, weight)
    assert len(gpu.infos()) == 2


def test_cache_that_cannot_be_written(gpu, tmp_path):
    (tmp_path / 'mmslak').write_text('a file instead of a directory')
    x, weight = tensors()
    run(gpu, x, weight)
    assert run(gpu, x, weight)[1] == [FAST]


@pytest.mark.parametrize('mode', ['algorithms', 'cudnn'])
def test_deterministic_modes_use_the_static_rule(gpu, monkeypatch, mode):
    x, weight = tensors()
    gpu.times[NATIVE] = 0.5
    run(gpu, x, weight)
    assert run(gpu, x, weight)[1] == []
    if mode == 'algorithms':
        monkeypatch.setattr(torch, 'are_deterministic_algorithms_enabled', lambda: True)
    else:
        monkeypatch.setattr(torch.backends.cudnn, 'deterministic', True)
    assert run(gpu, x, weight)[1] == [None]
    assert len(gpu.infos()) == 1


def test_several_ranks_use_the_file_or_the_static_rule(gpu, monkeypatch):
    x, weight = tensors()
    gpu.times[NATIVE] = 0.5
    run(gpu, x, weight)
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 2)
    # What this process has measured may differ from other ranks.
    assert run(gpu, x, weight)[1] == [None]
    gpu.new_process()
    assert run(gpu, x, weight)[1] == []
    assert run(gpu, *tensors(2))[1] == [None]
    assert len(gpu.infos()) == 1


def test_nothing_is_measured_during_capture(gpu, monkeypatch):
    x, weight = tensors()
    with monkeypatch.context() as patch:
        patch.setattr(measured, '_is_capturing', lambda x: True)
        assert run(gpu, x, weight)[1] == [None]
    run(gpu, x, weight)
    monkeypatch.setattr(measured, '_is_capturing', lambda x: True)
    assert run(gpu, x, weight)[1] == [FAST]
    assert len(gpu.infos()) == 1


def test_through_the_operator_with_gradients(gpu):
    x, weight = (t.requires_grad_() for t in tensors())
    bias, grad = torch.randn(3, requires_grad=True), torch.randn(1, 3, 8, 9)
    for _ in range(2):
        gpu.calls.clear()
        out = depthwise_conv2d(x, weight, bias)
        got = torch.autograd.grad(out, (x, weight, bias), grad)
        assert_right(out.detach() - bias.detach().view(-1, 1, 1), x.detach(), weight.detach())
        assert_right(got[0], grad, weight.detach().flip(2, 3))
        wanted = reference.weight_gradient(x.detach(), grad, KERNEL)
        assert relative_error(got[1].double(), wanted) < 1e-5
    assert gpu.calls == [FAST] * 3
    # The forward pass and the gradient of the input are the same computation.
    assert len(gpu.infos()) == 2


def test_implementation_and_environment_decide_by_hand(gpu, monkeypatch):
    x, weight = tensors()
    depthwise_conv2d(x, weight, None, 'native')
    depthwise_conv2d(x, weight, None, 'triton')
    monkeypatch.setattr(depthwise, '_DEFAULT', 'triton')
    depthwise_conv2d(x, weight)
    assert gpu.calls == [None] * 2
    assert not gpu.infos()


def test_choice_on_a_gpu(monkeypatch):
    x = SimpleNamespace(device=torch.device('cuda', 0), dtype=torch.float16)
    for works in (True, False):
        monkeypatch.setattr(measured, 'available', lambda x, works=works: works)
        assert choose(x, (5, 51)) == choose(x, (5, 51), gradient=True)
        assert choose(x, (5, 51)) == ('measured' if works else 'native')
        for layout, small in (('planar', choose(x, (5, 51))), ('channels_last', 'native')):
            monkeypatch.setattr(measured, '_layout', lambda _, layout=layout: layout)
            assert choose(x, (7, 7)) == choose(x, (5, 5)) == small
            assert choose(x, (3, 3)) == 'native'


class Clock:
    """Acts as the GPU: an event notes the time at which the work before it is done."""

    now = 0.0

    def __init__(self, enable_timing):
        assert enable_timing
        self.time = None

    def record(self):
        self.time = Clock.now

    def synchronize(self):
        assert self.time is not None

    def elapsed_time(self, end):
        return end.time - self.time


def test_milliseconds_is_the_median_and_gives_up_early(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'Event', Clock)
    durations = [50.0, 3.0, 1.0, 2.0, 9.0, 4.0]
    todo = list(durations)

    def run():
        Clock.now += todo.pop(0)

    assert measured.milliseconds(run) == 3
    todo[:] = durations
    assert measured.milliseconds(run, best=20.0) == 50
    assert len(todo) == 5
