"""The choice of ``auto`` on a GPU: PyTorch's convolution or Triton's kernels, whichever is faster.

The first time that a combination of GPU, pass, shape, kernel, dtype, memory format and precision
occurs, PyTorch's convolution and the Triton kernels with several block sizes are run on the tensors
of this call. Results that differ from PyTorch's are rejected. Of the others the fastest is chosen,
as cuDNN's benchmark mode does. Choices are kept in memory and in ``~/.cache/mmslak/ops``, in the
directory of the compiled CPU kernels.

- Kernels of at most 3 always use PyTorch's convolution, and so do undilated kernels of at most 7
  with channels last. On an H200 it takes as long as Triton's kernels for 5 x 5 with channels last,
  and five times as long for planar feature maps (forward and backward pass).
- At most :data:`SHAPES` shapes of feature maps are measured for each combination of the rest in one
  process. Further shapes use the choice of the measured shape that is nearest in its number of
  elements, so that multi-scale training does not measure in every iteration.
- Nothing is measured while a CUDA graph is captured. A new combination then uses the static rule:
  Triton with the block sizes of its table. ``torch.compile`` does not look into the operator, so
  that compiled code measures when it runs.
- In PyTorch's deterministic modes the static rule is always used, because times vary between runs.
- With several ranks nothing is measured either: the times of two ranks differ, and a broadcast
  inside an operator could wait forever. Every rank uses the choice of the file, which it reads
  once, or else the static rule. Ranks therefore agree if they read the same file. A run on one GPU
  writes it.
- A candidate that raises an exception is dropped. If all Triton kernels raise one, for example
  because there is no C compiler, PyTorch's convolution is used until the process ends.
"""

import functools
import hashlib
import json
import logging
import math
import os
import statistics
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from . import cpp, native
from .precision import tf32_allowed

#: Allowed norm of the difference from PyTorch's result, divided by the norm of that result.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
#: The same for float32 if products may be rounded to TF32.
TF32_TOLERANCE = 2e-3
#: Number of shapes measured in one process for the same GPU, pass, kernel, channels and dtype.
SHAPES = 8
#: Timed runs of a candidate.
RUNS = 5
#: A candidate whose first run takes this many times as long as the best one is not run again.
HOPELESS = 2
#: Elements that are compared at once, so that large feature maps need little extra memory.
_CHUNK = 1 << 22


class Choice(NamedTuple):
    """An implementation, and block sizes of the Triton kernels (None: those of their table)."""

    implementation: str
    blocks: tuple[int | None, ...] | None = None

    def __str__(self) -> str:
        return ' '.join(map(str, (self.implementation, *(self.blocks or ()))))


NATIVE, STATIC = Choice('native'), Choice('triton')


class Taps(NamedTuple):
    """Height and width of a kernel, and the vertical and horizontal distance of its weights."""

    kernel: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)

    def __str__(self) -> str:
        name = 'x'.join(map(str, self.kernel))
        if self.dilation == (1, 1):
            return name
        return f'{name} with dilation {"x".join(map(str, self.dilation))}'


class Combination(NamedTuple):
    """Everything but the shape of the feature map that a choice depends on."""

    machine: str  #: GPU, compute capability, versions of PyTorch, Triton and the kernels
    task: str  #: 'forward' (also the gradient of the input) or 'weight_gradient'
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    channels: int
    dtype: str
    layout: str  #: memory formats of the two tensors
    precision: str  #: settings of PyTorch


class Measurement(NamedTuple):
    """A choice and its reasons, with candidates by their names."""

    choice: Choice
    milliseconds: dict[str, float] = {}
    rejected: dict[str, str] = {}


_Table = dict[Combination, dict[tuple[int, ...], Measurement]]


class _State:
    """What this process knows."""

    def __init__(self, read_file: bool = True):
        self.stored: _Table | None = None if read_file else {}  # content of the file
        self.measured: _Table = {}
        self.count: Counter[Combination] = Counter()
        self.triton_fails = False
        self.warned: set[str] = set()


_state = _State()
_lock = threading.RLock()


def forget() -> None:
    """Measure every combination again in this process, whatever the file contains."""
    global _state
    _state = _State(read_file=False)


