"""Segmentation from end to end, by the command lines."""

import json
import os
import re
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run_tool
from PIL import Image

pytest.importorskip('mmseg')

CONFIG = 'configs/sample/upernet_slak_nano_ade20k.py'
SMALL = [
    'train_cfg.val_interval=2',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=1',
    'train_dataloader.batch_size=2',
    'model.decode_head.channels=16',
    'default_hooks.sparsity.update.every=1',
    *(
        f'{split}_dataloader.{setting}'
        for split in ('train', 'val', 'test')
        for setting in ('num_workers=0', 'persistent_workers=False')
    ),
]


@pytest.fixture(scope='module')
def data(sample_data):
    """Return the option for small sample data."""
    return f'data_root={sample_data(20, 96)}/ADEChallengeData2016'


def train(work_dir, data, iters, *arguments, options=(), **kwargs):
    """Train for a few iterations, and return what is printed."""
    length = [f'train_cfg.max_iters={iters}', 'param_scheduler.1.end=8']
    options = [data, *SMALL, *length, *options]
    return run_tool(
        'tools/train.py', CONFIG, '--work-dir', work_dir, *arguments, options=options, **kwargs
    )


def losses(text):
    """Return the losses that training printed."""
    return [float(v) for v in re.findall(r'Iter\(train\).* loss: (\d+\.\d+)', text)]


def rates(text):
    """Return the iterations and learning rates that training printed."""
    return re.findall(r'Iter\(train\) \[\s*(\d+)/.*?lr: (\S+)', text)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, data):
    """Train for four iterations, and return the work directory and what is printed."""
    work_dir = tmp_path_factory.mktemp('train')
    return work_dir, train(work_dir, data, 4)


def test_terminal_shows_a_summary_of_training(trained):
    work_dir, text = trained
    assert len(losses(text)) == 4 and np.isfinite(losses(text)).all()
    for words in ('eta: ', 'Learning rates, stage_wise', 'best_mIoU_iter_', 'All files are in'):
        assert words in text
    for noise in ('System environment', 'Config:', 'Hooks will be', 'Traceback'):
        assert noise not in text
    log = next(work_dir.glob('*/*.log')).read_text()
    assert 'System environment' in log and 'Config:' in log
    assert list(work_dir.glob('*/vis_data/events.out.tfevents.*'))


def test_checkpoints_load_safely(trained):
    checkpoint = torch.load(trained[0] / 'iter_4.pth', weights_only=True)
    assert checkpoint['meta']['iter'] == 4
    assert 'train/loss' in checkpoint['message_hub']['log_scalars']


def test_training_is_sparse_and_can_be_plotted(trained):
    work_dir, text = trained
    state = torch.load(work_dir / 'iter_4.pth', weights_only=True)
    weights = state['state_dict']
    names = state['dynamic_sparsity']['shapes']
    kept = sum(int((weights[name] != 0).sum()) for name in names)
    size = sum(weights[name].numel() for name in names)
    # Weights that have just grown may be zero.
    assert 0.5 * size < kept <= round(0.6 * size)
    for words in ('SNIP scores on', 'Sparsity at the end', 'weights after step 3'):
        assert words in text
    drawn = run_tool('tools/analysis/plot_sparsity.py', work_dir)
    assert 'wrote' in drawn and Image.open(work_dir / 'sparsity.png').width > 1000
    empty = run_tool('tools/analysis/plot_sparsity.py', work_dir / 'nothing', expect=2)
    assert 'contains no run that logged anything' in empty


def test_resumed_training_equals_uninterrupted_training(trained, data, tmp_path):
    """Four iterations at once, compared with two and, after resuming, two more."""
    _, whole = trained
    first = train(tmp_path, data, 2)
    best = re.findall(r'best checkpoint with (\S+) mIoU at (\d+)', first)
    second = train(tmp_path, data, 4, '--resume')
    assert rates(first) + rates(second) == rates(whole)
    assert [i for i, _ in rates(second)] == ['3', '4']
    runtime = torch.load(tmp_path / 'iter_4.pth', weights_only=True)['message_hub']['runtime_info']
    assert runtime['best_score'] >= float(best[0][0])
    for group in ('optimizer', 'param_schedulers'):
        a, b = (
            torch.load(d / 'iter_4.pth', weights_only=True)[group] for d in (trained[0], tmp_path)
        )
        if group == 'optimizer':
            a, b = ([g['lr'] for g in x['param_groups']] for x in (a, b))
        assert a == b


