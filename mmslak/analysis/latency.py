"""Time and peak memory of several ways to do the same, side by side."""

import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

_STATUS = Path('/proc/self/status')


@dataclass
class Cost:
    """What one way costs.

    Attributes:
        times (list[float]): Milliseconds of each run.
        peak_mb (float or None): Largest memory that a run took, in 10^6 bytes, its inputs and
            results included; None where the system does not tell.
    """

    times: list[float] = field(default_factory=list)
    peak_mb: float | None = None

    @property
    def ms(self) -> float:
        """Median of the times, in milliseconds."""
        return statistics.median(self.times)


def compare(
    ways: dict[str, Callable[[], Callable[[], object]]],
    device: str = 'cpu',
    repeats: int = 10,
    done: Callable[[], object] = lambda: None,
) -> dict[str, Cost]:
    """Time several ways in turns, so that whatever else the machine does meets all alike.

    Args:
        ways (dict[str, Callable]): For each name a function that makes the inputs and returns
            the function to time.
        device (str): ``cpu`` or ``cuda``.
        repeats (int): Timed runs of each, after two that are not counted: the first also
            compiles, the second measures memory.
        done (Callable): Called after every run, for a progress bar; ``repeats + 2`` times a way.

    Returns:
        dict[str, Cost]: By name.
    """
    costs, runs = {}, {}
    for name, prepare in ways.items():
        prepare()()
        done()
        peak = [None]
        with _peak_memory(device, peak):
            run = prepare()
            run()
        done()
        costs[name], runs[name] = Cost(peak_mb=peak[0]), run
    for _ in range(repeats):
        for name, run in runs.items():
            _wait(device)
            start = time.perf_counter()
            run()
            _wait(device)
            costs[name].times.append(1e3 * (time.perf_counter() - start))
            done()
    return costs


def machine(device: str = 'cpu') -> str:
    """Name the processor or the GPU, for the heading of a table."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        name = next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f'{name}, {torch.backends.cpu.get_cpu_capability()}'


def check_device(device: str) -> None:
    """Raise a ValueError where PyTorch has no such device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'--device {device} cannot be used here: {reason}') from error


def _wait(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


@contextmanager
def _peak_memory(device: str, peak: list) -> Iterator[None]:
    """Put the largest memory in use inside over that before into ``peak[0]``."""
    if device == 'cuda':
        _wait(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield
        _wait(device)
        peak[0] = (torch.cuda.max_memory_allocated() - before) / 1e6
        return
    try:
        # What earlier runs freed goes back to the system, or it would serve this one unseen.
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
