"""Detection from end to end: a small network on sample data, by the command lines."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers import ROOT

pytest.importorskip('mmdet')
from mmengine.registry import init_default_scope

from mmslak.cli.config import load_config
from mmslak.cli.run import run
from mmslak.models import SLaK
from mmslak.sample_data import COCO_CATEGORY_IDS, THING_CLASSES
from mmslak.validation.images import BadImageError

COCO = str(ROOT / 'configs/sample/cascade_mask_rcnn_slak_nano_coco.py')
VOC = str(ROOT / 'configs/sample/faster_rcnn_slak_nano_voc.py')
#: Two iterations of two images, then a validation.
SMALL = {
    'train_cfg.max_epochs': 1,
    'train_cfg.val_interval': 1,
    'train_dataloader.num_batch_per_epoch': 2,
    'train_dataloader.batch_size': 2,
    'default_hooks.logger.interval': 1,
    'default_hooks.checkpoint.interval': 1,
    **{
        f'{split}_dataloader.{key}': value
        for split in ('train', 'val', 'test')
        for key, value in (('num_workers', 0), ('persistent_workers', False))
    },
}


def call(task, config, *arguments, work_dir, data_root, **options):
    """Run a tool in this process. In the names of options, double underscores stand for dots."""
    options = {**SMALL, 'data_root': data_root, **options}
    options = [f'{key.replace("__", ".")}={value}' for key, value in options.items()]
    arguments = [config, *map(str, arguments), '--work-dir', str(work_dir)]
    return run(task, [*arguments, '--cfg-options', *options])


def losses(work_dir):
    """Return the losses that training logged."""
    lines = next(Path(work_dir).glob('*/vis_data/scalars.json')).read_text().splitlines()
    return [entry['loss'] for entry in map(json.loads, lines) if 'loss' in entry]


def log(work_dir):
    """Return the text of all log files."""
    return '\n'.join(path.read_text() for path in sorted(Path(work_dir).glob('*/*.log')))


@pytest.fixture(scope='module')
def sample(sample_data):
    return sample_data(20, 96)


@pytest.fixture
def coco(sample, tmp_path):
    """Return a copy of the sample data in COCO format, which the test may change."""
    return Path(shutil.copytree(sample / 'coco', tmp_path / 'coco'))


def edit(coco, split, change):
    """Change the annotations of a split in place, and return them."""
    path = coco / f'annotations/instances_{split}2017.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return content


@pytest.fixture(scope='module')
def cascade(sample, tmp_path_factory):
    """Train a Cascade Mask R-CNN, and return the work directory."""
    work_dir = tmp_path_factory.mktemp('cascade')
    call('train', COCO, work_dir=work_dir, data_root=sample / 'coco')
    return work_dir


@pytest.fixture(scope='module')
def faster(sample, tmp_path_factory):
    """Train a Faster R-CNN, and return the work directory."""
    work_dir = tmp_path_factory.mktemp('faster')
    call('train', VOC, '--auto-scale-lr', work_dir=work_dir, data_root=sample / 'VOCdevkit',
         optim_wrapper__accumulative_counts=2)  # fmt: skip
    return work_dir


def test_cascade_mask_rcnn_trains_and_its_checkpoint_loads_safely(cascade):
    assert len(losses(cascade)) == 2 and all(map(math.isfinite, losses(cascade)))
    assert torch.load(cascade / 'epoch_1.pth', weights_only=True)['meta']['iter'] == 2
    assert list(cascade.glob('best_coco_bbox_mAP_*'))


def test_results_in_coco_format(cascade, sample, tmp_path):
    """They have the same scores when evaluated again, and the category ids of the file."""
    from pycocotools.coco import COCO as Api
    from pycocotools.cocoeval import COCOeval

    scores = call(
        'test', COCO, cascade / 'epoch_1.pth', '--out', tmp_path / 'r/results.json',
        '--show-dir', tmp_path / 'pictures', work_dir=tmp_path / 'w', data_root=sample / 'coco',
        model__test_cfg__rcnn__score_thr=0.001,
    )  # fmt: skip
    results = json.loads((tmp_path / 'r/results.json').read_text())
    assert results and {entry['category_id'] for entry in results} <= set(COCO_CATEGORY_IDS)
    truth = Api(str(sample / 'coco/annotations/instances_val2017.json'))
    for entry in results[:5]:
        assert set(entry) == {'image_id', 'category_id', 'bbox', 'score', 'segmentation'}
        image = truth.imgs[entry['image_id']]
        x, y, width, height = entry['bbox']
        assert x >= 0 and y >= 0 and x + width <= image['width'] + 1e-3
        assert y + height <= image['height'] + 1e-3
        assert entry['segmentation']['size'] == [image['height'], image['width']]
    found = truth.loadRes(results)
    for kind in ('bbox', 'segm'):
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert scores[f'coco/{kind}_mAP_50'] == pytest.approx(evaluation.stats[1], abs=1e-3)
    names = {Path(image['file_name']).with_suffix('.png').name for image in truth.imgs.values()}
    assert {path.name for path in (tmp_path / 'pictures').iterdir()} == names
    text = log(tmp_path / 'w')
    assert '| category' in text and '| tent' in text


def test_faster_rcnn_has_both_scores_of_voc(faster, sample, tmp_path):
    out = tmp_path / 'results.json'
    scores = call(
        'test', VOC, faster / 'epoch_1.pth', '--out', out, work_dir=tmp_path / 'w',
        data_root=sample / 'VOCdevkit', model__test_cfg__rcnn__score_thr=0.001,
    )  # fmt: skip
    assert {'pascal_voc/mAP', 'pascal_voc_area/mAP'} <= set(scores)
    stems = (sample / 'VOCdevkit/VOC2007/ImageSets/Main/test.txt').read_text().split()
    results = json.loads(out.read_text())
    assert {entry['image_id'] for entry in results} <= set(stems)
    assert {entry['category_id'] for entry in results} <= set(range(1, 9))
    assert 'segmentation' not in results[0]
    # The table has the class names of the dataset, not those of VOC.
    assert '| starfish' in log(tmp_path / 'w')
    assert list(faster.glob('best_pascal_voc_mAP_*'))
    pickled = tmp_path / 'all.pkl'
    call('test', VOC, faster / 'epoch_1.pth', '--out', pickled, work_dir=tmp_path / 'v',
         data_root=sample / 'VOCdevkit')  # fmt: skip
    assert pickled.is_file()
    with pytest.raises(ValueError, match=r'must end with \.json or \.pkl'):
        call('test', VOC, 'none', '--out', tmp_path / 'label_maps', work_dir=tmp_path / 'v',
             data_root=sample / 'VOCdevkit')  # fmt: skip


def test_learning_rate_scales_with_the_batch_size(faster):
    """A step has 2 x 2 images and the rate is for 16, so the rate is a quarter of the config's."""
    groups = torch.load(faster / 'epoch_1.pth', weights_only=True)['optimizer']['param_groups']
    rate = load_config(VOC).optim_wrapper.optimizer.lr
    assert [group['initial_lr'] for group in groups] == pytest.approx([rate / 4] * len(groups))


