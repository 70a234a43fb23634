"""The recipe of detection on PASCAL VOC: appendix A.4."""

import pytest
from helpers import ROOT

from mmslak.cli.config import load_config

pytest.importorskip('mmdet')


@pytest.mark.parametrize(
    'name',
    ['faster_rcnn_slak_t_voc', 'faster_rcnn_slak_t_voc0712']
    + [
        f'baselines/faster_rcnn_{backbone}_voc'
        for backbone in ('convnext_t', 'convnext_t_replknet', 'resnet50', 'resnet101')
    ],
)
def test_recipe(name):
    cfg = load_config(ROOT / f'configs/{name}.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    assert (cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size) == (36, 2)
    dataset = cfg.train_dataloader.dataset
    for leaf in dataset.get('datasets', [dataset]):
        scales = next(t.scales for t in leaf.pipeline if t.type == 'RandomChoiceResize')
        assert scales[0] == (480, 1333) and scales[-1] == (800, 1333)
    assert [metric.eval_mode for metric in cfg.test_evaluator] == ['11points', 'area']
    assert cfg.model.roi_head.bbox_head.num_classes == 20
