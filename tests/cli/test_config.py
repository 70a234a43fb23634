"""Loading and adapting configs, and the checks of what they point to."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import PolyLR
from mmengine.optim.scheduler import LinearLR
from PIL import Image

from mmslak.cli.config import (
    ToolboxMissingError,
    enable_amp,
    enable_lr_scaling,
    enable_tta,
    load_config,
    prepare,
)
from mmslak.sample_data import CLASSES, PALETTE, THING_CLASSES, write_sample_data
from mmslak.validation.layouts import DatasetLayoutError, check_datasets

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    str(p.relative_to(ROOT)) for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts
)


@pytest.fixture(scope='module')
def seg():
    pytest.importorskip('mmseg')
    return load_config(ROOT / 'configs/upernet_slak_t_ade20k.py')


@pytest.mark.parametrize('path', CONFIGS)
def test_every_config_loads_and_registers_the_package(path):
    cfg = load_config(ROOT / path)
    assert 'mmslak' in cfg.custom_imports.imports
    assert cfg.default_hooks.plain_checkpoint.type == 'mmslak.PlainCheckpointHook'
    assert any(b.type == 'TensorboardVisBackend' for b in cfg.vis_backends)
    assert cfg.default_hooks.checkpoint.save_best


@pytest.mark.parametrize(
    ('name', 'arch', 'widths', 'drop_path', 'layers'),
    [
        ('upernet_slak_t_ade20k', 'tiny', [124, 249, 499, 998], 0.4, 6),
        ('upernet_slak_s_ade20k', 'small', [124, 249, 499, 998], 0.3, 12),
        ('upernet_slak_b_ade20k', 'base', [166, 332, 665, 1331], 0.4, 12),
        ('baselines/upernet_convnext_t_ade20k', 'tiny', [96, 192, 384, 768], 0.4, 6),
        ('baselines/upernet_convnext_s_ade20k', 'small', [96, 192, 384, 768], 0.3, 12),
        ('baselines/upernet_convnext_b_ade20k', 'base', [128, 256, 512, 1024], 0.4, 12),
    ],
)
def test_the_recipe_of_ade20k(name, arch, widths, drop_path, layers):
    """Appendix A.2 and the recipe it refers to, written out."""
    cfg = load_config(ROOT / f'configs/{name}.py')
    assert cfg.model.backbone.arch == arch
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert cfg.model.backbone.layer_scale_init_value == 1.0
    head, aux = cfg.model.decode_head, cfg.model.auxiliary_head
    assert (head.type, head.in_channels, head.channels) == ('UPerHead', widths, 512)
    assert (aux.in_channels, aux.in_index, aux.loss_decode.loss_weight) == (widths[2], 2, 0.4)
    assert head.num_classes == aux.num_classes == 150
    assert head.norm_cfg.type == 'SyncBN'
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
    )
    assert cfg.optim_wrapper.paramwise_cfg == dict(
        decay_rate=0.9, decay_type='stage_wise', num_layers=layers
    )
    assert (cfg.train_cfg.max_iters, cfg.train_dataloader.batch_size) == (160000, 2)
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(512, 512), stride=(341, 341))


def test_the_80k_schedule(seg):
    cfg = load_config(ROOT / 'configs/upernet_slak_t_80k_ade20k.py')
    assert cfg.train_cfg.max_iters == 80000 == cfg.param_scheduler[1].end
    assert cfg.optim_wrapper.optimizer.lr == 2e-4
    assert cfg.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0.0)
    assert cfg.model.backbone.drop_path_rate == 0.1


@pytest.mark.parametrize(
    ('name', 'widths', 'drop_path', 'decay', 'layers', 'epochs'),
    [
        ('cascade_mask_rcnn_slak_t_coco', [124, 249, 499, 998], 0.4, 0.7, 6, 36),
        ('cascade_mask_rcnn_slak_t_1x_coco', [124, 249, 499, 998], 0.4, 0.7, 6, 12),
        ('cascade_mask_rcnn_slak_s_coco', [124, 249, 499, 998], 0.6, 0.7, 12, 36),
        ('cascade_mask_rcnn_slak_b_coco', [166, 332, 665, 1331], 0.7, 0.8, 12, 36),
        ('baselines/cascade_mask_rcnn_convnext_t_coco', [96, 192, 384, 768], 0.4, 0.7, 6, 36),
        ('baselines/cascade_mask_rcnn_convnext_t_1x_coco', [96, 192, 384, 768], 0.4, 0.7, 6, 12),
        (
            'baselines/cascade_mask_rcnn_convnext_t_replknet_1x_coco',
            [96, 192, 384, 768], 0.4, 0.7, 6, 12,
        ),
    ],
)  # fmt: skip
def test_the_recipe_of_coco(name, widths, drop_path, decay, layers, epochs):
    """Appendix A.3 and the recipe it refers to, written out."""
    pytest.importorskip('mmdet')
    cfg = load_config(ROOT / f'configs/{name}.py')
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert cfg.model.neck.in_channels == widths
    heads = cfg.model.roi_head.bbox_head
    assert [head.bbox_coder.target_stds[0] for head in heads] == [0.1, 0.05, 0.033]
    for head in heads:
        assert (head.num_shared_convs, head.num_shared_fcs) == (4, 1)
        assert head.norm_cfg.type == 'SyncBN' and head.reg_decoded_bbox
        assert head.loss_bbox == dict(type='GIoULoss', loss_weight=10.0)
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05
    )
    assert cfg.optim_wrapper.paramwise_cfg == dict(
        decay_rate=decay, decay_type='layer_wise', num_layers=layers
    )
    steps = {36: [27, 33], 12: [8, 11]}[epochs]
    assert cfg.train_cfg.max_epochs == epochs == cfg.param_scheduler[1].end
    assert cfg.param_scheduler[1].milestones == steps
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=16)
    assert cfg.train_dataloader.batch_size == 2


@pytest.mark.parametrize(
    'name',
    ['faster_rcnn_slak_t_voc', 'faster_rcnn_slak_t_voc0712']
    + [
        f'baselines/faster_rcnn_{backbone}_voc'
        for backbone in ('convnext_t', 'convnext_t_replknet', 'resnet50', 'resnet101')
    ],
)
def test_the_recipe_of_voc(name):
    """Appendix A.4, written out."""
    pytest.importorskip('mmdet')
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


def test_learning_rate_over_time(seg):
    """Warm-up from 1e-6 over 1500 iterations, times the polynomial decay of the whole."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-4)
    schedulers = []
    for kind, cfg in zip((LinearLR, PolyLR), seg.param_scheduler, strict=True):
        cfg = dict(cfg, begin=cfg['begin'] // 100, end=cfg['end'] // 100)
        assert cfg.pop('type') == kind.__name__
        schedulers.append(kind(optimizer, **cfg))
    for step in range(1600):
        warm_up = min(1.0, 1e-6 + (1 - 1e-6) * step / 14)
        assert optimizer.param_groups[0]['lr'] == pytest.approx(
            1e-4 * warm_up * (1 - step / 1599), rel=1e-6, abs=1e-12
        )
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_sample_config_names_the_sample_classes():
    cfg = load_config(ROOT / 'configs/sample/upernet_slak_nano_ade20k.py')
    assert tuple(cfg.metainfo.classes) == CLASSES
    assert [tuple(colour) for colour in cfg.metainfo.palette] == list(PALETTE)
    assert cfg.model.decode_head.num_classes == len(CLASSES)
    for name in ('cascade_mask_rcnn_slak_nano_coco', 'faster_rcnn_slak_nano_voc'):
        cfg = load_config(ROOT / f'configs/sample/{name}.py')
        assert tuple(cfg.metainfo.classes) == THING_CLASSES
        first = len(CLASSES) - len(THING_CLASSES)
        assert [tuple(colour) for colour in cfg.metainfo.palette] == list(PALETTE[first:])


@pytest.mark.parametrize('name', ['upernet_slak_t_ade20k', 'cascade_mask_rcnn_slak_t_coco'])
def test_a_pretrained_backbone_by_option(name):
    key = 'model.backbone.init_cfg'
    options = {f'{key}.type': 'Pretrained', f'{key}.checkpoint': 'file.pth'}
    cfg = load_config(ROOT / f'configs/{name}.py', options)
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='file.pth')


