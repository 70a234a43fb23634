"""Pictures of predictions: a perfect one looks like its labels, and errors are seen."""

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mmslak.cli.browse import draw_labels
from mmslak.cli.pictures import draw_prediction

META = dict(classes=('a', 'b', 'c'), palette=[(255, 0, 0), (0, 255, 0), (0, 0, 255)])
IMAGE = np.full((320, 400, 3), 100, np.uint8)


def sample_of(**fields):
    sample = BaseDataElement()
    sample.set_data(fields)
    return sample


def segmentation(labels):
    data = PixelData(data=torch.from_numpy(labels)[None])
    return dict(gt_seg_map=labels), sample_of(pred_sem_seg=data)


def detection(label, score):
    box = [[50.0, 60.0, 200.0, 220.0]]
    found = InstanceData(
        bboxes=torch.tensor(box), labels=torch.tensor([label]), scores=torch.tensor([score])
    )
    truth = dict(gt_bboxes=np.array(box), gt_bboxes_labels=np.array([1]))
    return truth, sample_of(pred_instances=found)


def test_segmentation():
    labels = np.zeros((320, 400), np.int64)
    labels[:, 200:] = 2
    truth, sample = segmentation(labels)
    wanted, classes = draw_labels(IMAGE, truth, META)
    found, predicted = draw_prediction(IMAGE, sample, META)
    assert classes == predicted == {0, 2}
    assert np.array_equal(wanted, found)
    # 45 % of the image and 55 % of the colour.
    assert np.asarray(found)[100, 300].tolist() == pytest.approx([45, 45, 185], abs=1)
    wrong, predicted = draw_prediction(IMAGE, segmentation(labels[:, ::-1].copy())[1], META)
    assert predicted == {0, 2}
    assert np.asarray(wrong)[100, 300].tolist() == pytest.approx([185, 45, 45], abs=1)


@pytest.mark.parametrize(('score', 'drawn'), [(0.9, True), (0.29, False)])
def test_detection(score, drawn):
    truth, sample = detection(2, score)
    assert draw_labels(IMAGE, truth, META)[1] == {1}
    picture, classes = draw_prediction(IMAGE, sample, META)
    assert classes == ({2} if drawn else set())
    edge = np.asarray(picture)[150, 50].tolist()
    assert edge == ([0, 0, 255] if drawn else [100, 100, 100])


def test_classification():
    sample = sample_of(pred_score=torch.tensor([0.1, 0.7, 0.2]))
    wanted, classes = draw_labels(IMAGE, dict(gt_label=1), META)
    found, predicted = draw_prediction(IMAGE, sample, META)
    assert classes == predicted == {1} and np.array_equal(wanted, found)
    assert not np.array_equal(draw_labels(IMAGE, dict(gt_label=0), META)[0], found)