def test_scores_predictions_and_pictures_are_written(trained, data, tmp_path):
    checkpoint = trained[0] / 'iter_4.pth'
    options = [data, *SMALL]
    text = run_tool(
        'tools/test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'w',
        '--show-dir', tmp_path / 'pictures', '--out', tmp_path / 'scores.json', options=options,
    )  # fmt: skip
    scores = json.loads((tmp_path / 'scores.json').read_text())
    assert set(scores) == {'mIoU', 'aAcc', 'mAcc'} and 0 <= scores['mIoU'] <= 100
    assert f'{scores["mIoU"]:.4g}' in text
    pictures = list((tmp_path / 'pictures').glob('*.png'))
    assert len(pictures) == 4
    run_tool(
        'tools/test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'w', '--tta',
        '--out', tmp_path / 'label_maps', options=options,
    )  # fmt: skip
    label_maps = sorted((tmp_path / 'label_maps').glob('*.png'))
    assert len(label_maps) == 4
    labels = np.asarray(Image.open(label_maps[0]))
    assert labels.min() >= 1 and labels.max() <= 12


def test_wrong_arguments_are_named_before_any_work(trained, data, tmp_path):
    work = ['--work-dir', tmp_path]
    text = run_tool('tools/train.py', CONFIG, *work, options=['data_root=no/where'], expect=2)
    assert 'no/where' in text and 'make_sample_data.py' in text and 'Traceback' not in text
    text = run_tool('tools/train.py', 'configs/none.py', *work, expect=2)
    assert 'configs/none.py does not exist' in text
    text = run_tool('tools/test.py', CONFIG, 'no.pth', *work, options=[data], expect=2)
    assert 'no.pth does not exist' in text
    text = train(tmp_path, data, 4, '--resume', expect=2)
    assert 'found no checkpoint in' in text
    checkpoint = trained[0] / 'iter_4.pth'
    options = [data, 'model.backbone.arch=tiny']
    text = run_tool('tools/test.py', CONFIG, checkpoint, *work, options=options, expect=2)
    assert 'does not fit the model' in text and 'Traceback' not in text


def test_training_with_two_processes(data, tmp_path):
    torchrun = (
        sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2'
    )  # fmt: skip
    text = train(
        tmp_path, data, 2, '--launcher', 'pytorch', '--amp',
        options=['optim_wrapper.dtype=bfloat16'], launcher=torchrun,
    )  # fmt: skip
    assert len(losses(text)) == 2
    assert (tmp_path / 'iter_2.pth').is_file()


