"""Pre-training from end to end, by the command lines."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers import ROOT, run_tool

pytest.importorskip('mmpretrain')
from mmslak.cli.config import load_config
from mmslak.models import SLaK
from mmslak.sample_data import write_sample_data

CONFIG = 'configs/sample/slak_nano_in1k.py'
SMALL = [
    'train_cfg.max_epochs=2', 'train_cfg.val_interval=1', 'param_scheduler.0.end=1',
    'param_scheduler.1.begin=1', 'param_scheduler.1.end=2', 'default_hooks.logger.interval=1',
    'default_hooks.throughput.first=4', 'default_hooks.throughput.warm_up=1',
    'train_dataloader.batch_size=4', 'train_dataloader.dataset.indices=16',
    'default_hooks.sparsity.update.every=1', 'default_hooks.checkpoint.interval=1',
    *(
        f'{split}_dataloader.{setting}'
        for split in ('train', 'val', 'test')
        for setting in ('num_workers=0', 'persistent_workers=False')
    ),
]  # fmt: skip


@pytest.fixture(scope='module')
def data(sample_data):
    """Return the option for small sample data."""
    return f'data_root={sample_data(60, 96)}/imagenet'


@pytest.fixture(scope='module')
def trained(tmp_path_factory, data):
    """Train for two epochs, and return the work directory and what is printed."""
    work_dir = tmp_path_factory.mktemp('train')
    text = run_tool(
        'tools/train.py', CONFIG, '--work-dir', work_dir, '--effective-batch', 8,
        options=[data, *SMALL],
    )  # fmt: skip
    return work_dir, text


def test_throughput_and_scores_are_printed(trained):
    work_dir, text = trained
    line = re.search(r'Speed: .*', text).group()
    assert re.search(r'Speed: [\d.]+ images/s, .* per epoch \(4 iterations\), .* left; ', line)
    assert re.search(r'bottleneck: (data|compute) \(\d+% of the time waiting for data', line)
    assert 'Batch norm statistics of the averaged model: 4 batches' in text
    # Each epoch has two optimiser steps of two batches.
    assert 'after step 3' in text and 'after step 5' not in text
    scores = json.loads((work_dir / 'final_scores.json').read_text())
    assert set(scores) == {'raw', 'averaged'}
    for row in scores.values():
        assert 0 <= row['accuracy/top1'] <= row['accuracy/top5'] <= 100


def test_small_checkpoints(trained, data, tmp_path):
    """They contain only weights and masks, and have the scores that training printed."""
    work_dir, _ = trained
    scores = json.loads((work_dir / 'final_scores.json').read_text())
    files = {name: torch.load(work_dir / f'{name}.pth', weights_only=True) for name in scores}
    for name, file in files.items():
        assert set(file) == {'meta', 'state_dict', 'dynamic_sparsity'}
        weights = file['state_dict']
        names = file['dynamic_sparsity']['shapes']
        kept = sum(int((weights[key] != 0).sum()) for key in names)
        size = sum(weights[key].numel() for key in names)
        assert kept <= round(0.6 * size)
        # The file loads into a backbone directly.
        cfg = dict(type='Pretrained', checkpoint=str(work_dir / f'{name}.pth'))
        backbone = SLaK('nano', (15, 13, 11, 5), init_cfg=cfg)
        backbone.init_weights()
        stem = 'downsample_layers.0.0.weight'
        assert torch.equal(backbone.state_dict()[stem], weights[f'backbone.{stem}'])
    raw, averaged = (files[name]['state_dict'] for name in ('raw', 'averaged'))
    for key in (
        'backbone.stages.0.0.pwconv1.bias',
        'backbone.stages.0.0.mixing.tall.norm.running_mean',
    ):
        assert not torch.equal(raw[key], averaged[key])
    # The state_dict of final.pth is that of the averaged model.
    final = torch.load(work_dir / 'final.pth', weights_only=True)
    assert all(torch.equal(final['state_dict'][key], value) for key, value in averaged.items())
    for name in ('averaged', 'raw'):
        out = tmp_path / f'{name}.json'
        run_tool(
            'tools/test.py', CONFIG, work_dir / f'{name}.pth', '--work-dir', tmp_path / 'w',
            '--out', out, '--show-dir', tmp_path / name, options=[data, *SMALL],
        )  # fmt: skip
        tested = json.loads(out.read_text())
        assert tested['accuracy/top1'] == pytest.approx(scores[name]['accuracy/top1'])
        images, pictures = Path(data.removeprefix('data_root='), 'val'), tmp_path / name
        # The pictures are in directories named after the classes, as the images are.
        wanted = {path.relative_to(images).with_suffix('.png') for path in images.rglob('*.*')}
        assert wanted and {path.relative_to(pictures) for path in pictures.rglob('*.*')} == wanted


def test_resume(trained, data):
    work_dir, _ = trained
    text = run_tool(
        'tools/train.py', CONFIG, '--work-dir', work_dir, '--effective-batch', 8, '--resume',
        options=[data, *SMALL, 'train_cfg.max_epochs=3'],
    )  # fmt: skip
    assert 'Epoch(train) [3]' in text and 'Epoch(train) [2]' not in text


def test_wrong_arguments_are_named_before_training(data, tmp_path):
    work = ['--work-dir', tmp_path]
    text = run_tool(
        'tools/train.py', CONFIG, *work, '--effective-batch', 30, options=[data], expect=2
    )
    assert 'multiple of 1 process(es) x train_dataloader.batch_size=16, got 30' in text
    text = run_tool('tools/train.py', CONFIG, *work, options=['data_root=no/where'], expect=2)
    assert 'no/where' in text and 'make_sample_data.py' in text and 'Traceback' not in text


@pytest.mark.slow
def test_slak_nano_learns_the_sample_data(tmp_path):
    """The raw and the averaged model are at least four times better than chance.

    Then a ConvNeXt is trained by distillation.
    """
    write_sample_data(tmp_path / 'sample')
    data = f'data_root={tmp_path}/sample/imagenet'
    work_dir = tmp_path / 'slak_nano'
    run_tool('tools/train.py', CONFIG, '--work-dir', work_dir, options=[data])
    for row in json.loads((work_dir / 'final_scores.json').read_text()).values():
        assert row['accuracy/top1'] >= 4 * 100 / 8
    options = [data, f'model.teacher_checkpoint={work_dir}/averaged.pth', 'train_cfg.max_epochs=2']
    text = run_tool(
        'tools/train.py', 'configs/sample/distill_convnext_nano_in1k.py', '--work-dir',
        tmp_path / 'student', options=options,
    )  # fmt: skip
    assert 'loss_nkd: ' in text


@pytest.fixture
def real_imagenet(real_data):
    return real_data / 'imagenet'


def test_training_on_real_images(real_imagenet, tmp_path):
    """100 images of ImageNet, the pipelines of SLaK-T's config, and a small network."""
    options = [
        f'data_root={real_imagenet}',
        *(
            f'{split}_dataloader.dataset.{setting}'
            for split in ('train', 'val')
            for setting in ('split=val', 'ann_file=meta/val.txt')
        ),
        *(
            f'{split}_dataloader.{setting}'
            for split in ('train', 'val')
            for setting in ('num_workers=0', 'persistent_workers=False')
        ),
        'model.backbone.arch=nano', 'model.head.in_channels=166', 'train_dataloader.batch_size=20',
        'train_cfg.max_epochs=1', 'param_scheduler.0.end=1', 'param_scheduler.1.begin=0',
        'param_scheduler.1.end=1', 'default_hooks.logger.interval=1',
        'default_hooks.sparsity.update.every=2', 'default_hooks.finish_training.batches=2',
        'train_cfg.val_interval=9',
    ]  # fmt: skip
    text = run_tool(
        'tools/train.py', 'configs/slak_t_in1k.py', '--work-dir', tmp_path, options=options
    )
    losses = [float(v) for v in re.findall(r'Epoch\(train\) .* loss: (\d+\.\d+)', text)]
    # There are five batches. The loss of an untrained network is about ln 1000.
    assert len(losses) == 5 and losses[0] == pytest.approx(6.91, abs=0.6)
    scores = json.loads((tmp_path / 'final_scores.json').read_text())
    assert all(0 <= row['accuracy/top1'] <= 100 for row in scores.values())