def test_data_root_moves_everything(seg):
    cfg = load_config(ROOT / 'configs/upernet_slak_t_ade20k.py', dict(data_root='/else/where'))
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.data_root == '/else/where'
    assert 'data/ADEChallengeData2016' not in cfg.pretty_text


def test_amp_and_tta(seg):
    cfg = load_config(ROOT / 'configs/upernet_slak_t_ade20k.py')
    enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'mmslak.AmpOptimWrapper'
    enable_tta(cfg)
    assert cfg.model.type == 'SegTTAModel'
    assert cfg.model.module.type == 'EncoderDecoder'
    assert cfg.test_dataloader.dataset.pipeline[-1].type == 'TestTimeAug'
    with pytest.raises(ValueError, match='tta_model'):
        enable_tta(Config(dict(model=dict(type='A'))))
    with pytest.raises(ValueError, match='ApexOptimWrapper'):
        enable_amp(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))))


def test_scaling_the_learning_rate():
    cfg = Config(
        dict(auto_scale_lr=dict(base_batch_size=16), optim_wrapper=dict(accumulative_counts=4))
    )
    enable_lr_scaling(cfg)
    # MMEngine divides images times processes by it.
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=4)
    for wrong in (None, dict(enable=False), dict(base_batch_size=0)):
        with pytest.raises(ValueError, match=r'auto_scale_lr\.base_batch_size'):
            enable_lr_scaling(Config(dict(auto_scale_lr=wrong, optim_wrapper=dict())))


