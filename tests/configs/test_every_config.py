"""Settings that every config has."""

import pytest
from helpers import ROOT

from mmslak.cli.config import load_config
from mmslak.sample_data import CLASSES, PALETTE, THING_CLASSES

CONFIGS = sorted(
    str(p.relative_to(ROOT)) for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts
)


@pytest.mark.parametrize('path', CONFIGS)
def test_every_config_loads_and_registers_the_package(path):
    cfg = load_config(ROOT / path)
    assert 'mmslak' in cfg.custom_imports.imports
    assert cfg.default_hooks.plain_checkpoint.type == 'mmslak.PlainCheckpointHook'
    assert any(b.type == 'TensorboardVisBackend' for b in cfg.vis_backends)
    assert cfg.default_hooks.checkpoint.save_best


def test_sample_configs_have_the_classes_of_the_sample_data():
    cfg = load_config(ROOT / 'configs/sample/upernet_slak_nano_ade20k.py')
    assert tuple(cfg.metainfo.classes) == CLASSES
    assert [tuple(colour) for colour in cfg.metainfo.palette] == list(PALETTE)
    assert cfg.model.decode_head.num_classes == len(CLASSES)
    for name in ('cascade_mask_rcnn_slak_nano_coco', 'faster_rcnn_slak_nano_voc'):
        cfg = load_config(ROOT / f'configs/sample/{name}.py')
        assert tuple(cfg.metainfo.classes) == THING_CLASSES
        first = len(CLASSES) - len(THING_CLASSES)
        assert [tuple(colour) for colour in cfg.metainfo.palette] == list(PALETTE[first:])
