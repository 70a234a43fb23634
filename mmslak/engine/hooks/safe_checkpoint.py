"""Checkpoints that survive a full disk."""

import copy
import math
import shutil
import time
from collections.abc import Callable

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.model import is_model_wrapper
from torch import nn
from torch.optim import Optimizer

from ...registry import HOOKS


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` that loses neither a checkpoint nor a training on a full disk.

    MMEngine removes old checkpoints before it writes a new one. This hook removes them afterwards.
    Before the training it compares the free space with the size of the checkpoints. If a checkpoint
    cannot be written, an error is logged, the previous one is kept, and the training continues
    until the next checkpoint. At the end the hook waits for free space.

    Args:
        patience (float): Seconds to wait for free space at the end of the training.
        **kwargs: Arguments of MMEngine's ``CheckpointHook``.
    """

    def __init__(self, *args, patience: float = 300.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.patience, self.pause = patience, 5.0
        self._problem: str | None = None
        self._unsaved: tuple | None = None

    def before_train(self, runner) -> None:
        """Compare the free space with the size of the checkpoints.

        Raises:
            ValueError: If there is no space for one checkpoint.
        """
        super().before_train(runner)
        loop = runner.train_loop
        end = loop.max_epochs if self.by_epoch else loop.max_iters
        count = math.ceil(end / self.interval) if self.interval > 0 else int(self.save_last)
        if '://' in str(self.out_dir) or not (count or self.save_best) or not is_main_process():
            return
        if self.max_keep_ckpts > 0:
            # Together with the one that is written before the oldest one is removed.
            count = min(count, self.max_keep_ckpts + 1)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        averaged = any(isinstance(hook, EMAHook) for hook in runner.hooks)
        optimizer = runner.optim_wrapper.optimizer if self.save_optimizer else None
        size = checkpoint_size(model, optimizer, averaged)
        free = shutil.disk_usage(self.out_dir).free
        if free < size:
            raise ValueError(
                f'work_dir {self.out_dir} has {_mb(free)} of free space, but a checkpoint of this '
                f'training needs about {_mb(size)}; free some space or choose another --work-dir'
            )
        if free < count * size:
            runner.logger.warning(
                f'{self.out_dir} has {_mb(free)} of free space, but the {count} checkpoints of '
                f'this training need about {_mb(count * size)}; free some space, or keep fewer '
                'with default_hooks.checkpoint.max_keep_ckpts'
            )

    def after_train(self, runner) -> None:
        """Wait for free space if the last checkpoint is not written.

        Raises:
            OSError: If it cannot be written within ``patience`` seconds.
        """
        end = time.monotonic() + self.patience
        while self._unsaved and time.monotonic() < end:
            time.sleep(self.pause)
            self._save_checkpoint_with_step(runner, *self._unsaved)
        if self._unsaved:
            raise OSError(self._problem)
        super().after_train(runner)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        saved = self._try(runner, super()._save_checkpoint_with_step, step, dict(meta))
        self._unsaved = None if saved else (step, meta)

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        self._try(runner, super()._save_best_checkpoint, metrics)

    def _try(self, runner, save: Callable, *args) -> bool:
        """Save, then remove old files. If saving fails, restore the state from before."""
        files, info = self.file_backend, dict(runner.message_hub.runtime_info)
        if isinstance(files, _Later):
            # The best checkpoint is saved, and then the last one again to record its name.
            save(runner, *args)
            return True
        state = self._names()
        self.file_backend = _Later(files)
        try:
            save(runner, *args)
        except BaseException as error:
            wanted = self.last_ckpt
            self._restore(state)
            runner.message_hub.runtime_info.clear()
            runner.message_hub.runtime_info.update(info)
            if not isinstance(error, OSError):
                raise
            self._report(runner, wanted, error)
            return False
        finally:
            later, self.file_backend = self.file_backend, files
        new = {self.last_ckpt, getattr(self, 'best_ckpt_path', None)}
        new.update(getattr(self, 'best_ckpt_path_dict', {}).values())
        for remove, path in later.removals:
            if path not in new:
                remove(path)
        return True

    def _names(self) -> dict:
        """Copy what this hook knows about the written files."""
        names = ('last_ckpt', 'keep_ckpt_ids', 'best_ckpt_path', 'best_ckpt_path_dict')
        return {name: copy.copy(getattr(self, name)) for name in names if hasattr(self, name)}

    def _restore(self, state: dict) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def _report(self, runner, path: str, error: OSError) -> None:
        local = '://' not in str(self.out_dir)
        free = f', {_mb(shutil.disk_usage(self.out_dir).free)} free' if local else ''
        kept = f'the last checkpoint is {self.last_ckpt}' if self.last_ckpt else 'there is none yet'
        self._problem = f'checkpoint {path} cannot be written: {error.strerror or error}{free}'
        runner.logger.error(
            f'{self._problem}; {kept}. The training continues and tries again at the next '
            'checkpoint; free some space'
        )


class _Later:
    """File backend that only records what to remove."""

    def __init__(self, backend):
        self._backend = backend
        self.removals: list[tuple[Callable, str]] = []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.removals.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.removals.append((self._backend.rmtree, path))


def checkpoint_size(model: nn.Module, optimizer: Optimizer | None, averaged: bool) -> int:
    """Estimate the size of a checkpoint.

    Args:
        model (nn.Module): The network.
        optimizer (Optimizer, optional): If its state is saved too.
        averaged (bool): Whether the checkpoint contains averaged weights too.

    Returns:
        int: Bytes: all weights and buffers, and for each trained weight two moments of Adam and
        similar optimisers, or one momentum.
    """
    weights = sum(value.nbytes for value in model.state_dict().values())
    moments = 0
    for group in optimizer.param_groups if optimizer is not None else []:
        copies = 2 if 'betas' in group else int(bool(group.get('momentum')))
        moments += copies * sum(parameter.nbytes for parameter in group['params'])
    return weights * (2 if averaged else 1) + moments


def _mb(size: float) -> str:
    return f'{size / 1e6:,.1f} MB'
