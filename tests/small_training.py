"""A training of a small network by the runner, with the default hooks of tools/train.py."""

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS
from torch import nn

import mmslak  # noqa: F401
from mmslak.cli.config import prepare
from mmslak.engine.runner import Runner


@MODELS.register_module(force=True)
class SmallNetwork(BaseModel):
    """A convolution, a batch norm and a classifier."""

    def __init__(self, hidden=8, dropout=0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.stem = nn.Conv2d(3, hidden, 3)
        self.norm = nn.BatchNorm2d(hidden)
        self.head = nn.Linear(hidden, 4)

    def forward(self, inputs, labels, mode='tensor'):
        features = self.norm(self.stem(inputs)).relu().mean((2, 3))
        scores = self.head(self.dropout(features))
        return dict(loss=nn.functional.cross_entropy(scores, labels)) if mode == 'loss' else scores


@DATASETS.register_module(force=True)
class SmallImages(torch.utils.data.Dataset):
    """Random images. The one at ``bad`` contains ``value`` in one pixel."""

    def __init__(self, bad=None, value=float('nan'), images=32, size=8):
        self.bad, self.value, self.images, self.size = bad, value, images, size

    def __len__(self):
        return self.images

    def __getitem__(self, index):
        image = torch.randn(3, self.size, self.size, generator=torch.Generator().manual_seed(index))
        if index == self.bad:
            image[0, 4, 4] = self.value
        return dict(inputs=image, labels=index % 4)


@HOOKS.register_module(force=True)
class Call(Hook):
    """Call a function after an iteration."""

    priority = 'VERY_HIGH'

    def __init__(self, at, function):
        self.at, self.function = at, function

    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.at:
            self.function(runner)


def small_runner(
    work_dir,
    iters=8,
    by_epoch=False,
    dataset=None,
    optim=None,
    hooks=(),
    custom=(),
    launcher='none',
    **options,
):
    """Build the runner of a training with batches of 2 images in the order of the data set.

    Args:
        work_dir (Path): Work directory.
        iters (int): Iterations, or epochs.
        by_epoch (bool): Count epochs.
        dataset (dict, optional): Arguments of :class:`SmallImages`.
        optim (dict, optional): Settings of the optimiser wrapper.
        hooks (dict): Default hooks, merged into those of the training.
        custom (Sequence): Further hooks.
        launcher (str): ``pytorch`` for several processes.
        **options: Further keys of the config.
    """
    checkpoint = dict(type='CheckpointHook', interval=1 if by_epoch else 2, by_epoch=by_epoch)
    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(type='SmallImages', **(dataset or {})),
        sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    cfg = Config(
        dict(
            dict(
                model=dict(type='SmallNetwork'),
                work_dir=str(work_dir),
                train_dataloader=loader,
                train_cfg=dict(
                    by_epoch=by_epoch, **{'max_epochs' if by_epoch else 'max_iters': iters}
                ),
                optim_wrapper=dict(dict(optimizer=dict(type='AdamW', lr=1e-2)), **(optim or {})),
                default_hooks=dict(dict(checkpoint=checkpoint), **dict(hooks)),
                log_processor=dict(by_epoch=by_epoch),
                log_level='ERROR',
                randomness=dict(seed=1),
                default_scope='mmengine',
                experiment_name=str(work_dir),
            ),
            **options,
        )
    )
    prepare(cfg, launcher)
    runner = Runner.from_cfg(cfg)
    for hook in custom:
        runner.register_hook(hook)
    return runner


def hook_named(runner, name):
    """Return the hook of ``runner`` whose class has this name."""
    return next(hook for hook in runner.hooks if type(hook).__name__ == name)
