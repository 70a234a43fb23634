"""Data from elsewhere that would fill the memory, read other files or train on wrong boxes."""

import json
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from PIL import Image

from mmslak.sample_data import THING_CLASSES
from mmslak.validation.data_errors import AnnotationError
from mmslak.validation.images import (
    MAX_IMAGE_PIXELS,
    BadImageError,
    check_images,
    image_fault,
    name_bad_images,
    set_pixel_limit,
)
from mmslak.validation.layouts import check_datasets
from mmslak.validation.masks import check_mask

ANN_FILE = 'annotations/instances_train2017.json'
PIXELS = '900000000 pixels are more than the limit of 100000000'


@pytest.fixture(autouse=True)
def limit():
    """Set the default limit, and Pillow's own one afterwards."""
    before = Image.MAX_IMAGE_PIXELS
    set_pixel_limit(Config())
    yield
    Image.MAX_IMAGE_PIXELS = before


def bomb(path, side=30_000):
    """Write a complete PNG file of less than 100 bytes whose header names side x side pixels."""

    def chunk(kind, data):
        crc = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + crc

    header = struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)
    content = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + content)


# -- images ----------------------------------------------------------------------------------


@pytest.mark.parametrize('decode', [False, True])
def test_image_with_too_many_pixels(tmp_path, decode):
    file = tmp_path / 'bomb.png'
    # From twice the limit on, Pillow itself raises an error.
    for side in (12_000, 30_000):
        bomb(file, side)
        fault = image_fault(file, decode)
        assert f'{side * side} pixels are more than the limit of 100000000' in fault
        assert f'max_image_pixels={side * side} raises it' in fault
    Image.new('L', (60, 50)).save(file)
    assert image_fault(file, decode) is None
    set_pixel_limit(Config(dict(max_image_pixels=2999)))
    assert '3000 pixels are more than the limit of 2999' in image_fault(file, decode)
    set_pixel_limit(Config(dict(max_image_pixels=3000)))
    assert image_fault(file, decode) is None


@pytest.mark.parametrize('value', [0, -1, 1.5, 'many', True, None])
def test_limit_must_be_a_positive_integer(value):
    with pytest.raises(ValueError, match='max_image_pixels must be a positive integer'):
        check_datasets(Config(dict(max_image_pixels=value)), ())


def test_limit_that_is_documented():
    assert MAX_IMAGE_PIXELS == 100_000_000
    page = (Path(__file__).parents[2] / 'docs/reliability.md').read_text()
    assert '100 million pixels' in page and 'max_image_pixels=N' in page


class Listed(BaseDataset):
    """A dataset of image files, with or without a file that lists them."""

    def __init__(self, names, root, ann_file=''):
        self.names = names
        self.decoded = []
        super().__init__(
            ann_file=ann_file,
            data_root=str(root),
            data_prefix=dict(img_path='images'),
            pipeline=[lambda item: self.decoded.append(item['img_path']) or item],
            serialize_data=False,
        )

    def load_data_list(self):
        folder = Path(self.data_prefix['img_path'])
        return [dict(img_path=str(folder / name), sample_idx=0) for name in self.names]


@pytest.mark.parametrize('key', ['img_path', 'seg_map_path'])
def test_pipeline_does_not_decode_it(tmp_path, key):
    """Also with a process that does not have the limit, as a worker process that is spawned."""
    bomb(tmp_path / 'bomb.png')
    dataset = Listed([], tmp_path)
    name_bad_images(dataset)
    assert isinstance(dataset.pipeline, Compose)
    Image.MAX_IMAGE_PIXELS = None
    with pytest.raises(BadImageError, match=PIXELS) as error:
        dataset.pipeline({'img_path': 'good.png', key: str(tmp_path / 'bomb.png')})
    assert 'bomb.png' in str(error.value) and not dataset.decoded


