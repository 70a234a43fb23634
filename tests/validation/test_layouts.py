"""Directories, annotation files and class lists of datasets."""

import json

import pytest
from mmengine.config import Config

from mmslak.sample_data import COCO_CATEGORY_IDS, THING_CLASSES, write_sample_data
from mmslak.validation.coco_annotations import read_annotations
from mmslak.validation.layouts import DatasetLayoutError, check_datasets

ANN_FILE = 'annotations/instances_train2017.json'


@pytest.fixture(scope='module')
def sample(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'sample'
    write_sample_data(root, images=10, size=48)
    return root


def coco(root, model=None, evaluator=None, **dataset):
    dataset = dict(
        type='CocoDataset', data_root=str(root), ann_file=ANN_FILE, data_prefix=dict(), **dataset
    )
    cfg = dict(train_dataloader=dict(dataset=dataset), model=model or {})
    return check_datasets(Config(dict(cfg, train_evaluator=evaluator)), ('train',))


def voc(root, **dataset):
    dataset = dict(
        dict(type='XMLDataset', ann_file='VOC2007/ImageSets/Main/trainval.txt'),
        data_root=str(root / 'VOCdevkit'),
        data_prefix=dict(sub_data_root='VOC2007/'),
        **dataset,
    )
    return check_datasets(Config(dict(train_dataloader=dict(dataset=dataset))), ('train',))


def test_categories_are_read_at_any_position(sample, tmp_path):
    found = read_annotations(sample / 'coco' / ANN_FILE)['categories']
    assert [item['name'] for item in found] == list(THING_CLASSES)
    assert [item['id'] for item in found] == list(COCO_CATEGORY_IDS)
    # A nested key of the same name is not the list.
    content = json.loads((sample / 'coco' / ANN_FILE).read_text())
    content['info']['categories'] = 'eight'
    content = dict(categories=content['categories'], info=content['info'])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    assert read_annotations(tmp_path / 'a.json')['categories'] == found


@pytest.mark.parametrize(
    ('text', 'message'),
    [('{"categories": [', 'is not a JSON file'), ('{"images": []}', "no list 'categories'"),
     ('[]', "no list 'categories'"), ('{"categories": [1]}', "no list 'categories'")],
)  # fmt: skip
def test_files_without_annotations_are_named(tmp_path, text, message):
    (tmp_path / 'bad.json').write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(tmp_path / 'bad.json')
    assert 'bad.json' in str(error.value)


def test_matching_classes_pass(sample):
    assert coco(sample / 'coco', metainfo=dict(classes=THING_CLASSES)) == []
    assert voc(sample, metainfo=dict(classes=THING_CLASSES)) == []


def test_classes_missing_in_the_annotations_are_named(sample):
    with pytest.raises(ValueError, match=r'cube not in the file, ball not in metainfo') as error:
        coco(sample / 'coco', metainfo=dict(classes=('cube', *THING_CLASSES[1:])))
    assert str(THING_CLASSES) in str(error.value)
    with pytest.raises(ValueError, match=r'Tent not in the file, tent not in metainfo'):
        voc(sample, metainfo=dict(classes=(*THING_CLASSES[:-1], 'Tent')))


def test_default_classes_of_the_dataset_type(sample):
    pytest.importorskip('mmdet')
    with pytest.raises(ValueError, match=r'person, bicycle, .* and 59 more not in the file'):
        coco(sample / 'coco')
    with pytest.raises(ValueError, match=r'aeroplane, .* not in the file'):
        voc(sample, type='VOCDataset')
    with pytest.raises(ValueError, match='XMLDataset has no default'):
        voc(sample)


def test_unused_classes_are_noted(sample):
    note = coco(sample / 'coco', metainfo=dict(classes=THING_CLASSES[2:]))
    assert len(note) == 1 and 'are not used: ball, buoy' in note[0]
    note = voc(sample, metainfo=dict(classes=THING_CLASSES[:1]))
    assert len(note) == 1 and 'are not used' in note[0]
    # In the layout of VOC a class without objects is allowed.
    assert voc(sample, metainfo=dict(classes=(*THING_CLASSES, 'rare'))) == []


def test_the_order_must_be_that_of_the_file(sample):
    """MMDetection numbers classes in the order of the file, so another order gives wrong labels."""
    with pytest.raises(ValueError, match='in the order of the categories'):
        coco(sample / 'coco', metainfo=dict(classes=THING_CLASSES[::-1]))
    assert voc(sample, metainfo=dict(classes=THING_CLASSES[::-1])) == []


def test_one_class_needs_a_comma(sample):
    with pytest.raises(ValueError, match=r"one class is \('name',\)"):
        coco(sample / 'coco', metainfo=dict(classes='ball'))


def test_heads_must_have_the_same_number_of_classes(sample):
    head = dict(num_classes=8)
    for roi_head in (dict(bbox_head=head), dict(bbox_head=[head, head], mask_head=head)):
        coco(sample / 'coco', dict(roi_head=roi_head), metainfo=dict(classes=THING_CLASSES))
    roi_head = dict(bbox_head=[head, dict(num_classes=80)])
    with pytest.raises(ValueError, match=r'roi_head\.bbox_head\.1\.num_classes is 80, .* has 8'):
        coco(sample / 'coco', dict(roi_head=roi_head), metainfo=dict(classes=THING_CLASSES))


def test_missing_files_are_named(sample, tmp_path):
    classes = dict(classes=THING_CLASSES)
    with pytest.raises(DatasetLayoutError, match=r'train_evaluator\.ann_file: .*nothing\.json'):
        coco(sample / 'coco', evaluator=dict(ann_file='nothing.json'), metainfo=classes)
    with pytest.raises(DatasetLayoutError, match=r'lists 0\d+, but .*nowhere/0\d+\.xml'):
        voc(sample, metainfo=classes, ann_subdir='nowhere')
