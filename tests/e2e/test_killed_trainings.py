"""Trainings that are killed at any moment and resumed equal uninterrupted ones bit for bit."""

import random
import signal

import pytest
from helpers import ROOT, run_tool
from states import assert_same_state

from mmslak.checkpoints import has_checkpoint

#: For each toolbox: config, last checkpoint, number of kills, and changes to the config.
TRAININGS = {
    'mmseg': (
        'upernet_slak_nano_ade20k',
        'iter_16.pth',
        7,
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
        7,
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
        6,
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


@pytest.mark.slow
@pytest.mark.parametrize('toolbox', TRAININGS)
def test_killed_trainings_continue_exactly(tmp_path, sample_data, monkeypatch, toolbox):
    pytest.importorskip(toolbox)
    name, last, kills, changes = TRAININGS[toolbox]
    config = tmp_path / 'c.py'
    if 'train_dataloader' not in changes:
        changes += 'train_dataloader = dict()'
    text = COMMON + changes + LOADERS
    config.write_text(text.format(root=ROOT, name=name, data=sample_data(32, 96)))

    def train(directory, kill_at=0):
        monkeypatch.setenv('KILL_AT', str(kill_at))
        work_dir = tmp_path / directory
        resume = ['--resume'] if has_checkpoint(work_dir) else []
        expect = -signal.SIGKILL if kill_at else 0
        run_tool('tools/train.py', config, '--work-dir', work_dir, *resume, expect=expect)

    train('whole')
    generator = random.Random(toolbox)
    for _ in range(kills):
        train('killed', generator.randint(1, 20))
    train('killed')
    for path in (tmp_path / 'whole').glob('*.pth'):
        if path.name in (last, 'averaged.pth', 'raw.pth'):
            assert_same_state(path, tmp_path / 'killed' / path.name)