def test_it_can_be_skipped(tmp_path):
    (tmp_path / 'images').mkdir()
    bomb(tmp_path / 'images/bomb.png')
    Image.new('L', (60, 50)).save(tmp_path / 'images/good.png')
    dataset = Listed(['bomb.png', 'good.png'], tmp_path, 'list.txt')
    with pytest.raises(BadImageError, match=PIXELS):
        check_images(dataset, False, log=None)
    log = type('Log', (), dict(warning=print))
    check_images(dataset, True, log)
    assert [Path(item['img_path']).name for item in dataset.data_list] == ['good.png']


# -- paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['../../secret.png', '{outside}/secret.png'])
def test_listed_image_in_another_directory(tmp_path, name):
    root = tmp_path / 'data'
    (root / 'images').mkdir(parents=True)
    Image.new('L', (8, 8)).save(tmp_path / 'secret.png')
    name = name.format(outside=tmp_path)
    with pytest.raises(AnnotationError, match=r'list.txt names the file .*secret\.png') as error:
        check_images(Listed([name], root, 'list.txt'), False, log=None)
    assert f'not in the data directory {root}' in str(error.value)
    # Within data_root, an image may be in another directory than the prefix, or behind a link.
    Image.new('L', (8, 8)).save(root / 'a.png')
    (root / 'images/link.png').symlink_to(tmp_path / 'secret.png')
    check_images(Listed(['../a.png', 'link.png'], root, 'list.txt'), False, log=None)


# -- annotations -----------------------------------------------------------------------------


@pytest.fixture(scope='module')
def sample(sample_data):
    return sample_data(10, 48)


def check_coco(root, masks=True):
    dataset = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file=ANN_FILE,
        data_prefix=dict(img='train2017/'),
        metainfo=dict(classes=THING_CLASSES),
        pipeline=[dict(type='LoadAnnotations', with_mask=masks)],
    )
    return check_datasets(Config(dict(train_dataloader=dict(dataset=dataset))), ('train',))


def image(**changes):
    return lambda content: content['images'][0].update(changes)


def entry(**changes):
    return lambda content: first(content).update(changes)


def first(content):
    return next(item for item in content['annotations'] if not item['iscrowd'])


def rle(extra=0, size=(0, 0), counts=None):
    """Replace the mask of the first object by an RLE with more rows or pixels than its image."""

    def change(content):
        item = first(content)
        shape = next(i for i in content['images'] if i['id'] == item['image_id'])
        height, width = shape['height'] + size[0], shape['width'] + size[1]
        runs = [3, height * width - 3 + extra] if counts is None else counts
        item['segmentation'] = dict(size=[height, width], counts=runs)

    return change