def test_training_on_images_without_objects(coco, tmp_path):
    def empty(content):
        content['annotations'] = []

    edit(coco, 'train', empty)
    options = dict(work_dir=tmp_path / 'w', data_root=coco)
    with pytest.raises(BadImageError, match='contains no image'):
        call('train', COCO, **options)
    options['work_dir'] = tmp_path / 'v'
    call('train', COCO, train_dataloader__dataset__filter_cfg__filter_empty_gt=False, **options)
    assert len(losses(tmp_path / 'v')) == 2 and all(map(math.isfinite, losses(tmp_path / 'v')))


def test_one_class_and_batch_size_one(coco, tmp_path):
    def one_class(content):
        content['categories'] = [dict(id=7, name='thing', supercategory='')]
        for annotation in content['annotations']:
            annotation['category_id'] = 7

    for split in ('train', 'val'):
        edit(coco, split, one_class)
    config = tmp_path / 'one.py'
    config.write_text(f"""
_base_ = {COCO!r}
data_root = {str(coco)!r}
dataset = dict(data_root=data_root, metainfo=dict(classes=('thing',), palette=[(255, 0, 0)]))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
val_evaluator = dict(ann_file=data_root + '/annotations/instances_val2017.json')
test_evaluator = val_evaluator
heads = [dict(head, num_classes=1) for head in _base_.model.roi_head.bbox_head]
model = dict(roi_head=dict(bbox_head=heads, mask_head=dict(num_classes=1)))
""")
    options = dict(data_root=coco, train_dataloader__batch_size=1)
    call('train', str(config), work_dir=tmp_path / 'w', **options)
    assert len(losses(tmp_path / 'w')) == 2 and all(map(math.isfinite, losses(tmp_path / 'w')))
    out = tmp_path / 'results.json'
    call('test', str(config), tmp_path / 'w/epoch_1.pth', '--out', out, work_dir=tmp_path / 'w',
         model__test_cfg__rcnn__score_thr=0.0, **options)  # fmt: skip
    assert {entry['category_id'] for entry in json.loads(out.read_text())} == {7}


