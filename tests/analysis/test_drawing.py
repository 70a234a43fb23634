"""Pictures: colours of pixels that are known by hand."""

import numpy as np
import pytest
from PIL import Image

from mmslak.analysis.drawing import (
    OPACITY,
    draw_classification,
    draw_detection,
    draw_segmentation,
    palette_of,
)

META = dict(classes=['sky', 'road'], palette=[(255, 0, 0), (0, 0, 255)])


def grey(height=400, width=500):
    return np.full((height, width, 3), 100, np.uint8)


def mixed(colour):
    # Up to rounding.
    return pytest.approx([(1 - OPACITY) * 100 + OPACITY * value for value in colour], abs=1)


def test_label_map_over_an_image():
    labels = np.zeros((400, 500), np.uint8)
    labels[200:] = 1
    labels[:, 450:] = 255  # not a class
    picture = np.asarray(draw_segmentation(grey(), labels, META))
    assert picture[100, 100].tolist() == mixed((255, 0, 0))
    assert picture[300, 100].tolist() == mixed((0, 0, 255))
    assert picture[300, 480].tolist() == [100, 100, 100]
    # The border between two classes is lighter than both.
    assert picture[200, 100].min() > 100
    # The legend has the colours of both classes.
    legend = picture[:, 500:].reshape(-1, 3).tolist()
    assert [255, 0, 0] in legend
    assert [0, 0, 255] in legend


def test_classes_that_are_absent_are_not_in_the_legend():
    picture = np.asarray(draw_segmentation(grey(), np.ones((400, 500), np.uint8), META))
    assert [255, 0, 0] not in picture[:, 500:].reshape(-1, 3).tolist()


def test_small_pictures_are_enlarged():
    labels = np.zeros((20, 30), np.uint8)
    picture = draw_segmentation(grey(20, 30), labels, META)
    assert picture.height == 320


def test_boxes_and_masks():
    masks = np.zeros((2, 400, 500), bool)
    masks[0, 100:200, 100:200] = True
    masks[1, 250:300, 250:300] = True
    instances = dict(
        bboxes=np.array([[100, 100, 200, 200], [250, 250, 300, 300]]),
        labels=np.array([0, 1]),
        scores=np.array([0.9, 0.1]),
        masks=masks,
    )
    picture = np.asarray(draw_detection(grey(), instances, META, min_score=0.3))
    assert picture[150, 150].tolist() == mixed((255, 0, 0))
    assert picture[150, 100].tolist() == [255, 0, 0]
    # The second object has too low a score.
    assert picture[275, 275].tolist() == [100, 100, 100]
    assert picture[275, 250].tolist() == [100, 100, 100]


@pytest.mark.parametrize('box', [(0, 0, 10, 10), (490, 390, 500, 400), (0, 395, 500, 400)])
def test_names_of_boxes_stay_inside_the_picture(box):
    instances = dict(bboxes=np.array([box]), labels=np.array([1]), scores=np.array([0.5]))
    picture = draw_detection(grey(), instances, META)
    assert picture.size == (500, 400)
    text = (np.asarray(picture) == 255).all(-1)  # white on blue
    assert text.sum() > 20


def test_classes_are_listed_by_score():
    scores = np.array([0.2, 0.8])
    picture = draw_classification(grey(), scores, META)
    assert isinstance(picture, Image.Image)
    panel = np.asarray(picture)[:, 500:]
    blue = (panel == (45, 110, 190)).all(-1)
    bars = np.flatnonzero(blue.any(1))
    first, last = blue[bars[0]].sum(), blue[bars[-1]].sum()
    # The bars are in the order of the scores, and as long.
    assert first / last == pytest.approx(4, rel=0.05)


def test_colours_without_a_palette_differ():
    colours = palette_of(dict(classes=list(range(30))))
    assert len(set(colours)) == 30
    assert palette_of(META) == [(255, 0, 0), (0, 0, 255)]