COCO = [
    ('file above', image(file_name='../../../secret.jpg'), r'names the file .*secret\.jpg'),
    ('absolute file', image(file_name='/etc/passwd'), r'names the file /etc/passwd, which is not'),
    ('file name is a number', image(file_name=5), 'must have id and file_name, got 5'),
    ('id is a list', image(id=[1]), 'must have id and file_name'),
    ('image is a number', lambda c: c['images'].append(5), 'images in .* must be a list of dicts'),
    ('objects are a dict', lambda c: c.update(annotations={'a': 1}), 'annotations in .* list of'),
    ('giant image', image(width=30_000, height=30_000), PIXELS),
    ('size of a later image', lambda c: c['images'][-1].update(height='tall'), 'positive width'),
    ('giant box', entry(bbox=[0, 0, 1e30, 5]), r'bbox .*1e\+30.* more than 10 times as large'),
    ('box beyond floats', entry(bbox=[0, 0, 10**400, 5]), 'bbox must be'),
    ('far box', entry(bbox=[-5000, 0, 5000, 5]), 'more than 10 times as large'),
    ('infinite box', entry(bbox=[0, 0, float('inf'), 5]), 'bbox must be'),
    ('NaN box', entry(bbox=[float('nan'), 0, 5, 5]), 'bbox must be'),
    ('text in a box', entry(bbox=['0', 0, 5, 5]), 'bbox must be'),
    ('NaN area', entry(area=float('nan')), 'area must be a number, got nan'),
    ('text as area', entry(area='5'), "area must be a number, got '5'"),
    ('category is a list', entry(category_id=[1]), r'category_id \[1\]'),
    ('giant polygon', entry(segmentation=[[0, 0, 1e9, 0, 5, 5]]), 'more than 10 times as large'),
    ('NaN polygon', entry(segmentation=[[0, 0, float('nan'), 0, 5, 5]]), 'must be lists of num'),
    ('polygon of texts', entry(segmentation=[['a'] * 6]), 'must be lists of numbers'),
    ('polygon is a text', entry(segmentation='mask'), 'size of the RLE must be'),
    ('ignored giant polygon', entry(ignore=1, segmentation=[[0, 0, 1e9, 0, 5, 5]]), '10 times'),
    ('RLE too large', rle(size=(9, 0)), 'size of the RLE must be .* height and width of its image'),
    ('RLE giant', rle(size=(10**9, 10**9)), 'size of the RLE must be'),
    ('RLE too short', rle(extra=-5), 'counts of the RLE .* with the sum'),
    ('RLE too long', rle(extra=5), 'counts of the RLE .* with the sum'),
    ('RLE negative', rle(counts=[-5, 5]), 'counts of the RLE'),
    ('RLE of texts', rle(counts=['5']), 'counts of the RLE'),
    ('RLE of nothing', rle(counts={}), 'counts of the RLE'),
    ('RLE compressed', rle(counts='0PP4'), 'counts of the RLE'),
]  # fmt: skip


@pytest.mark.parametrize(
    ('change', 'message'), [row[1:] for row in COCO], ids=[row[0] for row in COCO]
)
def test_coco(sample, tmp_path, change, message):
    root = Path(shutil.copytree(sample / 'coco', tmp_path / 'coco'))
    assert check_coco(root) == []
    content = json.loads((root / ANN_FILE).read_text())
    change(content)
    (root / ANN_FILE).write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=message) as error:
        check_coco(root)
    assert 'instances_train2017.json' in str(error.value)


def test_deeply_nested_json(sample, tmp_path):
    root = Path(shutil.copytree(sample / 'coco', tmp_path / 'coco'))
    (root / ANN_FILE).write_text('[' * 100_000)
    with pytest.raises(ValueError, match='is not a JSON file'):
        check_coco(root)


def test_image_of_coco_with_too_many_pixels_is_not_opened(sample, tmp_path):
    """The annotation file has the right size, so only the header shows it."""
    root = Path(shutil.copytree(sample / 'coco', tmp_path / 'coco'))
    content = json.loads((root / ANN_FILE).read_text())
    bomb(root / 'train2017' / content['images'][0]['file_name'])
    # The runner reports it when it builds the dataset.
    assert check_coco(root) == []
    assert PIXELS in image_fault(root / 'train2017' / content['images'][0]['file_name'])


def test_masks_of_pycocotools_pass():
    coder = pytest.importorskip('pycocotools.mask')
    rng = np.random.default_rng(0)
    for height, width in [(1, 1), (7, 5), (48, 64), (300, 200)]:
        for density in (0, 0.01, 0.5, 1):
            mask = rng.random((height, width)) < density
            code = coder.encode(np.asfortranarray(mask.astype(np.uint8)))
            text = code['counts'].decode()
            check_mask(dict(size=[height, width], counts=text), width, height, 'mask')
            # A code that ends early, or has another character.
            for wrong in (text[:-1], text + '1', text + ' '):
                with pytest.raises(AnnotationError, match='counts of the RLE'):
                    check_mask(dict(size=[height, width], counts=wrong), width, height, 'mask')


def check_voc(root, **dataset):
    dataset = dict(
        type='XMLDataset',
        ann_file='VOC2007/ImageSets/Main/trainval.txt',
        data_root=str(root),
        data_prefix=dict(sub_data_root='VOC2007/'),
        metainfo=dict(classes=THING_CLASSES),
        **dataset,
    )
    return check_datasets(Config(dict(train_dataloader=dict(dataset=dataset))), ('train',))


