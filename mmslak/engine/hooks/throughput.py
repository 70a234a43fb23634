"""Throughput of training, and its bottleneck."""

import time

from mmengine.dist import get_world_size
from mmengine.hooks import Hook

from ...registry import HOOKS

#: If waiting for data takes a larger share of the time than this, data is the bottleneck. With
#: enough worker processes there is almost no waiting. Without workers, loading and computing
#: alternate, so some waiting is normal.
WAIT_WITH_WORKERS, WAIT_WITHOUT = 0.2, 0.5


def bottleneck(waiting: float, computing: float, workers: int) -> str:
    """Return the bottleneck of a training step.

    Args:
        waiting (float): Seconds of waiting for a batch.
        computing (float): Seconds of computing with it.
        workers (int): Number of worker processes that load data.

    Returns:
        str: ``data`` or ``compute``.
    """
    limit = WAIT_WITH_WORKERS if workers else WAIT_WITHOUT
    return 'data' if waiting > limit * (waiting + computing) else 'compute'


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Log images per second, time per epoch, time left, and the bottleneck.

    The first line is logged after ``first`` iterations, the next ones every ``seconds``.

    Args:
        first (int): Iterations before the first line.
        warm_up (int): Iterations at the start that are not counted because caches are empty.
        seconds (float): Smallest time between two lines, in seconds.
    """

    # After all other hooks of an iteration.
    priority = 'LOWEST'

    def __init__(self, first: int = 30, warm_up: int = 5, seconds: float = 600.0):
        self.first, self.warm_up, self.seconds = first, warm_up, seconds
        self._seen, self._shown = 0, False

    def before_train_epoch(self, runner) -> None:
        """Start measuring the wait for the first batch."""
        self._ready = time.perf_counter()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Stop measuring the wait for a batch."""
        self._given = time.perf_counter()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Count an iteration, and log a line if it is due."""
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

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Exclude a validation during the training from the wait for the next batch."""
        self._ready = time.perf_counter()

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
