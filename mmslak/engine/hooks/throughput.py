"""How fast training goes, and what holds it up."""

import time

from mmengine.dist import get_world_size
from mmengine.hooks import Hook

from ...registry import HOOKS

#: Share of the time spent waiting for data from which on the data is the bottleneck: worker
#: processes that keep up leave almost no wait; without any, loading and computing take turns.
WAIT_WITH_WORKERS, WAIT_WITHOUT = 0.2, 0.5


def bottleneck(waiting: float, computing: float, workers: int) -> str:
    """Name what a training step waits for.

    Args:
        waiting (float): Seconds spent until a batch was there.
        computing (float): Seconds spent on it.
        workers (int): Processes that load data, 0 for none.

    Returns:
        str: ``data`` or ``compute``.
    """
    limit = WAIT_WITH_WORKERS if workers else WAIT_WITHOUT
    return 'data' if waiting > limit * (waiting + computing) else 'compute'


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Print images per second, time per epoch, time left, and data or compute as bottleneck.

    The first time after ``first`` iterations, then whenever at least ``seconds`` have passed.

    Args:
        first (int): Iterations before the first line; those before ``warm_up`` do not count.
        warm_up (int): Iterations at the start that are left out, slow for caches are empty.
        seconds (float): Least time between two lines.
    """

    # After everything that belongs to an iteration.
    priority = 'LOWEST'

    def __init__(self, first: int = 30, warm_up: int = 5, seconds: float = 600.0):
        self.first, self.warm_up, self.seconds = first, warm_up, seconds
        self._seen, self._shown = 0, False

    def before_train_epoch(self, runner) -> None:
        """Start to wait for the first batch."""
        self._ready = time.perf_counter()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """A batch is there."""
        self._given = time.perf_counter()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Count an iteration, and print where it is time."""
        now = time.perf_counter()
        self._seen += 1
        if self._seen == self.warm_up:
            self._reset(now)
        elif self._seen > self.warm_up:
            self._count += 1
            self._waiting += self._given - self._ready
            self._computing += now - self._given
            if (self._seen >= self.first and not self._shown) or now - self._since > self.seconds:
                runner.logger.info(self._line(runner))
                self._reset(now)
                self._shown = True
        self._ready = now

    def _reset(self, now: float) -> None:
        self._since, self._count, self._waiting, self._computing = now, 0, 0.0, 0.0

    def _line(self, runner) -> str:
        loader = runner.train_dataloader
        size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 1)
        step = (self._waiting + self._computing) / self._count
        images = size * get_world_size() / step
        text = f'Speed: {images:,.1f} images/s'
        text += f', {_duration(step * len(loader))} per epoch ({len(loader):,} iterations)'
        left = runner.max_iters - runner.iter - 1
        text += f', {_duration(step * left)} left; '
        what = bottleneck(self._waiting, self._computing, loader.num_workers)
        share = self._waiting / (self._waiting + self._computing)
        text += f'bottleneck: {what} ({share:.0%} of the time waiting for data'
        if what == 'data':
            text += '; more train_dataloader.num_workers or faster storage may help'
        text += ')'
        return text


def _duration(seconds: float) -> str:
    seconds = round(seconds)
    days, seconds = divmod(seconds, 86400)
    text = f'{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}'
    return f'{days} d {text}' if days else text