def test_launchers(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(ValueError, match='torchrun'):
        prepare(Config(dict(model=dict())), 'pytorch')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match='slurm needs GPUs'):
        prepare(Config(dict(model=dict())), 'slurm')


def test_missing_config_and_toolbox(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing\.py'):
        load_config('nothing.py')
    config = tmp_path / 'c.py'
    config.write_text("default_scope = 'mmdet'\n")
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ToolboxMissingError, match=r"pip install 'mmslak\[det\]'"):
        load_config(config)


def test_importing_needs_no_toolbox():
    """In a fresh process that cannot import any toolbox."""
    code = (
        'import sys\n'
        "for name in ('mmdet', 'mmseg', 'mmpretrain'): sys.modules[name] = None\n"
        'import mmslak; from mmslak.models import SLaK; SLaK("nano")\n'
        'import mmslak.cli.run, mmslak.engine.runner, mmslak.sample_data, mmslak.analysis\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


@pytest.fixture(scope='module')
def sample(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'sample'
    write_sample_data(root, images=10, size=48)
    return root


def check(root, **dataset):
    dataset = dict(
        dict(
            type='ADE20KDataset',
            data_root=str(root),
            data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        ),
        **dataset,
    )
    check_datasets(Config(dict(train_dataloader=dict(dataset=dataset))), ('train', 'val'))


def test_dataset_checks_pass_on_a_good_layout(sample):
    ade = sample / 'ADEChallengeData2016'
    check(ade)
    check(
        sample / 'coco',
        type='CocoDataset',
        metainfo=dict(classes=THING_CLASSES),
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
    )
    # Datasets inside wrappers are checked.
    inner = dict(type='ADE20KDataset', data_root='/no/such/place', data_prefix=dict(img_path='a'))
    with pytest.raises(DatasetLayoutError, match='/no/such/place'):
        check(ade, type='RepeatDataset', dataset=inner)


def test_dataset_checks_say_what_is_missing(sample, tmp_path):
    with pytest.raises(DatasetLayoutError) as error:
        check(tmp_path / 'nowhere')
    for word in ('nowhere', 'annotations/training/*.png', 'tools/make_sample_data.py', 'data_root'):
        assert word in str(error.value)

    (tmp_path / 'images/training').mkdir(parents=True)
    with pytest.raises(DatasetLayoutError, match=r'no file in .*images/training'):
        check(tmp_path)
    Image.new('RGB', (8, 8)).save(tmp_path / 'images/training/a.jpg')
    with pytest.raises(DatasetLayoutError, match=r'no directory .*annotations/training'):
        check(tmp_path)
    (tmp_path / 'annotations/training').mkdir(parents=True)
    Image.new('P', (8, 8)).save(tmp_path / 'annotations/training/b.png')
    with pytest.raises(DatasetLayoutError, match=r'label map of a\.jpg, .*training/a\.png'):
        check(tmp_path)
    with pytest.raises(DatasetLayoutError, match=r'no file .*instances.json'):
        check(sample / 'coco', type='CocoDataset', ann_file='instances.json', data_prefix=dict())


def test_console_shows_what_a_person_reads():
    import logging

    from mmslak.engine.runner import ConsoleFilter, ConsoleFormatter

    def record(message, level=logging.INFO):
        return logging.LogRecord('mmengine', level, '', 0, message, None, None)

    assert not ConsoleFilter().filter(record('Config:\nmodel = dict()'))
    assert not ConsoleFilter().filter(record('\n' + '-' * 60 + '\nSystem environment:\n'))
    assert ConsoleFilter().filter(record('Iter(train) [1/2]  eta: 0:00:01'))
    table = '\n'.join(
        ['per class results:', '| Class | IoU | Acc |', '| wall | 1.5 | 2.0 |']
        + [f'| {name} | nan | nan |' for name in ('sky', 'tree')]
    )
    shown = ConsoleFormatter().format(record(table))
    assert 'wall' in shown and 'sky' not in shown and '2 classes' in shown
    assert 'WARNING' in ConsoleFormatter().format(record('careful', logging.WARNING))


def test_config_that_a_toolbox_brings_along():
    pytest.importorskip('mmseg')
    cfg = load_config('mmseg::unet/unet-s5-d16_fcn_4xb4-40k_chase-db1-128x128.py')
    assert cfg.model.backbone.type == 'UNet'
    with pytest.raises(FileNotFoundError, match='nothing'):
        load_config('mmseg::unet/nothing.py')
    with pytest.raises(ValueError, match='before :: must be one of mmseg'):
        load_config('torchvision::unet/nothing.py')
