"""The sample data: the renderer's promises, and the layouts as independent readers see them."""

import hashlib
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmslak.sample_data import (
    CONTEXT_APPEARANCES,
    CONTEXT_CUES,
    LAYOUTS,
    MANIFEST,
    STUFF_CLASSES,
    classes_of,
    largest_object,
    mask_to_polygons,
    mask_to_rle,
    palette_of,
    render_scene,
    thing_classes_of,
    write_sample_data,
)

REPO = Path(__file__).parents[2]
SMALL = {'images': 25, 'size': 64, 'seed': 3}
FIRST_THING = len(STUFF_CLASSES) + 1

scenes = {
    'seed': st.integers(0, 2**40),
    'index': st.integers(0, 10**6),
    'size': st.integers(48, 140),
}
few = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.fixture(scope='module', params=[False, True], ids=['plain', 'context'])
def made(request, tmp_path_factory):
    """A small set on disk and the scenes it was made from."""
    root = tmp_path_factory.mktemp('sample') / 'data'
    write_sample_data(root, **SMALL, context=request.param)
    rendered = [
        render_scene(SMALL['seed'], index, SMALL['size'], request.param)
        for index in range(SMALL['images'])
    ]
    return root, rendered, request.param


def tree_hash(root):
    digest = hashlib.sha256()
    for path in sorted(Path(root).rglob('*')):
        digest.update(path.relative_to(root).as_posix().encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def naive_box(mask):
    """Box of a mask, pixel by pixel: first and last column and row."""
    points = [(x, y) for y, row in enumerate(mask.tolist()) for x, on in enumerate(row) if on]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def split_of(scene):
    return 'val' if scene.index % 5 == 1 else 'train'


# --- the renderer ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'arguments, expected',
    [
        (
            (0, 0, 128, False),
            'e3155baf3a7b90dbc3914857d099b34603be211ab5c1efff5ef98acd58eaced1',
        ),
        (
            (1, 6, 96, False),
            '36f1271b2e220baf2e0770934d5c4e9fecae17349996562a874bdd3d7c0ae0dc',
        ),
        (
            (2, 11, 75, True),
            '4c5daf684483db5d25346e1e6ba28f5668f1b62e16e72a73697d9012d9b33037',
        ),
    ],
)
def test_pixels_and_labels_are_the_same_on_every_machine(arguments, expected):
    scene = render_scene(*arguments)
    digest = hashlib.sha256(scene.image.tobytes() + scene.semantic.tobytes())
    for instance in scene.instances:
        digest.update(np.packbits(instance.visible).tobytes() + bytes([instance.class_id]))
    assert digest.hexdigest() == expected


