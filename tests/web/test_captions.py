"""Legends, overlays and lists of classes, by hand."""

import numpy as np
import pytest

from mmslak.analysis.drawing import enlargement, legend, overlay
from mmslak.web.captions import legend_html, message_html, top_classes

META = dict(classes=['sky', 'road', 'a<b>'], palette=[[0, 0, 255], [255, 0, 0], [0, 100, 0]])


def test_legend_by_hand():
    labels = np.array([[1, 1, 1, 2], [1, 2, 255, 255]])
    # Of eight pixels, four are road and two are the third class; 255 has no class.
    entries = legend(labels, META)
    assert entries == [('road', '50.0 %', (255, 0, 0)), ('a<b>', '25.0 %', (0, 100, 0))]
    text = legend_html(entries)
    assert text.index('rgb(255, 0, 0)') < text.index('road') < text.index('50.0 %')
    assert 'a&lt;b&gt;' in text and '<b>' not in text
    assert 'sky' not in text


@pytest.mark.parametrize(
    ('opacity', 'colour'),
    [(0, (100, 200, 40)), (0.25, (138, 150, 30)), (0.5, (177, 100, 20)), (1, (255, 0, 0))],
)
def test_opacity_by_hand(opacity, colour):
    image = np.full((320, 320, 3), (100, 200, 40), np.uint8)
    drawn = overlay(image, np.ones((320, 320), int), META, opacity)
    assert drawn.size == (320, 320)
    # 0.25: 0.75 * 100 + 0.25 * 255 = 138.75, without its fraction.
    assert drawn.getpixel((160, 160)) == colour


def test_without_opacity_there_are_no_borders():
    image = np.full((320, 320, 3), 60, np.uint8)
    labels = np.zeros((320, 320), int)
    labels[:, 160:] = 1
    assert np.array_equal(overlay(image, labels, META, 0), image)
    assert np.asarray(overlay(image, labels, META, 0.1))[100, 160].min() > 100


def test_pixels_without_a_class_show_the_image():
    image = np.full((320, 320, 3), 60, np.uint8)
    drawn = overlay(image, np.full((320, 320), 255), META, 1)
    assert np.array_equal(drawn, image)


def test_small_images_are_enlarged_by_a_whole_number():
    image = np.zeros((100, 150, 3), np.uint8)
    assert enlargement(image) == 4
    assert overlay(image, np.zeros((100, 150), int), META).size == (600, 400)
    assert enlargement(np.zeros((320, 500, 3), np.uint8)) == 1


def test_top_classes_by_hand():
    scores = np.array([0.1, 0.3, 0.05, 0.35, 0.2])
    names = ['crane', 'dog', 'cat', 'crane', 'tench']
    # Two classes of ImageNet have the name crane.
    assert list(top_classes(scores, names, 4).items()) == [
        ('crane (class 3)', 0.35),
        ('dog', 0.3),
        ('tench', 0.2),
        ('crane (class 0)', 0.1),
    ]
    assert len(top_classes(scores, names)) == 5
    assert top_classes(np.array([0.5, 0.5]), ['a', 'b']) == {'a': 0.5, 'b': 0.5}


def test_names_of_files_are_no_html():
    assert '&lt;img&gt;.png' in message_html('<img>.png is not an image')
    assert message_html('') == ''
