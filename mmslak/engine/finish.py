"""What is done once training has ended: batch norm statistics, final scores, small files."""

import json
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..registry import HOOKS
from .sparsity import DynamicSparsityHook

#: File with the scores, in the work folder.
SCORES = 'final_scores.json'


@HOOKS.register_module()
class FinishTrainingHook(Hook):
    """Finish a pre-training: recompute batch norm statistics, evaluate, write small files.

    The average of the weights (``EMAHook`` with ``update_buffers=True``) never saw a batch: one
    pass over the training data computes its batch norm statistics anew, without which the paper
    saw poor results (section 5.1). Then the raw and the averaged model are evaluated, and each is
    written to the work folder with its masks and without an optimiser, as ``raw.pth`` and
    ``averaged.pth``, for ``init_cfg=dict(type='Pretrained', checkpoint=FILE)`` downstream.

    Args:
        batches (int, optional): Batches of each process for the statistics. Default: all, once.
        evaluate (bool): Run the validation data through both models.

    Raises:
        ValueError: If batches is not positive, or the average leaves out the buffers.
    """

    # After the sparsity's hook.
    priority = 'VERY_LOW'

    def __init__(self, batches: int | None = None, evaluate: bool = True):
        if batches is not None and batches < 1:
            raise ValueError(f'batches must be positive or None for all, got {batches!r}')
        self.batches, self.evaluate = batches, evaluate

    def before_train(self, runner) -> None:
        """Refuse an average that could not have statistics of its own."""
        for hook in runner.hooks:
            if isinstance(hook, EMAHook) and not hook.ema_model.update_buffers:
                raise ValueError(
                    'FinishTrainingHook needs EMAHook(update_buffers=True): without, the averaged '
                    "model has the raw model's batch norm statistics and cannot get its own"
                )

    def after_train(self, runner) -> None:
        """Recompute, evaluate, write."""
        averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        variants = {'raw': None, **({'averaged': averages[0]} if averages else {})}
        rows = {}
        for name, average in variants.items():
            with _swapped(average):
                if average is not None:
                    used = recompute_statistics(model, runner.train_dataloader, self.batches)
                    if used:
                        runner.logger.info(
                            f'Batch norm statistics of the averaged model: {used} batches a process'
                        )
                scores = self._scores(runner, model) if self.evaluate else {}
                rows[name] = dict(scores, file=self._export(runner, model, name))
        # The full checkpoint, to resume or test from, holds the new statistics too.
        runner.save_checkpoint(
            runner.work_dir, 'final.pth', save_optimizer=False, save_param_scheduler=False
        )
        if is_main_process():
            (Path(runner.work_dir) / SCORES).write_text(json.dumps(rows, indent=2) + '\n')
            runner.logger.info('Scores at the end:\n' + _table(rows))

    @staticmethod
    def _scores(runner, model: nn.Module) -> dict[str, float]:
        loop = runner.val_loop
        if loop is None:
            return {}
        model.eval()
        for index, batch in enumerate(loop.dataloader):
            loop.run_iter(index, batch)
        scores = loop.evaluator.evaluate(len(loop.dataloader.dataset))
        return {name: float(score) for name, score in scores.items()}

    @staticmethod
    def _export(runner, model: nn.Module, name: str) -> str:
        path = Path(runner.work_dir) / f'{name}.pth'
        note = dict(weights=name, epoch=runner.epoch, config=Path(runner.cfg.filename or '').name)
        checkpoint = dict(
            meta=dict(training=note),
            state_dict={key: value.detach().cpu() for key, value in model.state_dict().items()},
        )
        for hook in runner.hooks:
            if isinstance(hook, DynamicSparsityHook):
                hook.before_save_checkpoint(runner, checkpoint)
        if is_main_process():
            torch.save(checkpoint, path)
        return str(path)


@contextmanager
def _swapped(average: EMAHook | None):
    """Have the model hold the averaged weights, and the average the model's."""
    if average is not None:
        average._swap_ema_parameters()
    try:
        yield
    finally:
        if average is not None:
            average._swap_ema_parameters()


@torch.no_grad()
def recompute_statistics(model: nn.Module, loader: Iterable, batches: int | None = None) -> int:
    """Compute the running statistics of all batch norms anew, weights held fixed.

    Each becomes the plain average over batches of the batch's mean and variance, over all
    processes. Everything but the batch norms is in evaluation mode: no drop path, no Mixup.

    Args:
        model (nn.Module): With a ``data_preprocessor``, as MMEngine's models have.
        loader (Iterable): Training data.
        batches (int, optional): Stop after as many. Default: one pass.

    Returns:
        int: Batches used by this process; 0 where there is no batch norm.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return 0
    training, momenta = model.training, [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        # A cumulative average instead of an exponential one.
        norm.momentum = None
        norm.train()
    used = 0
    try:
        for data in loader:
            model(**model.data_preprocessor(data, False), mode='tensor')
            used += 1
            if used == batches:
                break
    finally:
        model.train(training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    for norm in norms:
        all_reduce(norm.running_mean, 'mean')
        all_reduce(norm.running_var, 'mean')
    return used


def _table(rows: dict[str, dict]) -> str:
    table = Table('model', box=SIMPLE)
    columns = [key for key in next(iter(rows.values())) if key != 'file']
    for column in columns:
        table.add_column(column, justify='right')
    table.add_column('weights and masks')
    for name, row in rows.items():
        table.add_row(name, *(f'{row[key]:.2f}' for key in columns), row['file'])
    console = Console(width=140, no_color=True)
    with console.capture() as capture:
        console.print(table)
    return '\n'.join(line.rstrip() for line in capture.get().split('\n') if line.strip())
