"""The schedule of dynamic sparsity: when masks are updated, and how many weights move."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from .checks import check_choice, check_count, check_number
from .grow import GROWTHS, MOMENTS

SCHEDULES = ('cosine', 'linear', 'constant')


@dataclass(frozen=True)
class UpdateRule:
    """Settings of the updates: when they happen, how many weights move, and which rule grows them.

    Steps are those of the optimiser, counted from 1. The adaptation rate decays over the whole
    training (paper, appendix G; Liu et al. 2021c):

    - ``cosine``: rate_min + (rate - rate_min) / 2 * (1 + cos(pi * step / total_steps))
    - ``linear``: rate + (rate_min - rate) * step / total_steps
    - ``constant``: rate

    Args:
        every (int): Adaptation frequency: number of steps between two updates.
        rate (float): Adaptation rate at step 0: share of the active weights of a layer that are
            pruned in an update, in [0, 1].
        rate_min (float): Adaptation rate at the end of training, at most ``rate``.
        schedule (str): ``cosine``, ``linear`` or ``constant``.
        grow (str): ``random``, ``gradient`` or ``momentum``, see :mod:`mmslak.sparsity.grow`.
        moments (str): Moments of a grown weight. ``zero``: all are zero. ``layer``: its second
            moment is the mean over the active weights of its layer, see :func:`start_moments_`.
        stop_at (int or float, optional): There are no updates from this step on. A float is a
            share of the training, in (0, 1]. Default: the last step, because weights that grow
            after the last step would never be trained.

    Raises:
        ValueError: Naming the key, the value got and what is allowed.
    """

    every: int = 2000
    rate: float = 0.5
    rate_min: float = 0.005
    schedule: str = 'cosine'
    grow: str = 'random'
    moments: str = 'zero'
    stop_at: int | float | None = None

    def __post_init__(self):
        check_count('update.every', self.every)
        check_number('update.rate', self.rate, 0, 1)
        if self.schedule != 'constant':
            check_number('update.rate_min', self.rate_min, 0, self.rate, f'rate={self.rate}')
        check_choice('update.schedule', self.schedule, SCHEDULES)
        check_choice('update.grow', self.grow, tuple(GROWTHS))
        check_choice('update.moments', self.moments, MOMENTS)
        stop_at = self.stop_at
        if isinstance(stop_at, float) and 0 < stop_at <= 1:
            return
        if stop_at is not None and (not isinstance(stop_at, int) or stop_at < 0):
            raise ValueError(
                f'update.stop_at must be a step (int), a share of the training in (0, 1] (float) '
                f'or None, got {stop_at!r}'
            )

    def rate_at(self, step: int, total_steps: int | None) -> float:
        """Return the adaptation rate at ``step`` of ``total_steps``, in [0, 1]."""
        if self.schedule == 'constant':
            return self.rate
        progress = min(1.0, step / total_steps)
        if self.schedule == 'linear':
            return self.rate + (self.rate_min - self.rate) * progress
        return self.rate_min + (self.rate - self.rate_min) / 2 * (1 + math.cos(math.pi * progress))

    def is_due(self, step: int, total_steps: int | None) -> bool:
        """Return whether the masks are updated after optimiser step ``step``."""
        stop_at = total_steps if self.stop_at is None else self.stop_at
        if isinstance(stop_at, float):
            stop_at = stop_at * total_steps
        return step > 0 and step % self.every == 0 and (stop_at is None or step < stop_at)


def as_rule(update: Mapping | UpdateRule | None) -> UpdateRule:
    """Return the rule with these settings.

    Args:
        update (Mapping or UpdateRule, optional): Arguments of :class:`UpdateRule`, or a rule.
            Default: its default values.

    Raises:
        ValueError: For a key that is not a setting, or a value that is not allowed.
    """
    if isinstance(update, UpdateRule):
        return update
    update = dict(update or {})
    allowed = [field.name for field in fields(UpdateRule)]
    for key in update:
        if key not in allowed:
            raise ValueError(f'update takes {", ".join(allowed)}, got {key!r}')
    return UpdateRule(**update)
