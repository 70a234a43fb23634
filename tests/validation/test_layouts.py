"""Class lists and images, looked at before training."""

import json
import logging

import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from PIL import Image

from mmslak.sample_data import COCO_CATEGORY_IDS, THING_CLASSES, write_sample_data
from mmslak.validation.images import BadImageError, check_images, image_fault
from mmslak.validation.layouts import DatasetLayoutError, check_datasets, read_categories

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


def test_categories_are_read_wherever_they_stand(sample, tmp_path):
    found = read_categories(sample / 'coco' / ANN_FILE)
    assert [item['name'] for item in found] == list(THING_CLASSES)
    assert [item['id'] for item in found] == list(COCO_CATEGORY_IDS)
    # A nested key of the same name must not be taken for the list.
    content = json.loads((sample / 'coco' / ANN_FILE).read_text())
    content['info']['categories'] = 'eight'
    content = dict(categories=content['categories'], info=content['info'])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    assert read_categories(tmp_path / 'a.json') == found


@pytest.mark.parametrize(
    ('text', 'message'),
    [('{"categories": [', 'is not a JSON file'), ('{"images": []}', "no list 'categories'"),
     ('[]', "no list 'categories'"), ('{"categories": [1]}', "no list 'categories'")],
)  # fmt: skip
def test_files_that_are_no_annotations_are_named(tmp_path, text, message):
    (tmp_path / 'bad.json').write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_categories(tmp_path / 'bad.json')
    assert 'bad.json' in str(error.value)


def test_matching_classes_pass(sample):
    assert coco(sample / 'coco', metainfo=dict(classes=THING_CLASSES)) == []
    assert voc(sample, metainfo=dict(classes=THING_CLASSES)) == []


def test_classes_that_the_annotations_lack_are_named(sample):
    with pytest.raises(ValueError, match=r'cube not in the file, ball not in metainfo') as error:
        coco(sample / 'coco', metainfo=dict(classes=('cube', *THING_CLASSES[1:])))
    assert str(THING_CLASSES) in str(error.value)
    with pytest.raises(ValueError, match=r'Tent not in the file, tent not in metainfo'):
        voc(sample, metainfo=dict(classes=(*THING_CLASSES[:-1], 'Tent')))


def test_the_classes_of_the_data_set_are_meant_where_none_are_given(sample):
    pytest.importorskip('mmdet')
    with pytest.raises(ValueError, match=r'person, bicycle, .* and 59 more not in the file'):
        coco(sample / 'coco')
    with pytest.raises(ValueError, match=r'aeroplane, .* not in the file'):
        voc(sample, type='VOCDataset')
    with pytest.raises(ValueError, match='XMLDataset has none of its own'):
        voc(sample)


def test_classes_left_out_on_purpose_are_noted(sample):
    note = coco(sample / 'coco', metainfo=dict(classes=THING_CLASSES[2:]))
    assert len(note) == 1 and 'ball, buoy are not used' in note[0]
    note = voc(sample, metainfo=dict(classes=THING_CLASSES[:1]))
    assert len(note) == 1 and 'are not used' in note[0]
    # A class that no object has is no mistake in VOC's layout.
    assert voc(sample, metainfo=dict(classes=(*THING_CLASSES, 'rare'))) == []


def test_the_order_must_be_that_of_the_file(sample):
    """MMDetection numbers by the file; another order would mislabel everything."""
    with pytest.raises(ValueError, match='in the order of the categories'):
        coco(sample / 'coco', metainfo=dict(classes=THING_CLASSES[::-1]))
    assert voc(sample, metainfo=dict(classes=THING_CLASSES[::-1])) == []


def test_one_class_needs_a_comma(sample):
    with pytest.raises(ValueError, match=r"one class is \('name',\)"):
        coco(sample / 'coco', metainfo=dict(classes='ball'))


def test_heads_must_have_as_many_classes(sample):
    head = dict(num_classes=8)
    for roi_head in (dict(bbox_head=head), dict(bbox_head=[head, head], mask_head=head)):
        coco(sample / 'coco', dict(roi_head=roi_head), metainfo=dict(classes=THING_CLASSES))
    roi_head = dict(bbox_head=[head, dict(num_classes=80)])
    with pytest.raises(ValueError, match=r'roi_head\.bbox_head\.1\.num_classes is 80, .* has 8'):
        coco(sample / 'coco', dict(roi_head=roi_head), metainfo=dict(classes=THING_CLASSES))


