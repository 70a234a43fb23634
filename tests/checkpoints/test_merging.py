"""Merging whole models for inference."""

import numpy as np
import pytest
import torch
from helpers import ROOT, randomise_as_trained, run_tool
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmslak.checkpoints import CheckpointError, merge_checkpoint
from mmslak.cli.config import load_config
from mmslak.engine.hooks.checkpoint_fit import check_fit

TINY = dict(arch='nano', kernel_sizes=(13, 11, 9, 7))


def build(cfg):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model).eval()


@pytest.mark.parametrize(
    ('toolbox', 'config'),
    [
        ('mmseg', 'configs/sample/upernet_slak_nano_ade20k.py'),
        ('mmdet', 'configs/sample/cascade_mask_rcnn_slak_nano_coco.py'),
        ('mmpretrain', 'configs/sample/slak_nano_in1k.py'),
    ],
)
def test_models_of_every_toolbox(toolbox, config):
    pytest.importorskip(toolbox)
    cfg = load_config(ROOT / config)
    cfg.model.backbone.update(TINY)
    model = randomise_as_trained(build(cfg))
    merged, difference = merge_checkpoint(cfg, dict(state_dict=model.state_dict()))
    assert difference < 1e-4
    cfg.model.backbone.deploy = True
    deployed = build(cfg)
    deployed.load_state_dict(merged['state_dict'])
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        outputs = [m.extract_feat(image) for m in (model, deployed)]
    for a, b in zip(*outputs, strict=True):
        assert ((a - b).abs().max() / a.abs().max()).item() < 1e-4
    with pytest.raises(ValueError, match='are already merged'):
        merge_checkpoint(cfg, merged)


@pytest.mark.parametrize(
    ('toolbox', 'inferencer', 'config'),
    [
        ('mmseg', 'MMSegInferencer', 'configs/sample/upernet_slak_nano_ade20k.py'),
        ('mmdet', 'DetInferencer', 'configs/sample/faster_rcnn_slak_nano_voc.py'),
        ('mmpretrain', 'ImageClassificationInferencer', 'configs/sample/slak_nano_in1k.py'),
    ],
)
def test_inferencers_show_the_names_of_the_classes(toolbox, inferencer, config, tmp_path):
    """Without names in the file they show those of Cityscapes, COCO and ImageNet."""
    apis = pytest.importorskip(f'{toolbox}.apis')
    cfg = load_config(ROOT / config)
    cfg.model.backbone.update(TINY)
    state = randomise_as_trained(build(cfg)).state_dict()
    of_config = cfg.test_dataloader.dataset.metainfo
    merged, _ = merge_checkpoint(cfg, dict(state_dict=state))
    assert merged['meta']['dataset_meta'] == of_config
    # Those of the checkpoint come first.
    trained = dict(of_config, classes=[f'class {i}' for i, _ in enumerate(of_config.classes)])
    merged, _ = merge_checkpoint(cfg, dict(state_dict=state, meta=dict(dataset_meta=trained)))
    torch.save(merged, tmp_path / 'merged.pth')
    cfg.model.backbone.deploy = True
    cfg.vis_backends.clear()
    cfg.visualizer.vis_backends = []
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    # The inferencers of MMDetection and MMSegmentation change the scope of the whole process.
    with DefaultScope.overwrite_default_scope(toolbox):
        infer = getattr(apis, inferencer)(cfg, str(tmp_path / 'merged.pth'), device='cpu')
        results = infer(image, **({} if toolbox == 'mmpretrain' else dict(return_vis=True)))
    if toolbox == 'mmpretrain':
        assert results[0]['pred_class'] in trained['classes']
        return
    assert list(infer.visualizer.dataset_meta['classes']) == trained['classes']
    assert list(infer.visualizer.dataset_meta['palette']) == list(trained['palette'])


def test_other_models_and_checkpoints_are_refused():
    cfg = Config(dict(default_scope='mmengine', model=dict(type='mmengine.ImgDataPreprocessor')))
    with pytest.raises(ValueError, match=r'model.backbone must be a mmslak.SLaK .* NoneType'):
        merge_checkpoint(cfg, {})
    pytest.importorskip('mmseg')
    cfg = load_config(ROOT / 'configs/sample/upernet_slak_nano_ade20k.py')
    with pytest.raises(
        CheckpointError,
        match=r'f.pth does not fit .* use the config that the checkpoint was trained with',
    ):
        merge_checkpoint(cfg, dict(state_dict={}), 'f.pth')


def test_command_line(tmp_path):
    pytest.importorskip('mmpretrain')
    config = 'configs/sample/slak_nano_in1k.py'
    model = randomise_as_trained(build(load_config(ROOT / config)))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'trained.pth')
    command = ['tools/deploy/merge.py', config, tmp_path / 'trained.pth', tmp_path / 'merged.pth']
    assert '--cfg-options model.backbone.deploy=True' in run_tool(*command)
    assert 'already exists' in run_tool(*command, expect=2)
    merged = torch.load(tmp_path / 'merged.pth', weights_only=True)
    assert not any('.small.' in name for name in merged['state_dict'])


def test_files_without_masked_units_are_tested(tmp_path):
    """The numbers of hidden units in a merged file differ from those of the config."""
    pytest.importorskip('mmpretrain')
    cfg = load_config(ROOT / 'configs/sample/slak_nano_in1k.py')
    model = randomise_as_trained(build(cfg))
    block = model.backbone.stages[3][0]
    block.pwconv1.weight.data[:500] = 0
    block.pwconv2.weight.data[:, :500] = 0
    merged, difference = merge_checkpoint(cfg, dict(state_dict=model.state_dict()))
    assert difference < 1e-4
    # 664 units, of which 164 are active, rounded up to a multiple of 32.
    assert merged['state_dict']['backbone.stages.3.0.pwconv1.weight'].shape == (192, 166)
    cfg.model.backbone.deploy = True
    deployed = build(cfg)
    check_fit(merged, deployed)
    deployed.load_state_dict(merged['state_dict'])
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        a, b = (m.extract_feat(image)[-1] for m in (model, deployed))
    assert ((a - b).abs().max() / a.abs().max()).item() < 1e-4
