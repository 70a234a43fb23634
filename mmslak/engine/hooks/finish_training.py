"""The end of pre-training: batch norm statistics, final scores and small checkpoints."""

import json
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import save_checkpoint
from rich.box import SIMPLE
from rich.table import Table
from torch import nn

from ...console import table_text
from ...registry import HOOKS
from .dynamic_sparsity import DynamicSparsityHook
from .plain_checkpoint import to_plain
from .precise_bn import recompute_statistics

#: File with the scores, in the work directory.
SCORES = 'final_scores.json'


@HOOKS.register_module()
class FinishTrainingHook(Hook):
    """Finish pre-training: recompute batch norm statistics, evaluate, write small checkpoints.

    The averaged model (``EMAHook`` with ``update_buffers=True``) has averages of batch norm
    statistics, which do not fit its weights. One pass over the training data recomputes them;
    without it the paper reports poor results (section 5.1). Then the raw and the averaged model
    are evaluated. Each is written to the work directory with its masks and class names, without
    the optimiser, as ``raw.pth`` and ``averaged.pth``, for
    ``init_cfg=dict(type='Pretrained', checkpoint=FILE)`` downstream.

    Args:
        batches (int, optional): Number of batches of each process for the statistics. Default: one
            pass over the data.
        evaluate (bool): Evaluate both models on the validation data.

    Raises:
        ValueError: If ``batches`` is not positive, or the average does not include the buffers.
    """

    # After DynamicSparsityHook.
    priority = 'VERY_LOW'

    def __init__(self, batches: int | None = None, evaluate: bool = True):
        if batches is not None and batches < 1:
            raise ValueError(f'batches must be positive, or None for one pass, got {batches!r}')
        self.batches, self.evaluate = batches, evaluate

    def before_train(self, runner) -> None:
        """Refuse an average without buffers: it has no batch norm statistics of its own."""
        for hook in runner.hooks:
            if isinstance(hook, EMAHook) and not hook.ema_model.update_buffers:
                raise ValueError(
                    'EMAHook.update_buffers must be True for FinishTrainingHook, got False: the '
                    'averaged model needs batch norm statistics of its own'
                )

    def after_train(self, runner) -> None:
        """Recompute the statistics, evaluate both models, and write the checkpoints."""
        averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        variants = {'raw': None, **({'averaged': averages[0]} if averages else {})}
        rows = {}
        for name, average in variants.items():
            with _swapped(average):
                if average is not None:
                    # Some samplers, such as InfiniteSampler, do not end after one pass.
                    batches = self.batches or len(runner.train_dataloader)
                    used = recompute_statistics(model, runner.train_dataloader, batches)
                    if used:
                        runner.logger.info(
                            f'Batch norm statistics of the averaged model: {used} batches of each '
                            'process'
                        )
                scores = self._scores(runner, model) if self.evaluate else {}
                rows[name] = dict(scores, file=self._export(runner, model, name))
        # The full checkpoint contains the recomputed statistics too.
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
        meta = dict(training=note)
        if metainfo := getattr(runner.train_dataloader.dataset, 'metainfo', None):
            # The inferencers of the toolboxes read the class names from here.
            meta['dataset_meta'] = to_plain(metainfo, 'meta.dataset_meta')
        checkpoint = dict(
            meta=meta,
            state_dict={key: value.detach().cpu() for key, value in model.state_dict().items()},
        )
        for hook in runner.hooks:
            if isinstance(hook, DynamicSparsityHook):
                hook.before_save_checkpoint(runner, checkpoint)
        if is_main_process():
            save_checkpoint(checkpoint, str(path))
        return str(path)


@contextmanager
def _swapped(average: EMAHook | None):
    """Swap the weights of the model and of its average inside the context."""
    if average is not None:
        average._swap_ema_parameters()
    try:
        yield
    finally:
        if average is not None:
            average._swap_ema_parameters()


def _table(rows: dict[str, dict]) -> str:
    table = Table('model', box=SIMPLE)
    columns = [key for key in next(iter(rows.values())) if key != 'file']
    for column in columns:
        table.add_column(column, justify='right')
    table.add_column('weights and masks')
    for name, row in rows.items():
        table.add_row(name, *(f'{row[key]:.2f}' for key in columns), row['file'])
    return table_text(table, width=140)