def test_shell_launchers(data, tmp_path, monkeypatch):
    """With two processes on this machine, and with a fake of Slurm that only runs the command."""
    monkeypatch.setenv('PATH', f'{tmp_path}:{Path(sys.executable).parent}:{os.environ["PATH"]}')
    monkeypatch.setenv('PORT', str(free_port()))
    monkeypatch.delenv('PYTHON', raising=False)
    options = [data, *SMALL, 'train_cfg.max_iters=1']
    train = ['--work-dir', tmp_path / 'work']
    text = run_tool('tools/dist_train.sh', CONFIG, 2, *train, options=options, launcher=())
    assert len(losses(text)) == 1
    text = run_tool(
        'tools/dist_test.sh', CONFIG, tmp_path / 'work/iter_1.pth', 2, '--work-dir', tmp_path / 't',
        options=[data, *SMALL], launcher=(),
    )  # fmt: skip
    assert 'mIoU' in text

    fakes = {
        # Print and remove the options of srun, then run the command as on a single node.
        'srun': 'while [ "${1#-}" != "$1" ]; do echo "srun $1"; shift; done\n'
        'SLURM_NNODES=1 SLURM_JOB_ID=1 SLURM_JOB_NODELIST=localhost exec "$@"',
        'scontrol': 'echo localhost',
    }
    for name, body in fakes.items():
        (tmp_path / name).write_text(f'#!/bin/sh\n{body}\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv('GPUS_PER_NODE', '1')
    monkeypatch.setenv('PORT', str(free_port()))
    text = run_tool(
        'tools/slurm_train.sh', 'part', 'job', CONFIG, '--work-dir', tmp_path / 'slurm',
        options=options, launcher=(),
    )  # fmt: skip
    assert len(losses(text)) == 1
    assert 'srun --partition=part' in text and 'srun --gres=gpu:1' in text
    for script in ('dist_train.sh', 'dist_test.sh', 'slurm_train.sh'):
        assert 'usage: ' in run_tool(f'tools/{script}', expect=2, launcher=())


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def test_own_config_in_pure_python_style(data, tmp_path):
    config = tmp_path / 'own.py'
    root = data.removeprefix('data_root=')
    config.write_text(f"""
from mmcv.transforms import LoadImageFromFile, Resize
from mmengine.dataset import InfiniteSampler
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop
from mmseg.datasets import BaseSegDataset, LoadAnnotations, PackSegInputs
from mmseg.models import EncoderDecoder, FCNHead, SegDataPreProcessor
from torch.optim import AdamW

from mmslak.models import SLaK

default_scope = 'mmseg'
log_processor = dict(by_epoch=False)
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(type=SegDataPreProcessor, size=(64, 64)),
    backbone=dict(type=SLaK, arch='nano'),
    decode_head=dict(type=FCNHead, in_channels=166, in_index=3, channels=16, num_classes=12),
    test_cfg=dict(mode='whole'),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type=InfiniteSampler, shuffle=True),
    dataset=dict(
        type=BaseSegDataset,
        data_root='{root}',
        reduce_zero_label=True,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        metainfo=dict(classes=[str(i) for i in range(12)]),
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=LoadAnnotations, reduce_zero_label=True),
            dict(type=Resize, scale=(64, 64)),
            dict(type=PackSegInputs),
        ],
    ),
)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3))
train_cfg = dict(type=IterBasedTrainLoop, max_iters=2)
""")
    options = ['default_hooks.logger.type=LoggerHook', 'default_hooks.logger.interval=1']
    text = run_tool('tools/train.py', config, '--work-dir', tmp_path / 'work', options=options)
    assert len(losses(text)) == 2


@pytest.fixture
def real_ade20k(real_data):
    return real_data / 'ADEChallengeData2016'


def test_label_maps_of_real_images(real_ade20k, tmp_path):
    """SLaK-T's config with a small network."""
    run_tool(
        'tools/test.py', 'configs/upernet_slak_t_ade20k.py', 'none', '--work-dir', tmp_path,
        '--out', tmp_path / 'label_maps', options=[
            f'data_root={real_ade20k}', 'model.backbone.arch=nano',
            'model.decode_head.in_channels=[20,41,83,166]', 'model.decode_head.channels=16',
            'model.auxiliary_head.in_channels=83',
        ],
    )  # fmt: skip
    for image in sorted((real_ade20k / 'images/validation').iterdir()):
        labels = np.asarray(Image.open(tmp_path / f'label_maps/{image.stem}.png'))
        # A label map has the size of its image, and labels start at 1 as in ADE20K.
        assert labels.shape == Image.open(image).size[::-1]
        assert labels.min() >= 1 and labels.max() <= 150


@pytest.mark.slow
def test_slak_t_on_real_images(real_ade20k, tmp_path):
    """20 iterations with a lower loss at the end, resumed after 10, then a test."""
    config = 'configs/upernet_slak_t_ade20k.py'
    options = [
        f'data_root={real_ade20k}',
        'train_dataloader.dataset.data_prefix.img_path=images/validation',
        'train_dataloader.dataset.data_prefix.seg_map_path=annotations/validation',
        'crop_size=(256,256)',
        'train_dataloader.dataset.pipeline.3.crop_size=(256,256)',
        'model.data_preprocessor.size=(256,256)',
        'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
        'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
        'param_scheduler.0.end=5', 'default_hooks.logger.interval=1', 'randomness.seed=0',
        'default_hooks.checkpoint.interval=10', 'train_cfg.val_interval=10',
    ]  # fmt: skip
    train = ['tools/train.py', config, '--work-dir', tmp_path]
    first = run_tool(*train, options=[*options, 'train_cfg.max_iters=10'])
    second = run_tool(*train, '--resume', options=[*options, 'train_cfg.max_iters=20'])
    values = losses(first) + losses(second)
    assert len(values) == 20 and np.isfinite(values).all()
    assert np.mean(values[-5:]) < 0.9 * np.mean(values[:5])
    assert [int(i) for i, _ in rates(second)] == list(range(11, 21))
    state = torch.load(tmp_path / 'iter_20.pth', weights_only=True)
    best = float(re.findall(r'best checkpoint with (\S+) mIoU', first)[-1])
    assert state['message_hub']['runtime_info']['best_score'] >= round(best, 2)
    run_tool(
        'tools/test.py', config, tmp_path / 'iter_20.pth', '--work-dir', tmp_path / 'test',
        '--out', tmp_path / 's.json', options=[f'data_root={real_ade20k}'],
    )  # fmt: skip
    assert json.loads((tmp_path / 's.json').read_text())['mIoU'] > 0
