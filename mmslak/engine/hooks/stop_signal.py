"""Saving a checkpoint when a training is told to stop."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.util import Finalize

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import CheckpointHook, Hook

from ...registry import HOOKS

#: Sent by ``kill`` and cluster schedulers, by Ctrl-C, and by Slurm's ``--signal=USR1@SECONDS``.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

#: Name of the checkpoint of a loop over epochs that was stopped in an epoch.
STOPPED = 'stopped.pth'


class _Forks:
    """Handlers of the signals in processes that a training forks, such as those that load data.

    Python runs a handler only between its own instructions. A process that waits for a lock when
    SIGTERM arrives would therefore wait for ever, and with it the pool of processes that ends it.
    SIGTERM has to end it at once. The other signals also reach it if they are sent to the whole
    group, and it ignores them, because the training finishes its iteration.
    """

    def __init__(self):
        self._handled: list[int] = []
        self._mask: set = set()

    def before(self) -> None:
        """Hold back the signals until the new process has its own handlers."""
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        self._handled = [
            number
            for number, handler in handlers.items()
            if isinstance(getattr(handler, '__self__', None), StopSignalHook)
        ]
        if self._handled:
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def in_parent(self) -> None:
        """Let the signals through again."""
        if self._handled:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def in_child(self) -> None:
        """Set the handlers and let the signals through."""
        if self._handled:
            for number in self._handled:
                ending = number == signal.SIGTERM
                signal.signal(number, signal.SIG_DFL if ending else signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _kill_children() -> None:
    children = [child for child in multiprocessing.active_children() if child.daemon]
    if children:
        # PyTorch's handler would raise an error.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in children:
        child.kill()


class ShieldedWorker:
    """Start of a process that loads data, which SIGTERM does not end.

    Schedulers send SIGTERM to all processes of a training. PyTorch raises an error in the middle of
    an iteration if one that loads data ends.

    Args:
        init (Callable, optional): The ``worker_init_fn`` of the data loader.
    """

    def __init__(self, init: Callable[[int], None] | None):
        self.init = init
        # At its end, multiprocessing sends SIGTERM to such processes and waits for them for ever.
        Finalize(None, _kill_children, exitpriority=0)

    def __call__(self, worker_id: int) -> None:
        """Hold back SIGTERM, and call ``init``."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        if self.init is not None:
            self.init(worker_id)


@HOOKS.register_module()
class StopSignalHook(Hook):
    """Save a checkpoint and stop after SIGTERM, SIGINT (Ctrl-C) or SIGUSR1.

    The current iteration is finished first. Then a checkpoint is saved, from which ``--resume``
    continues exactly. If checkpoints are counted by epochs, it is ``stopped.pth``. A second signal
    stops at once.

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
        self._received = 0
        # Python allows this in the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._remember) for number in SIGNALS}

    def _remember(self, number: int, frame) -> None:
        if self._received:
            self.release()
            os.kill(os.getpid(), number)
        self._received = number

    def release(self) -> None:
        """Restore the handlers of the signals, also after a training that failed."""
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
        self.release()

    def _stop(self, runner, when: str, save: bool) -> None:
        self.release()
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        if save and hooks:
            if hooks[0].by_epoch:
                # The epoch is not finished. A fixed name, so that such files do not accumulate.
                hooks[0].by_epoch, hooks[0].filename_tmpl = False, STOPPED
                hooks[0].max_keep_ckpts = -1
            hooks[0]._save_checkpoint(runner)
        last = hooks[0].last_ckpt if hooks else None
        kept = f'the last checkpoint is {last}' if last else 'there is no checkpoint yet'
        advice = '; to continue, add --resume to the same command' if last else ''
        name = signal.Signals(self._received).name
        runner.logger.warning(f'Stopped {when} by {name}: {kept}{advice}')
        raise SystemExit(128 + self._received)


_FORKS = _Forks()
os.register_at_fork(
    before=_FORKS.before,
    after_in_parent=_FORKS.in_parent,
    after_in_child=_FORKS.in_child,
)
