"""Latency and peak memory of several ways to compute the same."""

import ctypes
import math
import platform
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

_STATUS = Path('/proc/self/status')
#: Length of a turn in milliseconds, which short runs are repeated to fill.
_TURN_MS = 10.0


@dataclass
class Cost:
    """Latency and peak memory of one way.

    Attributes:
        times (list[float]): Milliseconds of a run, one entry for each turn.
        peak_mb (float or None): Peak memory of a run in MB, including its inputs and results; None
            if the system does not report it.
    """

    times: list[float] = field(default_factory=list)
    peak_mb: float | None = None

    @property
    def ms(self) -> float:
        """Median of the times, in milliseconds."""
        return statistics.median(self.times)


def measure_in_turns(
    ways: dict[str, Callable[[], Callable[[], object]]],
    device: str = 'cpu',
    repeats: int = 10,
    progress: Callable[[], object] = lambda: None,
    graphs: bool = False,
) -> dict[str, Cost]:
    """Time several ways in turns, so that other load on the machine affects all of them.

    Short runs are repeated within a turn and timed together, because the first run of a turn finds
    the caches filled by another way. On a GPU the clock is that of CUDA events, on a CPU that of
    ``torch.utils.benchmark``. The number of threads is the caller's (``torch.set_num_threads``);
    ``torch.utils.benchmark.Timer`` would set it to 1.

    Args:
        ways (dict[str, Callable]): By name, functions that make the inputs and return the function
            to time.
        device (str): ``cpu`` or ``cuda``.
        repeats (int): Number of turns of each way. Three runs before these are not counted: the
            first one compiles, the second one measures memory, the third one the length of a turn.
        progress (Callable): Called after every turn and after the first two runs, ``repeats + 2``
            times for each way.
        graphs (bool): Record each way as a CUDA graph, and time its replay. This leaves out the
            time that the CPU takes to launch kernels.

    Returns:
        dict[str, Cost]: By name.
    """
    clock = _gpu_time if device == 'cuda' else _cpu_time
    costs, runs, counts = {}, {}, {}
    for name, prepare in ways.items():
        prepare()()
        progress()
        peak = [None]
        with _peak_memory(device, peak):
            run = prepare()
            run()
        progress()
        if graphs:
            run = _recorded(run)
        costs[name], runs[name] = Cost(peak_mb=peak[0]), run
        counts[name] = min(100, math.ceil(_TURN_MS / clock(run, 1)))
    for _ in range(repeats):
        for name, run in runs.items():
            costs[name].times.append(clock(run, counts[name]))
            progress()
    return costs


def _cpu_time(run: Callable[[], object], count: int) -> float:
    """Return the milliseconds of one of ``count`` runs."""
    # Imported here because it searches for a CUDA toolkit and prints warnings.
    from torch.utils.benchmark import timer

    start = timer()
    for _ in range(count):
        run()
    return 1e3 * (timer() - start) / count


def _gpu_time(run: Callable[[], object], count: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(count):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / count


def _recorded(run: Callable[[], object]) -> Callable[[], object]:
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        run()

    def replay():
        graph.replay()

    # The graph reads the tensors of ``run``, which must therefore stay alive.
    replay.source = run
    return replay


def machine(device: str = 'cpu') -> str:
    """Return the name of the CPU or GPU, for the title of a table."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        name = next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f'{name}, {torch.backends.cpu.get_cpu_capability()}'


def check_device(device: str) -> None:
    """Check that PyTorch can use a device.

    Raises:
        ValueError: If it cannot.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'--device {device} cannot be used here: {reason}') from error


@contextmanager
def _peak_memory(device: str, peak: list) -> Iterator[None]:
    """Measure how much the memory in use grows inside the context, in MB, into ``peak[0]``."""
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield
        torch.cuda.synchronize()
        peak[0] = (torch.cuda.max_memory_allocated() - before) / 1e6
        return
    try:
        # Memory that earlier runs freed returns to the system; reused, it would not be counted.
        ctypes.CDLL(None).malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5')
        before = _resident('VmRSS')
    except (OSError, AttributeError):
        yield
        return
    yield
    peak[0] = (_resident('VmHWM') - before) / 1e6


def _resident(kind: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1024
