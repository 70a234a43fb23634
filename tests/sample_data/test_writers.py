"""The four layouts, read by independent code, and the encodings of masks."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sample_helpers import FIRST_THING, naive_box, split_of

from mmslak.sample_data import (
    LAYOUTS,
    classes_of,
    largest_object,
    mask_to_polygons,
    mask_to_rle,
    palette_of,
    render_scene,
    thing_classes_of,
    write_sample_data,
)

SMALL = {'images': 25, 'size': 64, 'seed': 3}


@pytest.fixture(scope='module', params=[False, True], ids=['plain', 'context'])
def made(request, tmp_path_factory):
    """A small dataset on disk, its scenes, and whether they have context."""
    root = tmp_path_factory.mktemp('sample') / 'data'
    write_sample_data(root, **SMALL, context=request.param)
    rendered = [
        render_scene(SMALL['seed'], index, SMALL['size'], request.param)
        for index in range(SMALL['images'])
    ]
    return root, rendered, request.param


masks = st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(0, 2**32)).map(
    lambda t: np.random.default_rng(t[2]).random(t[:2]) < 0.6
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(masks)
def test_polygons_and_run_lengths_cover_any_mask_exactly(mask):
    coco = pytest.importorskip('pycocotools.mask')
    height, width = mask.shape
    rle = mask_to_rle(mask)
    assert sum(rle['counts']) == mask.size
    np.testing.assert_array_equal(coco.decode(coco.frPyObjects(rle, height, width)), mask)
    polygons = mask_to_polygons(mask)
    if not mask.any():
        assert polygons == []
        return
    assert all(len(polygon) >= 8 for polygon in polygons)
    decoded = coco.decode(coco.merge(coco.frPyObjects(polygons, height, width)))
    np.testing.assert_array_equal(decoded, mask)


def test_ade20k(made):
    root, rendered, context = made
    folder = root / LAYOUTS['ADE20K']
    for scene in rendered:
        kind, prefix = ('validation', 'val') if split_of(scene) == 'val' else ('training', 'train')
        name = f'ADE_{prefix}_{scene.index + 1:08d}'
        labels = Image.open(folder / 'annotations' / kind / f'{name}.png')
        assert labels.mode == 'P'
        np.testing.assert_array_equal(np.array(labels), scene.semantic)
        assert labels.getpalette()[:3] == [0, 0, 0]
        assert tuple(labels.getpalette()[3:6]) == palette_of(context)[0]
        image = np.array(Image.open(folder / 'images' / kind / f'{name}.jpg'))
        assert image.shape == scene.image.shape
        assert np.abs(image.astype(int) - scene.image).mean() < 4
    files = [path for path in folder.rglob('*') if path.suffix in ('.jpg', '.png')]
    assert len(files) == 2 * len(rendered)
    assert (folder / 'classes.txt').read_text().split() == list(classes_of(context))


def test_coco(made, capsys):
    coco_module = pytest.importorskip('pycocotools.coco')
    root, rendered, context = made
    folder = root / LAYOUTS['COCO']
    seen = set()
    for split in ('train', 'val'):
        path = folder / f'annotations/instances_{split}2017.json'
        content = json.loads(path.read_text())
        assert set(content) == {'info', 'licenses', 'images', 'annotations', 'categories'}
        coco = coco_module.COCO(path)
        names = [category['name'] for category in coco.loadCats(coco.getCatIds())]
        assert names == list(thing_classes_of(context))
        assert coco.getCatIds() != list(range(1, 9)), 'ids should have gaps'
        expected = [scene for scene in rendered if split_of(scene) == split]
        assert coco.getImgIds() == [scene.index + 1 for scene in expected]
        assert len(list((folder / f'{split}2017').iterdir())) == len(expected)
        for scene in expected:
            (info,) = coco.loadImgs([scene.index + 1])
            assert (info['height'], info['width']) == scene.semantic.shape
            image = Image.open(folder / f'{split}2017' / info['file_name'])
            assert image.size == (info['width'], info['height'])
            annotations = coco.loadAnns(coco.getAnnIds(imgIds=[info['id']]))
            for annotation, instance in zip(annotations, scene.instances, strict=True):
                assert annotation['id'] not in seen
                seen.add(annotation['id'])
                mask = coco.annToMask(annotation).astype(bool)
                np.testing.assert_array_equal(mask, instance.visible)
                assert isinstance(annotation['segmentation'], dict if instance.crowd else list)
                assert annotation['iscrowd'] == instance.crowd
                assert annotation['area'] == mask.sum()
                x0, y0, x1, y1 = naive_box(mask)
                assert annotation['bbox'] == [x0, y0, x1 - x0 + 1, y1 - y0 + 1]
                (category,) = coco.loadCats([annotation['category_id']])
                assert category['name'] == scene.classes[instance.class_id - 1]


def test_voc(made):
    root, rendered, context = made
    folder = root / LAYOUTS['VOC2007']
    sets = {
        name: (folder / f'ImageSets/Main/{name}.txt').read_text().split()
        for name in ('train', 'val', 'trainval', 'test')
    }
    assert sorted(sets['train'] + sets['val']) == sets['trainval']
    assert not set(sets['train']) & set(sets['val'])
    assert not set(sets['trainval']) & set(sets['test'])
    assert sets['test'] == [f'{s.index + 1:06d}' for s in rendered if split_of(s) == 'val']
    assert len(sets['trainval']) + len(sets['test']) == len(rendered)
    flags = {name: {} for name in thing_classes_of(context)}
    for scene in rendered:
        name = f'{scene.index + 1:06d}'
        xml = ElementTree.parse(folder / f'Annotations/{name}.xml').getroot()
        assert xml.findtext('filename') == f'{name}.jpg'
        image = Image.open(folder / f'JPEGImages/{name}.jpg')
        size = [int(xml.findtext(f'size/{key}')) for key in ('width', 'height', 'depth')]
        assert size == [*image.size, 3]
        for tag, instance in zip(xml.findall('object'), scene.instances, strict=True):
            corners = [int(tag.findtext(f'bndbox/{k}')) for k in ('xmin', 'ymin', 'xmax', 'ymax')]
            assert corners == [value + 1 for value in naive_box(instance.visible)]
            assert int(tag.findtext('difficult')) == instance.difficult
            assert int(tag.findtext('truncated')) == instance.truncated
            class_name = tag.findtext('name')
            assert class_name == scene.classes[instance.class_id - 1]
            flags[class_name].setdefault(name, []).append(instance.difficult)
    for class_name, present in flags.items():
        lines = (folder / f'ImageSets/Main/{class_name}_trainval.txt').read_text().splitlines()
        assert [line.split()[0] for line in lines] == sets['trainval']
        for name, flag in map(str.split, lines):
            expected = -1 if name not in present else 0 if all(present[name]) else 1
            assert int(flag) == expected


def test_imagenet(made):
    root, rendered, context = made
    folder = root / LAYOUTS['ImageNet']
    found = {}
    for split in ('train', 'val'):
        names = sorted(path.name for path in (folder / split).iterdir())
        assert names == list(thing_classes_of(context))
        lines = (folder / f'meta/{split}.txt').read_text().splitlines()
        files = [
            path.relative_to(folder / split).as_posix() for path in folder.glob(f'{split}/*/*')
        ]
        assert [line.split()[0] for line in lines] == sorted(files)
        for path, label in map(str.split, lines):
            assert names[int(label)] == path.split('/')[0]
            number = int(path.split('/')[1].split('_')[2])
            found[number - 1] = (split, int(label), Image.open(folder / split / path).size)
    for scene in rendered:
        instance = largest_object(scene)
        if instance is None:
            assert scene.index not in found
            continue
        split, label, (width, height) = found[scene.index]
        assert split == split_of(scene)
        assert label == instance.class_id - FIRST_THING
        clear = [i for i in scene.instances if not i.crowd and not i.difficult]
        assert instance.visible.sum() == max(i.visible.sum() for i in clear)
        x0, y0, x1, y1 = instance.bbox
        assert width >= x1 - x0 and height >= y1 - y0
        if context:
            assert (height, width) == scene.semantic.shape, 'the cue must be in the image'


def test_every_class_is_in_both_splits_of_the_default_set():
    for context in (False, True):
        semantic, things, folders = ({'train': set(), 'val': set()} for _ in range(3))
        for index in range(200):
            scene = render_scene(0, index, context=context)
            split = split_of(scene)
            semantic[split] |= set(np.unique(scene.semantic).tolist())
            things[split] |= {instance.class_id for instance in scene.instances}
            instance = largest_object(scene)
            folders[split] |= {instance.class_id} if instance else set()
        for split in ('train', 'val'):
            assert semantic[split] == set(range(13))
            assert things[split] == folders[split] == set(range(5, 13))
