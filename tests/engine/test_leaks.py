"""A long training needs as much memory, files and processes at its end as at its start."""

import gc
import os
from pathlib import Path

import pytest
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import METRICS
from small_training import small_runner

#: The allocator keeps up to 11 MB more after 1,900 iterations. Their batches have 47 MB.
MEMORY_MB = 16.0


@METRICS.register_module(force=True)
class GrowingScore(BaseMetric):
    """A score that improves in every validation, so that a best checkpoint is written."""

    count = 0

    def process(self, data_batch, data_samples):
        self.results += [sample.sum().item() for sample in data_samples]

    def compute_metrics(self, results):
        self.count += 1
        return dict(score=float(self.count))


class Resources(Hook):
    """Record memory in MB, open files and the child processes that are new."""

    priority = 'LOWEST'

    def __init__(self, at):
        self.at, self.seen = at, {}
        # Loaders of other tests may still have processes.
        self.older = child_processes()

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 in self.at:
            gc.collect()
            children = child_processes() - self.older
            self.seen[runner.iter + 1] = dict(
                memory=sum(memory(process) for process in ('self', *children)),
                files=open_files(),
                processes=sorted(children),
            )


def child_processes():
    """Return the numbers of the child processes."""
    return set(Path(f'/proc/self/task/{os.getpid()}/children').read_text().split())


def memory(process):
    """Return the memory that a process has written and does not share, in MB.

    Pages of libraries are not counted: they are shared only as long as other processes use them.
    """
    lines = Path(f'/proc/{process}/smaps_rollup').read_text().splitlines()
    private = [line.split()[1] for line in lines if line.startswith('Private_Dirty')]
    return sum(map(int, private)) / 1e3


def open_files():
    """Return the targets of the open file descriptors, without that of the listing itself."""
    folder = Path('/proc/self/fd')
    return sorted(os.readlink(path) for path in list(folder.iterdir()) if path.is_symlink())


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 1])
def test_2000_iterations_leave_nothing_behind(tmp_path, workers):
    pytest.importorskip('tensorboard')
    if not Path('/proc/self/smaps_rollup').exists():
        pytest.skip('needs the /proc of Linux')

    def loader(images, sampler):
        return dict(
            batch_size=2, num_workers=workers, persistent_workers=workers > 0,
            dataset=dict(type='SmallImages', images=images, size=32), sampler=sampler,
            collate_fn=dict(type='default_collate'),
        )  # fmt: skip

    resources = Resources(at=(100, 2000))
    runner = small_runner(
        tmp_path,
        train_dataloader=loader(4000, dict(type='InfiniteSampler', shuffle=True)),
        val_dataloader=loader(4, dict(type='DefaultSampler', shuffle=False)),
        val_cfg=dict(),
        val_evaluator=dict(type='GrowingScore'),
        train_cfg=dict(by_epoch=False, max_iters=2000, val_interval=50),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, end=2000, by_epoch=False)],
        visualizer=dict(
            type='Visualizer',
            vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
        ),
        hooks=dict(
            logger=dict(type='LoggerHook', interval=10),
            checkpoint=dict(
                type='CheckpointHook', interval=50, by_epoch=False, max_keep_ckpts=1,
                save_best='score', rule='greater',
            ),
            ema=dict(type='EMAHook', update_buffers=True),
            sparsity=dict(
                type='mmslak.DynamicSparsityHook', allocation='erk', sparsity=0.5,
                targets=dict(include=['*']), update=dict(every=20, rate=0.4),
            ),
        ),
        custom=[resources],
    )  # fmt: skip
    runner.train()
    first, last = resources.seen[100], resources.seen[2000]
    assert last['processes'] == first['processes'] and len(first['processes']) == 2 * workers
    assert len(last['files']) == len(first['files']), (first['files'], last['files'])
    assert last['memory'] - first['memory'] < MEMORY_MB
