"""Saving a checkpoint when a training is told to stop."""

import os
import signal
import threading

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import CheckpointHook, Hook

from ...registry import HOOKS

#: Sent by ``kill`` and cluster schedulers, by Ctrl-C, and by Slurm's ``--signal=USR1@SECONDS``.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@HOOKS.register_module()
class StopSignalHook(Hook):
    """Save a checkpoint and stop after SIGTERM, SIGINT (Ctrl-C) or SIGUSR1.

    The current iteration is finished first. A loop over iterations then saves a checkpoint, from
    which ``--resume`` continues exactly. A loop over epochs can only resume at the beginning of an
    epoch, so that it keeps the last checkpoint. A second signal stops at once.

    Args:
        interval (int): Iterations after which several processes tell each other about a signal.
    """

    # After all other hooks of an iteration, so that its state is complete.
    priority = 'LOWEST'

    def __init__(self, interval: int = 10):
        self.interval = interval
        self._received = 0
        self._previous: dict = {}

    def before_train(self, runner) -> None:
        """Install the handlers of the signals."""
        self._received, self._process = 0, os.getpid()
        # Python allows this in the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._remember) for number in SIGNALS}

    def _remember(self, number: int, frame) -> None:
        worker = os.getpid() != self._process
        if worker and number == signal.SIGTERM:
            # PyTorch ends the processes that load data in this way.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self._received and not worker:
            self._restore()
            os.kill(os.getpid(), number)
        self._received = number

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Save and stop if a process has received a signal.

        Raises:
            SystemExit: With the exit code of a process that was ended by this signal.
        """
        if get_world_size() > 1:
            if not self.every_n_train_iters(runner, self.interval):
                return
            received = torch.tensor(self._received, device=get_device())
            all_reduce(received, 'max')
            self._received = int(received)
        if self._received:
            self._stop(runner, f'after iteration {runner.iter + 1}', save=True)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Stop a validation during the training at once, without saving.

        The weights may be averaged ones at this point.

        Raises:
            SystemExit: As :meth:`after_train_iter`.
        """
        if self._received and get_world_size() == 1:
            self._stop(runner, 'in the validation', save=False)

    def after_train(self, runner) -> None:
        """Restore the handlers of the signals."""
        self._restore()

    def _stop(self, runner, when: str, save: bool) -> None:
        self._restore()
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        if save and hooks and not hooks[0].by_epoch:
            hooks[0]._save_checkpoint(runner)
        last = hooks[0].last_ckpt if hooks else None
        kept = f'the last checkpoint is {last}' if last else 'there is no checkpoint yet'
        advice = '; to continue, add --resume to the same command' if last else ''
        name = signal.Signals(self._received).name
        runner.logger.warning(f'Stopped {when} by {name}: {kept}{advice}')
        raise SystemExit(128 + self._received)