def test_labels_of_real_images(real_imagenet):
    from mmengine.registry import DATASETS, DefaultScope
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    cfg = load_config(ROOT / 'configs/slak_t_in1k.py', dict(data_root=str(real_imagenet)))
    dataset = dict(cfg.val_dataloader.dataset, ann_file='meta/val.txt')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(dataset)
    lines = [line.split() for line in (real_imagenet / 'meta/val.txt').read_text().splitlines()]
    assert len(dataset) == len(lines) == 100
    for i in (0, 50, 99):
        item = dataset[i]
        assert item['inputs'].shape == (3, 224, 224)
        assert item['data_samples'].gt_label.tolist() == [int(lines[i][1])]
        assert item['data_samples'].img_path.endswith(lines[i][0])


def test_training_from_lmdb(data, tmp_path):
    """SNIP reads in the main process, and training in a worker process."""
    pytest.importorskip('lmdb')
    root = Path(data.removeprefix('data_root='))
    for split in ('train', 'val'):
        text = run_tool('tools/pack_lmdb.py', root / split, tmp_path / f'{split}.lmdb')
        count = len((root / f'meta/{split}.txt').read_text().splitlines())
        assert f'wrote {count} images' in text
    text = run_tool('tools/pack_lmdb.py', root / 'train', tmp_path / 'train.lmdb', expect=2)
    assert 'already exists' in text
    text = run_tool('tools/pack_lmdb.py', root / 'meta', tmp_path / 'none.lmdb', expect=2)
    assert 'contains no image' in text
    config = tmp_path / 'c.py'
    config.write_text(f"""
_base_ = '{ROOT}/configs/slak_t_lmdb_in1k.py'
train_pipeline = _base_.train_pipeline
train_pipeline[0]['backend_args']['db_path'] = '{tmp_path}/train.lmdb'
test_pipeline = _base_.test_pipeline
test_pipeline[0]['backend_args']['db_path'] = '{tmp_path}/val.lmdb'
train_dataloader = dict(
    batch_size=8, num_workers=1,
    dataset=dict(ann_file='{root}/meta/train.txt', pipeline=train_pipeline, indices=16),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(ann_file='{root}/meta/val.txt', pipeline=test_pipeline, indices=4),
)
model = dict(backbone=dict(arch='nano'), head=dict(in_channels=166))
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=True, end=1)]
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
""")
    text = run_tool('tools/train.py', config, '--work-dir', tmp_path / 'w')
    assert len(re.findall(r'Epoch\(train\) .* loss: ', text)) == 2
    assert 'accuracy/top1: ' in text