def test_files_that_are_not_there_are_named(sample, tmp_path):
    classes = dict(classes=THING_CLASSES)
    with pytest.raises(DatasetLayoutError, match=r'train_evaluator\.ann_file: .*nothing\.json'):
        coco(sample / 'coco', evaluator=dict(ann_file='nothing.json'), metainfo=classes)
    with pytest.raises(DatasetLayoutError, match=r'lists 0\d+, but .*nowhere/0\d+\.xml'):
        voc(sample, metainfo=classes, ann_subdir='nowhere')


@pytest.fixture
def images(tmp_path):
    """Good and bad images, by what is the matter with them."""
    picture = Image.radial_gradient('L').convert('RGB')
    paths = {
        name: tmp_path / f'{name}.jpg' for name in ('good', 'cut', 'text', 'empty', 'trailing')
    }
    picture.save(paths['good'])
    data = paths['good'].read_bytes()
    paths['cut'].write_bytes(data[: len(data) // 2])
    paths['text'].write_text('not a picture')
    paths['empty'].write_bytes(b'')
    # Cameras do write more after the end of the image.
    paths['trailing'].write_bytes(data + bytes(500))
    for suffix in ('png', 'bmp'):
        paths[suffix] = tmp_path / f'good.{suffix}'
        picture.save(paths[suffix])
    paths['missing'] = tmp_path / 'missing.jpg'
    paths['inside'] = tmp_path / 'inside.png'
    damaged = bytearray(paths['png'].read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 40] = bytes(40)
    paths['inside'].write_bytes(bytes(damaged))
    return paths


@pytest.mark.parametrize('decode', [False, True])
def test_faults_of_images(images, decode):
    faults = {name: image_fault(path, decode) for name, path in images.items()}
    for name in ('good', 'png', 'bmp', 'trailing'):
        assert faults[name] is None
    assert faults['missing'] == 'missing' and faults['empty'] == 'empty file'
    assert 'truncated' in faults['cut'] and 'cannot identify' in faults['text']
    # Between its ends a file is only looked at when all are decoded.
    assert bool(faults['inside']) == decode


class ListDataset(BaseDataset):
    """Images by path."""

    def __init__(self, paths, **kwargs):
        self.paths = paths
        super().__init__(**dict(dict(pipeline=[]), **kwargs))

    def load_data_list(self):
        return [dict(img_path=str(path)) for path in self.paths]


@pytest.mark.parametrize('wrap', [lambda d: RepeatDataset(d, 3), lambda d: ConcatDataset([d] * 3)])
def test_bad_images_are_left_out_of_wrapped_data_sets(images, caplog, wrap):
    paths = [images[name] for name in ('good', 'cut', 'png', 'missing')]
    dataset, log = wrap(ListDataset(paths, ann_file='list.txt')), logging.getLogger('test')
    with pytest.raises(BadImageError, match=r'2 of 4 images are missing or damaged:\n.*cut\.jpg'):
        check_images(dataset, skip=False, log=log)
    assert len(dataset) == 12
    with caplog.at_level(logging.WARNING, 'test'):
        check_images(dataset, skip=True, log=log)
    assert '2 of 4 images left out of' in caplog.text
    assert len(dataset) == 6
    names = [dataset.get_data_info(i)['img_path'] for i in range(6)]
    assert set(names) == {str(images['good']), str(images['png'])}


def test_nothing_left_is_an_error(images):
    log = logging.getLogger('test')
    with pytest.raises(BadImageError, match='all 1 images are bad'):
        check_images(ListDataset([images['cut']]), skip=True, log=log)
    with pytest.raises(BadImageError, match='no image is left'):
        check_images(ListDataset([], ann_file='list.txt', serialize_data=False), False, log)


@pytest.mark.parametrize('skip', [False, True])
def test_images_in_an_lmdb_are_not_looked_for_on_the_disk(images, skip):
    class Load:
        backend_args = dict(backend='lmdb', db_path='train.lmdb')

        def __call__(self, item):
            return item

    dataset = ListDataset([images['missing']], ann_file='list.txt', pipeline=[Load()])
    check_images(dataset, skip, logging.getLogger('test'))
    assert len(dataset) == 1
