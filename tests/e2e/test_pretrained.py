"""The model in the package by its name on the command lines."""

import json

import pytest
import torch
from helpers import run_tool

from mmslak.checkpoints import SPARSITY_STATE, read_checkpoint
from mmslak.sparsity import unpack_masks

pytest.importorskip('mmseg')

NAME, CONFIG = 'slak_nano_camvid', 'configs/upernet_slak_nano_camvid.py'
#: The twelve test images in place of all data.
TWELVE_IMAGES = [
    'data_root=tests/data/camvid',
    *(
        f'{split}_dataloader.{setting}'
        for split in ('train', 'val', 'test')
        for setting in (
            'num_workers=0',
            'persistent_workers=False',
            'dataset.img_suffix=.jpg',
            'dataset.data_prefix.img_path=images/test',
            'dataset.data_prefix.seg_map_path=annotations/test',
        )
    ),
]
TRAINING = [
    'train_cfg.max_iters=1',
    'train_cfg.val_interval=2',
    'train_dataloader.batch_size=2',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.sparsity.mode=fixed',
]


def test_test_by_name(tmp_path):
    out = tmp_path / 'scores.json'
    run_tool(
        'tools/test.py',
        'configs/upernet_slak_nano_finetune_camvid.py',
        NAME,
        '--work-dir',
        tmp_path,
        '--out',
        out,
        options=TWELVE_IMAGES,
    )
    expected = read_checkpoint(NAME)['meta']['miou_of_twelve_test_images']
    assert json.loads(out.read_text())['mIoU'] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    'start', [f'load_from={NAME}', f'model.backbone.init_cfg.checkpoint={NAME}']
)
def test_training_starts_from_weights_and_masks(start, tmp_path):
    options = [*TWELVE_IMAGES, *TRAINING, start]
    if 'init_cfg' in start:
        options.append('model.backbone.init_cfg.type=Pretrained')
    run_tool('tools/train.py', CONFIG, '--work-dir', tmp_path, options=options)
    saved = torch.load(tmp_path / 'iter_1.pth', weights_only=True)
    given, shipped = (unpack_masks(c[SPARSITY_STATE]) for c in (saved, read_checkpoint(NAME)))
    if 'init_cfg' in start:
        shipped = {k: mask for k, mask in shipped.items() if k.startswith('backbone.')}
    assert given.keys() == shipped.keys()
    for name, mask in shipped.items():
        assert torch.equal(given[name], mask)


def test_models_in_the_package_cannot_be_resumed(tmp_path):
    printed = run_tool(
        'tools/train.py', CONFIG, '--work-dir', tmp_path, '--resume', NAME,
        options=TWELVE_IMAGES, expect=2,
    )  # fmt: skip
    assert '--resume needs a checkpoint of a training' in printed
    assert f'--cfg-options load_from={NAME}' in printed
