"""The rendered scenes."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_helpers import FIRST_THING, naive_box, split_of

from mmslak.sample_data import (
    CONTEXT_APPEARANCES,
    CONTEXT_CUES,
    STUFF_CLASSES,
    classes_of,
    palette_of,
    render_scene,
    thing_classes_of,
)

scenes = {
    'seed': st.integers(0, 2**40),
    'index': st.integers(0, 10**6),
    'size': st.integers(48, 140),
}
few = settings(max_examples=25, deadline=None, derandomize=True)


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
    # Labels 5 to 12 are exactly at the pixels of the instances.
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


def test_colour_of_a_pixel_does_not_determine_the_class():
    # The best possible classifier of coarse colours must be wrong for most pixels.
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
def test_only_the_cue_decides_between_the_classes_of_a_pair(seed, index, size):
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