def choices() -> list[dict]:
    """Return the choices of this process and of the file, one dictionary each.

    Returns:
        list[dict]: The fields of :class:`Combination`, ``shape`` (N, C, H, W), ``implementation``,
        ``blocks``, ``milliseconds`` by candidate and ``rejected``, reasons by candidate.
    """
    merged = {}
    for table in (_stored(), _state.measured):
        for combination, shapes in table.items():
            merged.setdefault(combination, {}).update(shapes)
    return _records(merged)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    add_to: Tensor | None = None,
    dilation: Sequence[int] = (1, 1),
) -> Tensor:
    """Convolve as :func:`mmslak.ops.depthwise_conv2d` does, and add to ``add_to`` in place."""
    taps = Taps(tuple(weight.shape[-2:]), tuple(dilation))
    return _run(
        'forward',
        (x, weight),
        taps,
        lambda module, **blocks: module.forward(
            x, weight, bias, add_to, dilation=taps.dilation, **blocks
        ),
    )


def weight_gradient(
    x: Tensor, grad: Tensor, kernel_size: tuple[int, int], dilation: Sequence[int] = (1, 1)
) -> Tensor:
    """Return the gradient of the kernels, (C, 1, kh, kw), for ``grad`` of the output."""
    taps = Taps(tuple(map(int, kernel_size)), tuple(dilation))
    return _run(
        'weight_gradient',
        (x, grad),
        taps,
        lambda module, **blocks: module.weight_gradient(
            x, grad, taps.kernel, dilation=taps.dilation, **blocks
        ),
    )