@few
@given(**scenes, context=st.booleans())
def test_scene_is_consistent(seed, index, size, context):
    scene = render_scene(seed, index, size, context)
    height, width = scene.semantic.shape
    assert sorted((height, width)) in ([size, size], [size * 3 // 4, size])
    assert scene.image.shape == (height, width, 3)
    assert scene.image.dtype == scene.semantic.dtype == np.uint8
    assert scene.classes == classes_of(context)
    assert scene.semantic.max() <= len(scene.classes)
    assert len(scene.instances) <= 8
    things = np.zeros_like(scene.semantic)
    for instance in scene.instances:
        assert not things[instance.visible].any(), 'two objects in one pixel'
        things[instance.visible] = instance.class_id
        assert not (instance.visible & ~instance.full).any()
        assert instance.area == instance.visible.sum() >= 16
        fraction = instance.visible.sum() / instance.full.sum()
        assert fraction >= 0.15
        if instance.crowd or fraction < 0.4:
            assert instance.difficult
        x0, y0, x1, y1 = instance.bbox
        assert (x0, y0, x1 - 1, y1 - 1) == naive_box(instance.visible)
        if naive_box(instance.visible) != naive_box(instance.full):
            assert instance.truncated
    # Every labelled object pixel belongs to an instance, and the other way round.
    np.testing.assert_array_equal(
        np.where(scene.semantic >= FIRST_THING, scene.semantic, 0), things
    )


@few
@given(**scenes, context=st.booleans())
def test_scene_depends_on_all_arguments_and_nothing_else(seed, index, size, context):
    scene = render_scene(seed, index, size, context)
    again = render_scene(seed, index, size, context)
    assert scene.image.tobytes() == again.image.tobytes()
    assert scene.semantic.tobytes() == again.semantic.tobytes()
    for other in (render_scene(seed + 1, index, size), render_scene(seed, index + 1, size)):
        assert other.image.tobytes() != scene.image.tobytes()


def test_sets_contain_empty_scenes_crowds_difficult_truncated_and_unlabelled():
    rendered = [render_scene(0, index, 64) for index in range(200)]
    assert 2 <= sum(not scene.instances for scene in rendered) <= 30
    instances = [instance for scene in rendered for instance in scene.instances]
    for flag in ('crowd', 'difficult', 'truncated'):
        share = sum(getattr(instance, flag) for instance in instances) / len(instances)
        assert 0.01 < share < 0.75, flag
    unlabelled = np.mean([(scene.semantic == 0).mean() for scene in rendered])
    assert 0.005 < unlabelled < 0.1


def test_main_classes_are_balanced_in_both_splits():
    for context in (False, True):
        counts = {'train': {}, 'val': {}}
        for index in range(160):
            scene = render_scene(5, index, 48, context)
            for instance in scene.instances:
                split = counts[split_of(scene)]
                split[instance.class_id] = split.get(instance.class_id, 0) + 1
        for split in counts.values():
            assert len(split) == 8
            assert max(split.values()) < 2.5 * min(split.values())


def test_colour_of_a_pixel_does_not_tell_the_class():
    # The best guess from a coarse colour, told the answers, must stay well below certainty.
    table = {}
    for index in range(120):
        scene = render_scene(0, index, 64)
        for instance in scene.instances:
            for colour in (scene.image[instance.visible] // 48).tolist():
                votes = table.setdefault(tuple(colour), {})
                votes[instance.class_id] = votes.get(instance.class_id, 0) + 1
    right = sum(max(votes.values()) for votes in table.values())
    assert right / sum(sum(votes.values()) for votes in table.values()) < 0.5


@pytest.mark.parametrize(
    'arguments, named',
    [
        ({'seed': -1, 'index': 0}, 'seed'),
        ({'seed': 0, 'index': -1}, 'index'),
        ({'seed': 0, 'index': 0, 'size': 47}, '48'),
        ({'seed': 0, 'index': 0, 'swap_cue': True}, 'context'),
    ],
)
def test_bad_arguments_of_scene(arguments, named):
    with pytest.raises(ValueError, match=named):
        render_scene(**arguments)


def test_names_and_colours():
    for context in (False, True):
        names, colours = classes_of(context), palette_of(context)
        assert len(set(names)) == len(names) == len(set(colours)) == len(colours) == 12
        assert names == STUFF_CLASSES + thing_classes_of(context)
        assert list(thing_classes_of(context)) == sorted(thing_classes_of(context))


# --- context --------------------------------------------------------------------------------------


@few
@given(**scenes)
def test_cue_is_far_from_every_object(seed, index, size):
    scene = render_scene(seed, index, size, context=True)
    y, x = np.nonzero(scene.cue.mask)
    assert not scene.semantic[scene.cue.mask].any()
    for instance in scene.instances:
        rows, columns = np.nonzero(instance.full)
        squared = (rows[:, None] - y) ** 2 + (columns[:, None] - x) ** 2
        assert squared.min() >= (min(scene.semantic.shape) / 2) ** 2


@few
@given(**scenes)
def test_objects_tell_nothing_and_the_cue_tells_all(seed, index, size):
    scene = render_scene(seed, index, size, context=True)
    swapped = render_scene(seed, index, size, context=True, swap_cue=True)
    differing = (scene.image != swapped.image).any(-1)
    assert differing.any()
    assert not (differing & ~scene.cue.mask).any()
    np.testing.assert_array_equal(scene.cue.mask, swapped.cue.mask)
    assert {scene.cue.name, swapped.cue.name} == set(CONTEXT_CUES)
    pairs = len(CONTEXT_APPEARANCES)
    for one, other in zip(scene.instances, swapped.instances, strict=True):
        np.testing.assert_array_equal(one.visible, other.visible)
        assert abs(one.class_id - other.class_id) == pairs
        for instance, which in ((one, scene), (other, swapped)):
            assert which.classes[instance.class_id - 1].startswith(which.cue.name + '_')
    things = scene.semantic >= FIRST_THING
    np.testing.assert_array_equal(things, swapped.semantic >= FIRST_THING)
    np.testing.assert_array_equal(scene.semantic[~things], swapped.semantic[~things])


@pytest.mark.parametrize('seed', [0, 1, 12345])
def test_cues_are_balanced_in_both_splits(seed):
    names = {'train': [], 'val': []}
    for index in range(80):
        scene = render_scene(seed, index, 48, context=True)
        names[split_of(scene)].append(scene.cue.name)
    for split in names.values():
        assert split.count('day') == split.count('night') == len(split) / 2


# --- annotations of masks -------------------------------------------------------------------------


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


# --- the layouts ----------------------------------------------------------------------------------


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


# --- writing --------------------------------------------------------------------------------------


def test_same_arguments_same_bytes_and_scenes_do_not_depend_on_their_number(tmp_path):
    arguments = {'size': 48, 'seed': 9}
    first = write_sample_data(tmp_path / 'first', images=10, **arguments)
    write_sample_data(tmp_path / 'deep/er/second', images=10, **arguments)
    assert tree_hash(tmp_path / 'first') == tree_hash(tmp_path / 'deep/er/second')
    write_sample_data(tmp_path / 'more', images=12, **arguments)
    for path in (tmp_path / 'first').rglob('*'):
        if path.suffix in ('.jpg', '.png', '.xml', '.JPEG'):
            other = tmp_path / 'more' / path.relative_to(tmp_path / 'first')
            assert path.read_bytes() == other.read_bytes()
    assert first.counts['ADE20K'] == {'train': 8, 'val': 2}


def test_done_already_other_parameters_and_overwrite(tmp_path):
    root = tmp_path / 'data'
    assert write_sample_data(root, images=3, size=48).written
    before = tree_hash(root)
    again = write_sample_data(root, images=3, size=48)
    assert not again.written and again.counts['VOC2007'] == {'train': 2, 'val': 1}
    with pytest.raises(FileExistsError, match='images 3 there, 4 asked for'):
        write_sample_data(root, images=4, size=48)
    assert tree_hash(root) == before
    assert write_sample_data(root, images=4, size=48, overwrite=True).written
    next(root.rglob('*.xml')).unlink()
    with pytest.raises(FileExistsError, match='files expected'):
        write_sample_data(root, images=4, size=48)
    assert write_sample_data(root, images=4, size=48, overwrite=True).written
    assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_interruption_leaves_nothing_half_written(tmp_path):
    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample_data(tmp_path / 'data', images=5, size=48, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    write_sample_data(tmp_path / 'data', images=3, size=48)
    before = tree_hash(tmp_path / 'data')
    with pytest.raises(KeyboardInterrupt):
        write_sample_data(tmp_path / 'data', images=5, size=48, overwrite=True, progress=interrupt)
    assert tree_hash(tmp_path / 'data') == before


@pytest.mark.parametrize('content', ['note.txt', MANIFEST])
@pytest.mark.parametrize('overwrite', [False, True])
def test_folders_of_others_are_never_touched(tmp_path, content, overwrite):
    (tmp_path / content).write_text('{}')
    with pytest.raises(FileExistsError, match='not made by this tool'):
        write_sample_data(tmp_path, images=2, size=48, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == [content]


def test_an_empty_folder_is_fine_a_file_is_not(tmp_path):
    (tmp_path / 'empty').mkdir()
    assert write_sample_data(tmp_path / 'empty', images=2, size=48).written
    (tmp_path / 'file').write_text('x')
    with pytest.raises(FileExistsError, match='is a file'):
        write_sample_data(tmp_path / 'file', images=2, size=48, overwrite=True)


# --- the command line -----------------------------------------------------------------------------


def command(*arguments):
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(REPO), *sys.path])}
    return subprocess.run(
        [sys.executable, str(REPO / 'tools/make_sample_data.py'), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )


@pytest.fixture(scope='module')
def main(load_tool):
    """The tool's `main`, in this process: a new one would import PyTorch each time."""
    return load_tool('make_sample_data.py').main


def test_command_line_writes_and_reports(tmp_path):
    done = command(tmp_path / 'data', '--images', 4, '--size', 48, '--seed', 2, '--context')
    assert done.returncode == 0, done.stderr
    for layout in LAYOUTS:
        assert layout in done.stdout
    write_sample_data(tmp_path / 'other', images=4, size=48, seed=2, context=True)
    assert tree_hash(tmp_path / 'data') == tree_hash(tmp_path / 'other')


def test_command_line_error_exits_with_2(tmp_path):
    done = command(tmp_path / 'data', '--images', 0)
    assert done.returncode == 2
    assert done.stderr.strip().count('\n') == 0 and 'images must be at least 2' in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'arguments, named',
    [
        (['--images', '-3'], 'images'),
        (['--size', '20'], 'at least 48 pixels, got 20'),
        (['--seed', '-1'], 'seed'),
    ],
)
def test_command_line_refuses(main, tmp_path, capsys, arguments, named):
    assert main([str(tmp_path / 'data'), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert named in error and '\n' not in error and 'Traceback' not in error
    assert list(tmp_path.iterdir()) == []


def test_command_line_on_existing_data(main, tmp_path, capsys):
    root = str(tmp_path / 'data')
    arguments = [root, '--images', '2', '--size', '48']
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 0
    assert 'nothing to do' in capsys.readouterr().out
    assert main([*arguments, '--seed', '1']) == 2
    assert '--overwrite' in capsys.readouterr().err
    assert main([*arguments, '--seed', '1', '--overwrite']) == 0
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/file').write_text('x')
    assert main([str(tmp_path / 'mine'), '--overwrite']) == 2
    assert 'not made by this tool' in capsys.readouterr().err
