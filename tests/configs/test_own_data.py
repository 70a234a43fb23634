"""The configs for own data, as docs/finetune.md describes: copied, two lines changed, trained."""

import json
import re

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from mmslak.cli.run import run
from mmslak.sample_data import CLASSES, PALETTE, THING_CLASSES

WIDTHS = [20, 41, 83, 166]
LOADERS = [
    f'{split}_dataloader.{setting}'
    for split in ('train', 'val')
    for setting in (
        'num_workers=0',
        'persistent_workers=False',
        'batch_size=2',
        'dataset.indices=2',
    )
]


def copied_config(name, path, **variables):
    """Copy a config and change variables at its top, as a user does in an editor."""
    text = (ROOT / f'configs/own/{name}.py').read_text()
    for variable, value in variables.items():
        text, count = re.subn(rf'(?m)^{variable} = .*$', f'{variable} = {value!r}', text)
        assert count == 1
    path.write_text(text)
    return path


def train(config, work_dir, *options):
    """Train for one step and validate, and return the scores of the validation."""
    options = [*LOADERS, 'model.backbone.arch=nano', *options]
    run('train', [str(config), '--work-dir', str(work_dir), '--cfg-options', *options])
    (log,) = work_dir.rglob('vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert list(work_dir.glob('best_*.pth'))
    return lines[-1]


@pytest.mark.slow
def test_boxes_in_coco_format_without_masks(sample_data, tmp_path):
    pytest.importorskip('mmdet')
    data = sample_data(60, 96) / 'coco'
    for split in ('train', 'val'):
        (tmp_path / split).symlink_to(data / f'{split}2017')
        content = json.loads((data / f'annotations/instances_{split}2017.json').read_text())
        for annotation in content['annotations']:
            del annotation['segmentation']
        (tmp_path / f'{split}.json').write_text(json.dumps(content))
    config = copied_config(
        'faster_rcnn_slak_t_own_coco', tmp_path / 'c.py',
        data_root=f'{tmp_path}/', classes=THING_CLASSES,
    )  # fmt: skip
    scores = train(
        config, tmp_path / 'w', f'model.neck.in_channels={WIDTHS}', 'train_cfg.max_epochs=1',
        'optim_wrapper.paramwise_cfg.num_layers=4',
        'train_dataloader.dataset.pipeline.2.scales=[(96,96)]',
        'val_dataloader.dataset.pipeline.1.scale=(96,96)', 'default_hooks.logger.interval=1',
    )  # fmt: skip
    assert set(scores) >= {'coco/bbox_mAP', f'coco/{THING_CLASSES[0]}_precision'}


@pytest.mark.slow
def test_own_class_directories(sample_data, tmp_path):
    pytest.importorskip('mmpretrain')
    data = sample_data(60, 96) / 'imagenet'
    for split in ('train', 'val'):
        (tmp_path / split).symlink_to(data / split)
    config = copied_config(
        'slak_t_own_folders', tmp_path / 'c.py',
        data_root=f'{tmp_path}/', classes=tuple(sorted(THING_CLASSES)),
    )  # fmt: skip
    scores = train(
        config, tmp_path / 'w', 'model.head.in_channels=166', 'train_cfg.max_epochs=1',
        'param_scheduler.0.end=1', 'train_dataloader.dataset.pipeline.1.scale=64',
        'val_dataloader.dataset.pipeline.2.crop_size=64',
    )  # fmt: skip
    assert 0 <= scores['accuracy/top1'] <= 100


@pytest.mark.slow
def test_own_images_and_label_maps(sample_data, tmp_path):
    pytest.importorskip('mmseg')
    data = sample_data(60, 96) / 'ADEChallengeData2016'
    for split in ('train', 'val'):
        images, labels = (tmp_path / kind / split for kind in ('images', 'annotations'))
        labels.mkdir(parents=True)
        images.parent.mkdir(exist_ok=True)
        source = f'{split}ing' if split == 'train' else 'validation'
        images.symlink_to(data / 'images' / source)
        for file in (data / 'annotations' / source).iterdir():
            # ADE20K's labels begin at 1, and 0 is ignored. Here it becomes 255.
            Image.fromarray(np.array(Image.open(file)) - np.uint8(1)).save(labels / file.name)
    config = copied_config(
        'upernet_slak_t_own_folders', tmp_path / 'c.py', data_root=f'{tmp_path}/',
        classes=CLASSES, palette=[list(colour) for colour in PALETTE],
    )  # fmt: skip
    scores = train(
        config, tmp_path / 'w', f'model.decode_head.in_channels={WIDTHS}',
        'model.decode_head.channels=32', 'model.auxiliary_head.channels=32',
        'model.auxiliary_head.in_channels=83', 'optim_wrapper.paramwise_cfg.num_layers=4',
        'model.data_preprocessor.size=(64,64)', 'model.test_cfg.mode=whole',
        'train_dataloader.dataset.pipeline.2.scale=(128,64)',
        'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
        'val_dataloader.dataset.pipeline.1.scale=(128,64)', 'train_cfg.max_iters=1',
        'train_cfg.val_interval=1', 'default_hooks.logger.interval=1',
    )  # fmt: skip
    assert 0 <= scores['mIoU'] <= 100