def test_boxes_outside_the_image_are_clipped(coco):
    def enlarge(content):
        for annotation in content['annotations']:
            x, y, width, height = annotation['bbox']
            annotation['bbox'] = [x - 40, y - 40, width + 80, height + 200]

    edit(coco, 'train', enlarge)
    cfg = load_config(COCO, dict(data_root=str(coco)))
    init_default_scope('mmdet')
    from mmdet.registry import DATASETS

    for item in DATASETS.build(cfg.train_dataloader.dataset):
        height, width = item['data_samples'].img_shape
        boxes = item['data_samples'].gt_instances.bboxes.tensor
        assert (boxes >= 0).all()
        assert (boxes[:, 0::2] <= width).all() and (boxes[:, 1::2] <= height).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_wrong_class_list_is_named_before_training(coco, sample, tmp_path):
    options = dict(work_dir=tmp_path / 'w', data_root=coco)
    with pytest.raises(ValueError, match=r'metainfo\.classes does not match .*: cube not in the'):
        classes = str(['cube', *THING_CLASSES[1:]]).replace(' ', '')
        keys = [f'{split}_dataloader__dataset__metainfo__classes' for split in ('train', 'val')]
        call('train', COCO, **options, **dict.fromkeys(keys, classes))
    assert not (tmp_path / 'w').exists()


def test_bad_images_are_named_or_skipped(coco, tmp_path):
    images = sorted((coco / 'train2017').iterdir())
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:400])
    images[2].write_text('not a picture')
    options = dict(work_dir=tmp_path / 'w', data_root=coco)
    empty = 'train_dataloader__dataset__filter_cfg__filter_empty_gt'
    with pytest.raises(BadImageError) as error:
        call('train', COCO, **options, **{empty: False})
    for word in (f'{images[0]}: missing', str(images[1]), str(images[2]), '3 of 16', '--skip-bad'):
        assert word in str(error.value)
    options['work_dir'] = tmp_path / 'v'
    call('train', COCO, '--skip-bad-images', **options, **{empty: False})
    assert len(losses(tmp_path / 'v')) == 2
    text = log(tmp_path / 'v')
    assert re.search(r'skipped 3 of 16 images', text) and str(images[1]) in text


def documented_configs():
    """Return the configs in docs/finetune.md by file name."""
    text = (ROOT / 'docs/finetune.md').read_text()
    return dict(re.findall(r'```python\n# (\S+\.py)\n(.*?)```', text, re.DOTALL))