NESTED = ''.join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
DOCTYPES = {
    'nested entities': f'<!DOCTYPE a [<!ENTITY a0 "ball">{NESTED}]>',
    'long entity': f'<!DOCTYPE a [<!ENTITY a9 "{"ball" * 10_000}">]>',
    'external entity': '<!DOCTYPE a [<!ENTITY a9 SYSTEM "file:///etc/hostname">]>',
    'external document type': '<!DOCTYPE a SYSTEM "http://localhost/a.dtd">',
}
XML = [
    *(
        (name, r'<annotation>(.*?)<name>\w+', rf'{text}<annotation>\1<name>&a9;', 'has a DOCTYPE')
        for name, text in DOCTYPES.items()
    ),
    ('unknown encoding', '^', '<?xml version="1.0" encoding="nothing"?>', 'is not an XML file'),
    ('giant box', r'<xmax>\d+', '<xmax>1e300', 'more than 10 times as large as its image'),
    ('far box', r'<xmin>\d+', '<xmin>-5000', 'more than 10 times as large as its image'),
    ('infinite box', r'<xmax>\d+', '<xmax>inf', 'has no numbers'),
    ('NaN box', r'<xmax>\d+', '<xmax>nan', 'has no numbers'),
    ('negative box', r'<xmin>\d+(.*?)<xmax>\d+', r'<xmin>-9\1<xmax>-5', 'outside of its image'),
    ('box beside the image', r'<xmin>\d+(.*?)<xmax>\d+', r'<xmin>90\1<xmax>95', 'outside of its'),
    ('size zero', r'<width>\d+', '<width>0', 'width and height in .* must be positive integers'),
    ('size is a text', r'<width>\d+', '<width>wide', 'must be positive integers'),
    ('giant size', r'<width>\d+(.*?)<height>\d+', r'<width>30000\1<height>30000', PIXELS),
]


@pytest.mark.parametrize(
    ('pattern', 'text', 'message'), [row[1:] for row in XML], ids=[row[0] for row in XML]
)
def test_voc(sample, tmp_path, pattern, text, message):
    root = Path(shutil.copytree(sample / 'VOCdevkit', tmp_path / 'voc'))
    assert check_voc(root) == []
    file = next(
        path
        for name in (root / 'VOC2007/ImageSets/Main/trainval.txt').read_text().split()
        if '<object>' in (path := root / f'VOC2007/Annotations/{name}.xml').read_text()
    )
    changed, count = re.subn(pattern, text, file.read_text(), count=1, flags=re.DOTALL)
    assert count == 1
    file.write_text(changed)
    with pytest.raises(AnnotationError, match=message) as error:
        check_voc(root)
    assert file.name in str(error.value)


def test_voc_image_without_a_size(sample, tmp_path):
    """MMDetection decodes the image if its annotation file has no size."""
    root = Path(shutil.copytree(sample / 'VOCdevkit', tmp_path / 'voc'))
    name = (root / 'VOC2007/ImageSets/Main/trainval.txt').read_text().split()[0]
    file = root / f'VOC2007/Annotations/{name}.xml'
    file.write_text(re.sub('<size>.*?</size>', '', file.read_text(), flags=re.DOTALL))
    assert check_voc(root) == []
    bomb(root / f'VOC2007/JPEGImages/{name}.jpg')
    with pytest.raises(BadImageError, match=PIXELS):
        check_voc(root)


@pytest.mark.parametrize('name', ['../../../secret', '/etc/secret'])
def test_voc_annotation_in_another_directory(sample, tmp_path, name):
    root = Path(shutil.copytree(sample / 'VOCdevkit', tmp_path / 'voc'))
    list_file = root / 'VOC2007/ImageSets/Main/trainval.txt'
    list_file.write_text(f'{list_file.read_text()}{name}\n')
    with pytest.raises(AnnotationError, match=r'trainval\.txt names the file .*secret\.xml'):
        check_voc(root)
