"""Images and label maps in another size, by hand."""

import numpy as np

from mmslak.web.display_size import resized_labels, shrunk


def test_images_are_shrunk_to_a_number_of_pixels():
    small = np.zeros((20, 30, 3), np.uint8)
    assert shrunk(small, 600) is small
    assert shrunk(np.zeros((200, 300, 3), np.uint8), 600).shape == (20, 30, 3)
    # 40 x 1 pixels: the shorter side keeps one pixel.
    assert shrunk(np.zeros((1, 40, 3), np.uint8), 10).shape == (1, 20, 3)


def test_labels_are_those_of_the_nearest_pixels():
    labels = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert resized_labels(labels, (3, 3)).tolist() == labels.tolist()
    assert resized_labels(labels, (1, 1)).tolist() == [[5]]
    assert resized_labels(labels, (3, 6))[0].tolist() == [1, 1, 2, 2, 3, 3]