@pytest.mark.parametrize('name', ['my_coco.py', 'my_voc.py'])
def test_documented_configs_fine_tune(name, sample, tmp_path):
    """At most ten lines each; here with three classes, a smaller network and two iterations."""
    text = documented_configs()[name]
    assert len([line for line in text.splitlines() if line and not line.startswith('#')]) <= 10
    base = re.search(r"_base_ = '(.*?)'", text).group(1)
    # The lines below the documented config make images small.
    config = tmp_path / name
    config.write_text(
        text.replace(base, str(ROOT / base))
        + """
small = dict(type='Resize', scale=(96, 96), keep_ratio=True)
pipeline = [*_base_.train_pipeline[:2], small, dict(type='PackDetInputs')]
train_dataloader = dict(dataset=dict(train_dataloader['dataset'], pipeline=pipeline))
"""
    )
    data = tmp_path / 'data'
    if name == 'my_coco.py':
        shutil.copytree(sample / 'coco/train2017', data / 'train')
        shutil.copytree(sample / 'coco/val2017', data / 'val')
        for split in ('train', 'val'):
            source = sample / f'coco/annotations/instances_{split}2017.json'
            content = json.loads(source.read_text())
            renamed = dict(zip(COCO_CATEGORY_IDS, ('cat', 'dog', 'bird'), strict=False))
            content['categories'] = [dict(id=i, name=n) for i, n in renamed.items()]
            content['annotations'] = [
                a for a in content['annotations'] if a['category_id'] in renamed
            ]
            (data / f'{split}.json').write_text(json.dumps(content))
    else:
        shutil.copytree(sample / 'VOCdevkit/VOC2007', data / 'VOC2007')
        for path in (data / 'VOC2007/Annotations').iterdir():
            text = path.read_text()
            for old, new in zip(THING_CLASSES, ('cat', 'dog', 'bird') * 3, strict=False):
                text = text.replace(f'<name>{old}</name>', f'<name>{new}</name>')
            path.write_text(text)
    checkpoint = tmp_path / 'pretrained.pth'
    torch.save(SLaK('nano').state_dict(), checkpoint)
    options = {
        'model.backbone.arch': 'nano',
        'model.backbone.init_cfg.checkpoint': checkpoint,
        'model.neck.in_channels': '[20,41,83,166]',
        'optim_wrapper.paramwise_cfg.num_layers': 4,
        'test_dataloader.dataset.pipeline.1.scale': '(96,96)',
        'val_dataloader.dataset.pipeline.1.scale': '(96,96)',
        'model.train_cfg.rpn_proposal.max_per_img': 16,
        'model.test_cfg.rpn.max_per_img': 16,
    }
    call('train', str(config), work_dir=tmp_path / 'w', data_root=data, **options)
    assert len(losses(tmp_path / 'w')) == 2 and all(map(math.isfinite, losses(tmp_path / 'w')))


#: For real images on a CPU: a shorter side of 256, fewer proposals, batches of 2.
REDUCED = {
    'train_dataloader.num_batch_per_epoch': 12,
    'test_dataloader.dataset.pipeline.1.scale': '(384,256)',
    'val_dataloader.dataset.pipeline.1.scale': '(384,256)',
    'model.train_cfg.rpn_proposal.max_per_img': 100,
    'model.test_cfg.rpn.max_per_img': 100,
    # After a few iterations all scores are low, but the metrics need some boxes.
    'model.test_cfg.rcnn.score_thr': 0.001,
    'val_dataloader.dataset.indices': 8,
    'param_scheduler.0.end': 4,
    'randomness.seed': 0,
}


#: A real dataset in VOC format: blood cells.
BCCD = """
dataset = dict(type='XMLDataset', metainfo=dict(classes=('RBC', 'WBC', 'Platelets')))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
"""


def reduced(config, folder, more=''):
    """Write a config that trains on all images, also those without objects, at a reduced size."""
    path = folder / 'reduced.py'
    path.write_text(f"""
_base_ = {config!r}
{more}
pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='RandomChoiceResize', scales=[(384, 256), (320, 224)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    dataset=dict(locals().get('dataset', {{}}), pipeline=pipeline,
                 filter_cfg=dict(filter_empty_gt=False))
)
""")
    return str(path)


def mean(values):
    return sum(values) / len(values)