def converted(x: Tensor, dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    """Return ``x.to(dtype=dtype, memory_format=memory_format)``, by Triton if it runs on ``x``.

    Args:
        x (Tensor): Feature maps of shape (N, C, H, W).
        dtype (torch.dtype): Dtype of the result.
        memory_format (torch.memory_format): Memory format of the result.
    """
    changes = x.dtype != dtype or not x.is_contiguous(memory_format=memory_format)
    if changes and available(x) and dtype in triton().DTYPES:
        try:
            return triton().converted(x, dtype, memory_format)
        except Exception as error:
            fall_back(error)
    return x.to(dtype=dtype, memory_format=memory_format)


def available(x: Tensor) -> bool:
    """Return whether the Triton kernels are a candidate for this tensor."""
    return not _state.triton_fails and triton_runs_on(x)


def is_worthwhile(x: Tensor, kernel: tuple[int, int], dilation: Sequence[int] = (1, 1)) -> bool:
    """Return whether the Triton kernels are a candidate and can be the faster one.

    Args:
        x (Tensor): The feature map.
        kernel (tuple[int, int]): Height and width of the kernel.
        dilation (Sequence[int]): Vertical and horizontal distance of neighbouring weights.
    """
    longest, dilated = max(kernel), max(dilation) > 1
    large = longest > 7 or (longest > 3 and (dilated or _layout(x) == 'planar'))
    return large and available(x)


def triton_runs_on(x: Tensor) -> bool:
    """Return whether Triton is installed and supports the device and dtype of a tensor."""
    kernels = triton()
    return kernels is not None and kernels.available(x)


@functools.cache
def triton():
    """Return the module of the Triton kernels, or None if it cannot be imported."""
    # Optional dependency: some builds of PyTorch come without Triton.
    try:
        from . import triton_kernels
    except ImportError:
        return None
    except Exception as error:
        _warn('import', f'Triton cannot be imported ({_reason(error)})')
        return None
    return triton_kernels


def measure(
    candidates: dict[Choice, Callable[[], Tensor]],
    tolerance: float,
    timer: Callable[[Callable[[], Tensor], float], float],
) -> tuple[Measurement, dict[Choice, Exception]]:
    """Compare candidates with PyTorch's convolution and choose the fastest that agrees.

    Args:
        candidates (dict): Functions that return the result of each candidate, one of which is
            :data:`NATIVE`.
        tolerance (float): Largest relative error, see :func:`relative_error`.
        timer (Callable): ``timer(run, best)`` returns the milliseconds of ``run()``; ``best`` is
            the shortest time so far.

    Returns:
        tuple: The measurement, and the exceptions of the candidates that raised one.

    Raises:
        Exception: Whatever PyTorch's own convolution raises.
    """
    wanted = candidates[NATIVE]()
    times: dict[Choice, float] = {}
    rejected: dict[str, str] = {}
    failed: dict[Choice, Exception] = {}
    for choice, run in candidates.items():
        if choice == NATIVE:
            continue
        try:
            error = relative_error(run(), wanted)
            # The error is NaN if the result is.
            if not error <= tolerance:
                rejected[str(choice)] = f'differs by {error:.1e}'
                continue
            times[choice] = timer(run, min(times.values(), default=math.inf))
        except Exception as exception:
            # The traceback would keep the tensors of the failed call alive.
            failed[choice] = exception.with_traceback(None)
            rejected[str(choice)] = _reason(exception)
    del wanted
    # PyTorch's convolution is last, because it may be so slow that one run suffices.
    times[NATIVE] = timer(candidates[NATIVE], min(times.values(), default=math.inf))
    fastest = min(times, key=times.get)
    names = {str(choice): round(time, 5) for choice, time in times.items()}
    return Measurement(fastest, names, rejected), failed


def relative_error(value: Tensor, wanted: Tensor) -> float:
    """Return the norm of the difference in float32, divided by the norm of ``wanted``.

    Elements at which ``wanted`` is NaN or infinite are left out. The result is NaN or infinite if
    another element of ``value`` is.
    """
    size = max(1, _CHUNK * wanted.shape[1] // max(1, wanted.numel()))
    difference = total = 0
    for a, b in zip(value.split(size, 1), wanted.split(size, 1), strict=True):
        a, b = a.float(), b.float()
        finite = b.isfinite()
        difference = difference + _square(torch.where(finite, a - b, 0))
        total = total + _square(torch.where(finite, b, 0))
    difference, total = torch.stack([difference, total]).sqrt().tolist()
    return difference / max(total, 1e-30)


def milliseconds(run: Callable[[], Tensor], best: float = math.inf) -> float:
    """Return the median time of calls that follow each other on the current CUDA stream.

    The GPU does not wait between the calls, as in training. If launching takes longer than
    computing, it is the time of launching.

    Args:
        run (Callable): Has run before, so that everything is compiled.
        best (float): Milliseconds of the best candidate so far.
    """

    def record() -> tuple[torch.cuda.Event, torch.cuda.Event]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        return start, end

    def elapsed(start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return start.elapsed_time(end)

    first = elapsed(*record())
    if first > HOPELESS * best:
        return first
    return statistics.median(elapsed(*pair) for pair in [record() for _ in range(RUNS)])


def _square(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dtype=torch.float64).square()


def _run(
    task: str, tensors: tuple[Tensor, Tensor], taps: Taps, call: Callable[..., Tensor]
) -> Tensor:
    """Call ``forward`` or ``weight_gradient`` of the chosen module."""
    choice = _choose(task, tensors, taps)
    if choice.implementation == 'triton':
        try:
            return call(triton(), blocks=choice.blocks)
        except Exception as error:
            fall_back(error)
    return call(native)


def fall_back(error: Exception) -> None:
    """Warn once that PyTorch's operators replace a Triton kernel, and use no other from now on.

    Args:
        error (Exception): What the kernel raised. After a lack of memory or an unsupported shape
            the kernels are tried again.
    """
    if _is_out_of_memory(error):
        _warn('memory', 'there is too little memory for a Triton kernel')
        return
    # The kernels raise ValueError if they do not support this shape.
    if not isinstance(error, ValueError):
        _state.triton_fails = True
    _warn('run', f'a Triton kernel failed ({_reason(error)})')


def _choose(task: str, tensors: tuple[Tensor, Tensor], taps: Taps) -> Choice:
    x = tensors[0]
    if not is_worthwhile(x, *taps):
        return NATIVE
    if torch.are_deterministic_algorithms_enabled() or torch.backends.cudnn.deterministic:
        return STATIC
    combination, shape = _combination(task, tensors, taps), tuple(x.shape)
    if several_ranks():
        return _find(combination, shape, _stored()) or STATIC
    choice = _find(combination, shape, _state.measured, _stored())
    if choice is not None:
        return choice
    # Backward passes run in threads of their own, and times of two threads would be mixed up.
    # Autocast would compute PyTorch's result in another dtype.
    autocast = torch.autocast(x.device.type, enabled=False)
    with _lock, torch.no_grad(), autocast, torch.cuda.device_of(x):
        if _is_capturing(x):
            return STATIC
        choice = _find(combination, shape, _state.measured, _stored())
        return choice or _measure(combination, shape, task, tensors, taps)


def _find(combination: Combination, shape: tuple[int, ...], *tables: _Table) -> Choice | None:
    """Return the choice for this shape, or for the nearest one if enough were measured."""
    known = [table[combination] for table in tables if combination in table]
    for shapes in known:
        if shape in shapes:
            return shapes[shape].choice
    if _state.count[combination] < SHAPES or not any(known):
        return None
    size = math.prod(shape)
    every = [item for shapes in known for item in shapes.items()]
    return min(every, key=lambda item: abs(math.log(math.prod(item[0]) / size)))[1].choice


def _measure(
    combination: Combination,
    shape: tuple[int, ...],
    task: str,
    tensors: tuple[Tensor, Tensor],
    taps: Taps,
) -> Choice:
    _state.count[combination] += 1
    store = False
    try:
        candidates = _candidates(task, tuple(map(_comparable, tensors)), taps)
        result, failed = measure(candidates, _tolerance(tensors[0].dtype), milliseconds)
    except Exception as error:
        # PyTorch's own convolution failed. Without memory nothing else would do better; otherwise
        # the Triton kernels may still work.
        result, failed = Measurement(NATIVE if _is_out_of_memory(error) else STATIC), {}
        _warn('trial', f'it could not be compared with PyTorch ({_reason(error)})')
    else:
        _report_problems(candidates, result, failed)
        store = not _state.triton_fails and not any(map(_is_out_of_memory, failed.values()))
        _log(combination, shape, result)
    _state.measured.setdefault(combination, {})[shape] = result
    if store:
        _save(combination, shape, result)
    return result.choice


def _candidates(
    task: str, tensors: tuple[Tensor, Tensor], taps: Taps
) -> dict[Choice, Callable[[], Tensor]]:
    x, other = tensors
    kernels = triton()
    third = () if task == 'forward' else (taps.kernel,)

    def call(module, **blocks) -> Tensor:
        return getattr(module, task)(x, other, *third, dilation=taps.dilation, **blocks)

    found = {NATIVE: functools.partial(call, native)}
    try:
        worth_trying = kernels.candidates(task, x, *taps)
    except ValueError:  # the kernels do not support this shape
        return found
    for blocks in worth_trying:
        found[Choice('triton', tuple(blocks))] = functools.partial(call, kernels, blocks=blocks)
    return found


def _comparable(x: Tensor) -> Tensor:
    """Return ``x``, or random values of its format if it is zero everywhere, or not finite.

    All kernels agree on zeros, which are the first gradients of some networks. The first steps of
    mixed precision often overflow, and a NaN makes a whole block of the Triton kernels NaN.
    """
    # The norm is the largest absolute value. It needs no memory.
    if 0 < torch.linalg.vector_norm(x, math.inf).item() < math.inf:
        return x
    # The state of the global generator stays the same.
    return torch.empty_like(x).normal_(generator=torch.Generator(x.device).manual_seed(0))


def _report_problems(
    candidates: dict, result: Measurement, failed: dict[Choice, Exception]
) -> None:
    """Warn of Triton kernels that failed or differed, and give up if all of them failed."""
    errors = [error for error in failed.values() if not _is_out_of_memory(error)]
    if errors:
        _warn('candidate', f'a Triton kernel failed ({_reason(errors[0])})')
        if len(errors) == len(candidates) - 1:
            _state.triton_fails = True
    wrong = [name for name, reason in result.rejected.items() if reason.startswith('differs')]
    if wrong:
        _warn('differs', f'the result of {wrong[0]} {result.rejected[wrong[0]]}')


def _log(combination: Combination, shape: tuple[int, ...], result: Measurement) -> None:
    times = sorted(result.milliseconds.items(), key=lambda item: item[1])
    logging.getLogger(__name__).info(
        '%s of %s on %s, %s, %s: %s (%s)',
        combination.task,
        Taps(combination.kernel, combination.dilation),
        'x'.join(map(str, shape)),
        combination.dtype,
        combination.layout,
        result.choice,
        ', '.join(
            [f'{name} {time:.3f} ms' for name, time in times]
            + [f'{name}: {reason}' for name, reason in result.rejected.items()]
        ),
    )


def _warn(kind: str, reason: str) -> None:
    """Warn once in a process about each kind of problem."""
    if kind not in _state.warned:
        _state.warned.add(kind)
        logging.getLogger(__name__).warning(
            'A fast kernel for large depth-wise convolutions is not used, and another one replaces '
            'it, which may be slower: %s',
            reason,
        )


def _reason(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'


def _is_out_of_memory(error: Exception) -> bool:
    # Triton's launcher raises a RuntimeError.
    return isinstance(error, torch.cuda.OutOfMemoryError) or 'out of memory' in str(error).lower()


def _is_capturing(x: Tensor) -> bool:
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def several_ranks() -> bool:
    """Return whether this process is one of several in a distributed training."""
    distributed = torch.distributed
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def _combination(task: str, tensors: tuple[Tensor, Tensor], taps: Taps) -> Combination:
    x, other = tensors
    layout = _layout(x) if task == 'forward' else f'{_layout(x)} and {_layout(other)}'
    return Combination(
        _machine(x.device), task, *taps, x.shape[1], str(x.dtype), layout, _precision(x.dtype)
    )


@functools.cache
def _machine(device: torch.device) -> str:
    kernels = triton()
    name = 'CPU'
    if device.type == 'cuda':
        major, minor = torch.cuda.get_device_capability(device)
        name = f'{torch.cuda.get_device_name(device)} ({major}.{minor})'
    digest = hashlib.sha256(Path(kernels.__file__).read_bytes()).hexdigest()[:8]
    return (
        f'{name}, torch {torch.__version__}, triton {kernels.triton.__version__}, kernels {digest}'
    )


def _layout(x: Tensor) -> str:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return 'channels_last' if last else 'planar'


def _precision(dtype: torch.dtype) -> str:
    """Return the settings that change the results or the times of the candidates."""
    settings = ['benchmark'] if torch.backends.cudnn.benchmark else []
    if dtype == torch.float32:
        names = ('matmul', 'convolution')
        settings += [f'{name} tf32' for name, on in zip(names, tf32_allowed(), strict=True) if on]
    return ', '.join(settings)


def _tolerance(dtype: torch.dtype) -> float:
    return TF32_TOLERANCE if dtype == torch.float32 and any(tf32_allowed()) else TOLERANCE[dtype]


def _file() -> Path:
    return cpp.cache_directory() / 'choices.json'


def _stored() -> _Table:
    """Return the choices of the file, which is read once."""
    if _state.stored is None:
        _state.stored = _read()
    return _state.stored


def _read() -> _Table:
    """Return the choices of the file, without those that cannot be understood."""
    table: _Table = {}
    try:
        file = _file()
        records = json.loads(file.read_bytes()) if cpp.is_private(file) else []
    except (OSError, RuntimeError, ValueError):
        return table
    for record in records if isinstance(records, list) else []:
        try:
            values = {**record, **{name: tuple(record[name]) for name in Taps._fields}}
            combination = Combination(*(values[field] for field in Combination._fields))
            blocks = record['blocks']
            choice = Choice(record['implementation'], None if blocks is None else tuple(blocks))
            if not _is_valid(choice):
                continue
            result = Measurement(choice, dict(record['milliseconds']), dict(record['rejected']))
            table.setdefault(combination, {})[tuple(record['shape'])] = result
        except (KeyError, TypeError, ValueError):
            continue
    return table


def _is_valid(choice: Choice) -> bool:
    if choice.implementation == 'native':
        return choice.blocks is None
    if choice.implementation != 'triton' or choice.blocks is None or len(choice.blocks) != 6:
        return False
    *sizes, warps, stages, registers = choice.blocks
    return (
        all(size in (16, 32, 64, 128, 256) for size in sizes)
        and warps in (1, 2, 4, 8, 16)
        and stages in range(1, 9)
        and (registers is None or registers in range(16, 256))
    )


def _records(table: _Table) -> list[dict]:
    return [
        {
            **combination._asdict(),
            'shape': shape,
            **result.choice._asdict(),
            'milliseconds': result.milliseconds,
            'rejected': result.rejected,
        }
        for combination, shapes in table.items()
        for shape, result in shapes.items()
    ]


def _save(combination: Combination, shape: tuple[int, ...], result: Measurement) -> None:
    """Add a choice to the file, together with those that other processes have added."""
    try:
        file = _file()
        table = _read()
        table.setdefault(combination, {})[shape] = result
        descriptor, fresh = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(descriptor, 'w') as stream:
                json.dump(_records(table), stream, indent=1)
            # Renaming is atomic. Other processes may read or write the same file.
            os.replace(fresh, file)
        finally:
            Path(fresh).unlink(missing_ok=True)
    except (OSError, RuntimeError):
        # The choice stays in memory.
        pass
