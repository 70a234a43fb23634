"""The model in the package: its file, and its score on twelve test images of CamVid."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT
from PIL import Image
from safetensors import safe_open

from mmslak.checkpoints import SPARSITY_STATE, find_checkpoint, read_checkpoint
from mmslak.pretrained import load_model
from mmslak.sparsity import unpack_masks

NAME = 'slak_nano_camvid'
DATA = ROOT / 'tests' / 'data' / 'camvid'
SCORE = 'miou_of_twelve_test_images'
UNLABELLED = 255


def pairs():
    """Return the twelve images with their label maps."""
    images = sorted((DATA / 'images' / 'test').glob('*.jpg'))
    assert len(images) == 12
    return [(path, DATA / 'annotations' / 'test' / f'{path.stem}.png') for path in images]


def mean_iou(predictions, label_maps, classes):
    """Return the mean IoU in percent over the classes that occur, from one confusion matrix."""
    confusion = np.zeros((classes, classes), np.int64)
    for predicted, labels in zip(predictions, label_maps, strict=True):
        assert predicted.shape == labels.shape
        labelled = labels != UNLABELLED
        np.add.at(confusion, (labels[labelled], predicted[labelled]), 1)
    common = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - common
    return 100 * float(np.mean(common[union > 0] / union[union > 0]))


@pytest.fixture(scope='module')
def predictions():
    """Return the label maps that the model predicts at full resolution."""
    apis = pytest.importorskip('mmseg.apis')
    with warnings.catch_warnings():
        # Of MMSegmentation, on its own functions.
        warnings.simplefilter('ignore', UserWarning)
        model = load_model(NAME)
    results = [apis.inference_model(model, str(image)) for image, _ in pairs()]
    return [result.pred_sem_seg.data[0].numpy() for result in results]


def test_score_on_twelve_test_images(predictions):
    meta = read_checkpoint(NAME)['meta']
    labels = [np.array(Image.open(path)) for _, path in pairs()]
    assert {array.shape for array in predictions} == {(360, 480)}
    found = mean_iou(predictions, labels, len(meta['dataset_meta']['classes']))
    assert SCORE in meta, f'export the model with --meta {SCORE}={found:.2f}'
    assert meta[SCORE] == pytest.approx(found, abs=0.1), f'the model scores {found:.2f}'


def test_score_agrees_with_mmsegmentation(predictions):
    evaluation = pytest.importorskip('mmseg.evaluation')
    meta = read_checkpoint(NAME)['meta']['dataset_meta']
    labels = [np.array(Image.open(path)) for _, path in pairs()]
    metric = evaluation.IoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = meta
    metric.process(
        {},
        [
            {
                'pred_sem_seg': {'data': torch.from_numpy(predicted)[None]},
                'gt_sem_seg': {'data': torch.from_numpy(label.astype(np.int64))[None]},
            }
            for predicted, label in zip(predictions, labels, strict=True)
        ],
    )
    scores = metric.compute_metrics(metric.results)
    # MMSegmentation rounds to two digits.
    assert scores['mIoU'] == pytest.approx(
        mean_iou(predictions, labels, len(meta['classes'])), abs=0.006
    )


def test_file():
    file = Path(find_checkpoint(NAME))
    assert file.stat().st_size <= 2.5e6
    with safe_open(file, 'pt') as content:
        meta = json.loads(content.metadata()['mmslak'])['meta']
        dtypes = {content.get_tensor(name).dtype for name in content.keys()}  # noqa: SIM118
    assert meta['name'] == NAME
    assert len(meta['dataset_meta']['classes']) == len(meta['dataset_meta']['palette']) == 11
    assert dtypes == {torch.float16, torch.float32, torch.int64, torch.uint8}


def test_masked_weights_are_zero():
    checkpoint = read_checkpoint(NAME)
    masks = unpack_masks(checkpoint[SPARSITY_STATE])
    assert masks
    for name, mask in masks.items():
        assert not checkpoint['state_dict'][name][~mask].any()
    shapes = checkpoint[SPARSITY_STATE]['shapes'].values()
    total = sum(int(np.prod(shape)) for shape in shapes)
    masked = sum(int((~mask).sum()) for mask in masks.values())
    # The config asks for this sparsity.
    assert masked / total == pytest.approx(0.4, abs=1e-3)


def test_model_card():
    text = Path(find_checkpoint(NAME)).with_suffix('.md').read_text(encoding='utf-8')
    headings = [line for line in text.splitlines() if line.startswith('## ')]
    assert headings == ['## Model', '## Data', '## Score', '## Limits', '## Licence']