@pytest.mark.slow
def test_cascade_with_slak_t_on_real_images(real_data, tmp_path):
    """With crowds, tiny objects, images without objects, portrait and landscape images."""
    config = str(ROOT / 'configs/cascade_mask_rcnn_slak_t_coco.py')
    config = reduced(config, tmp_path)
    call('train', config, work_dir=tmp_path / 'w', data_root=real_data / 'coco', **REDUCED)
    values = losses(tmp_path / 'w')
    assert len(values) == 12 and all(map(math.isfinite, values))
    assert mean(values[-4:]) < 0.9 * mean(values[:4])
    assert 'coco/segm_mAP' in log(tmp_path / 'w')


@pytest.mark.slow
def test_faster_rcnn_with_slak_t_on_real_images(real_data, tmp_path):
    config = reduced(str(ROOT / 'configs/faster_rcnn_slak_t_voc.py'), tmp_path, BCCD)
    options = dict(REDUCED)
    # The learning rate of the recipe is for a pre-trained network.
    options.update({'optim_wrapper.optimizer.lr': 3e-4, 'train_dataloader.num_batch_per_epoch': 40})
    call('train', config, work_dir=tmp_path / 'w', data_root=real_data / 'VOCdevkit', **options)
    values = losses(tmp_path / 'w')
    assert len(values) == 40 and all(map(math.isfinite, values))
    # At first the proposals contain no objects. As soon as they do, the loss jumps, and then falls.
    assert mean(values[-8:]) < 0.9 * mean(values[8:16])
    assert 'pascal_voc_area/mAP' in log(tmp_path / 'w') and '| Platelets' in log(tmp_path / 'w')


@pytest.mark.slow
def test_small_network_overfits_eight_real_images(real_data, tmp_path):
    """The network of the sample config, trained and tested on the same eight images of COCO."""
    source = real_data / 'coco/annotations/instances_train2017.json'
    content = json.loads(source.read_text())
    boxes = {}
    for annotation in content['annotations']:
        boxes.setdefault(annotation['image_id'], []).append(annotation)
    # Images with few and large objects, because they are trained on at a small size.
    images = [
        image
        for image in content['images']
        if 1 <= len(boxes.get(image['id'], [])) <= 5
        and all(
            a['area'] > 0.02 * image['width'] * image['height'] and not a['iscrowd']
            for a in boxes[image['id']]
        )
    ][:8]
    content['images'] = images
    content['annotations'] = [a for image in images for a in boxes[image['id']]]
    (tmp_path / 'eight.json').write_text(json.dumps(content))
    config = tmp_path / 'eight.py'
    config.write_text(f"""
_base_ = {COCO!r}
data_root = {str(real_data / 'coco')!r}
from mmdet.datasets import CocoDataset
meta = {{'_delete_': True, **{{key: list(v) for key, v in CocoDataset.METAINFO.items()}}}}
dataset = dict(
    ann_file={str(tmp_path / 'eight.json')!r},
    data_prefix=dict(img='train2017/'),
    data_root=data_root,
    metainfo=meta,
)
del CocoDataset
heads = [dict(head, num_classes=80) for head in _base_.model.roi_head.bbox_head]
model = dict(roi_head=dict(bbox_head=heads, mask_head=dict(num_classes=80)))
pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='Resize', scale=(192, 192), keep_ratio=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(dataset, pipeline=pipeline))
test_pipeline = [_base_.test_pipeline[0], pipeline[2], *_base_.test_pipeline[2:]]
val_dataloader = dict(dataset=dict(dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(ann_file={str(tmp_path / 'eight.json')!r})
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=400),
]
default_hooks = dict(sparsity=dict(mode='off'))
""")
    options = {
        'train_dataloader.batch_size': 4,
        'train_dataloader.num_batch_per_epoch': 2,
        'train_cfg.max_epochs': 200,
        'train_cfg.val_interval': 200,
        'default_hooks.checkpoint.interval': 200,
        'default_hooks.logger.interval': 50,
    }
    call('train', str(config), work_dir=tmp_path / 'w', data_root=real_data / 'coco', **options)
    best = next((tmp_path / 'w').glob('best_coco_bbox_mAP_*'))
    scores = call('test', str(config), best, work_dir=tmp_path / 'v', data_root=real_data / 'coco')
    assert scores['coco/bbox_mAP_50'] > 0.6
