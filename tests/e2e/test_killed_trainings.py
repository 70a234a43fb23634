"""Trainings that are killed at any moment and resumed equal uninterrupted ones bit for bit."""

import functools
import random
import signal

import pytest
from helpers import ROOT, run_tool
from states import assert_same_state

from mmslak.checkpoints import has_checkpoint

#: For each toolbox: config, last checkpoint, and changes to the config.
TRAININGS = {
    'mmseg': (
        'upernet_slak_nano_ade20k',
        'iter_16.pth',
        """
batch_size, workers = 2, dict(num_workers=0, persistent_workers=False)
data_root = '{data}/ADEChallengeData2016'
model = dict(decode_head=dict(channels=16))
param_scheduler = [dict(_base_.param_scheduler[0], end=4), dict(_base_.param_scheduler[1], end=16)]
train_cfg = dict(max_iters=16, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=2), sparsity=dict(update=dict(every=3)))
""",
    ),
    'mmpretrain': (
        'slak_nano_in1k',
        'epoch_6.pth',
        """
batch_size, workers = 8, dict(num_workers=2, persistent_workers=True)
data_root = '{data}/imagenet'
model = dict(backbone=dict(drop_path_rate=0.1))
param_scheduler = [
    dict(_base_.param_scheduler[0], end=1), dict(_base_.param_scheduler[1], begin=1, end=6)]
train_cfg = dict(max_epochs=6, val_interval=2)
default_hooks = dict(
    checkpoint=dict(interval=1, save_best='auto'), sparsity=dict(update=dict(every=4)))
""",
    ),
    'mmdet': (
        'faster_rcnn_slak_nano_voc',
        'iter_18.pth',
        """
batch_size, workers = 2, dict(num_workers=1, persistent_workers=False)
data_root = '{data}/VOCdevkit/'
param_scheduler = [dict(_base_.param_scheduler[0], end=4), dict(_base_.param_scheduler[1], end=3)]
train_cfg = dict(max_epochs=3, val_interval=1)
train_dataloader = dict(num_batch_per_epoch=6)
# In the middle of an epoch too, and between two steps of the optimiser.
optim_wrapper = dict(accumulative_counts=2)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=3), sparsity=dict(update=dict(every=2)))
""",
    ),
}
COMMON = """
_base_ = '{root}/configs/sample/{name}.py'
custom_imports = dict(
    imports=[*_base_.custom_imports['imports'], 'killing'], allow_failed_imports=False)
custom_hooks = [dict(type='Kill')]
"""
LOADERS = """
train_dataloader = dict(
    train_dataloader, batch_size=batch_size, dataset=dict(data_root=data_root), **workers)
val_dataloader = dict(dataset=dict(data_root=data_root), **workers)
default_hooks['logger'] = dict(interval=1)
"""


@pytest.fixture(scope='module')
def training(tmp_path_factory, sample_data):
    """Return a function that trains until the end or until an event, and returns the directory."""
    root = tmp_path_factory.mktemp('trainings')

    def train(toolbox, directory, kill_at=0):
        name, _, changes = TRAININGS[toolbox]
        config, work_dir = root / f'{toolbox}.py', root / toolbox / directory
        if 'train_dataloader' not in changes:
            changes += 'train_dataloader = dict()'
        text = COMMON + changes + LOADERS
        config.write_text(text.format(root=ROOT, name=name, data=sample_data(32, 96)))
        resume = ['--resume'] if has_checkpoint(work_dir) else []
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv('KILL_AT', str(kill_at))
            run_tool(
                'tools/train.py', config, '--work-dir', work_dir, *resume,
                expect=-signal.SIGKILL if kill_at else 0,
            )  # fmt: skip
        return work_dir

    return train


@pytest.fixture(scope='module')
def uninterrupted(training):
    """Return a function that trains without interruption, once, and returns the directory."""
    return functools.cache(lambda toolbox: training(toolbox, 'whole'))


@pytest.mark.slow
@pytest.mark.parametrize('kills', [4, 3])
@pytest.mark.parametrize('toolbox', TRAININGS)
def test_killed_trainings_continue_exactly(training, uninterrupted, toolbox, kills):
    pytest.importorskip(toolbox)
    whole = uninterrupted(toolbox)
    generator = random.Random(f'{toolbox} {kills}')
    for _ in range(kills):
        training(toolbox, f'killed_{kills}', generator.randint(1, 20))
    killed = training(toolbox, f'killed_{kills}')
    last = TRAININGS[toolbox][1]
    assert (whole / last).is_file()
    for path in whole.glob('*.pth'):
        if path.name in (last, 'averaged.pth', 'raw.pth'):
            assert_same_state(path, killed / path.name)
