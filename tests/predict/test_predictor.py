"""Predictions equal those of the toolboxes' own functions."""

import itertools

import numpy as np
import pytest
import torch
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip('mmseg')
pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')

from mmengine.config import Config

from mmslak import Predictor
from mmslak.cli.config import load_config
from mmslak.models import build_model
from mmslak.predict.predictor import _classes_of_dataset, spans
from mmslak.validation.images import BadImageError

CONFIGS = dict(
    segmentation=ROOT / 'configs/sample/upernet_slak_nano_ade20k.py',
    detection=ROOT / 'configs/sample/faster_rcnn_slak_nano_voc.py',
    masks=ROOT / 'configs/sample/cascade_mask_rcnn_slak_nano_coco.py',
    classification=ROOT / 'configs/sample/slak_nano_in1k.py',
)


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """Return the untrained weights of each config, by the name of the config."""
    folder, found = tmp_path_factory.mktemp('checkpoints'), {}
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        found[name] = folder / f'{name}.pth'
        model = build_model(load_config(config), init_weights=True)
        torch.save(dict(state_dict=model.state_dict(), meta={}), found[name])
    return found


@pytest.fixture(scope='module')
def images(sample_data):
    """Return four images of the sample data and a smaller one."""
    found = sorted((sample_data(8, 96) / 'ADEChallengeData2016').rglob('*.jpg'))[:4]
    small = found[0].parent.parent / 'small.png'
    Image.open(found[0]).crop((0, 0, 70, 50)).save(small)
    return [*map(str, found), str(small)]


def labels(sample):
    return sample.pred_sem_seg.data[0].cpu().numpy()


def test_equals_the_inferencer_of_mmsegmentation(checkpoints, images):
    from mmseg.apis import MMSegInferencer

    config, checkpoint = CONFIGS['segmentation'], checkpoints['segmentation']
    predictor = Predictor(config, checkpoint, device='cpu')
    assert predictor.task == 'segmentation'
    samples = predictor(images, batch_size=3)
    theirs = MMSegInferencer(str(config), str(checkpoint), device='cpu')
    for image, sample in zip(images, samples, strict=True):
        want = theirs(image, return_datasamples=True)
        assert labels(sample).shape == Image.open(image).size[::-1]
        assert np.array_equal(labels(sample), labels(want))


@pytest.mark.parametrize('name', ['detection', 'masks'])
def test_equals_the_inferencer_of_mmdetection(name, checkpoints, images):
    from mmdet.apis import DetInferencer

    config, checkpoint = CONFIGS[name], checkpoints[name]
    predictor = Predictor(config, checkpoint, device='cpu')
    assert predictor.task == 'detection'
    sample = predictor(images[1])
    theirs = DetInferencer(str(config), str(checkpoint), device='cpu', show_progress=False)
    (want,) = theirs(images[1], return_datasamples=True)['predictions']
    assert len(want.pred_instances) > 0
    for key in want.pred_instances.keys():  # noqa: SIM118
        torch.testing.assert_close(sample.pred_instances[key], want.pred_instances[key])


def test_equals_the_inferencer_of_mmpretrain(checkpoints, images):
    from mmpretrain.apis import ImageClassificationInferencer

    config, checkpoint = CONFIGS['classification'], checkpoints['classification']
    predictor = Predictor(config, checkpoint, device='cpu')
    assert predictor.task == 'classification'
    samples = predictor(images, batch_size=2)
    theirs = ImageClassificationInferencer(str(config), str(checkpoint), device='cpu')
    for image, sample in zip(images, samples, strict=True):
        (want,) = theirs(image)
        assert int(sample.pred_label) == want['pred_label']
        np.testing.assert_allclose(sample.pred_score, want['pred_scores'], atol=1e-5)


def test_files_arrays_and_pil_images_give_the_same(checkpoints, images):
    predictor = Predictor(CONFIGS['segmentation'], checkpoints['segmentation'], device='cpu')
    # PNG, because decoders of JPEG may differ by rounding.
    pil = Image.open(images[-1])
    array = np.asarray(pil)[..., ::-1]
    file, from_pil, from_array = map(labels, predictor([images[-1], pil, array]))
    assert np.array_equal(file, from_pil)
    assert np.array_equal(file, from_array)


@pytest.mark.parametrize('options', [dict(merged=True), dict(half=True)])
def test_merged_and_half_change_little(options, checkpoints, images):
    arguments = CONFIGS['segmentation'], checkpoints['segmentation'], 'cpu'
    plain = labels(Predictor(*arguments)(images[0]))
    changed = labels(Predictor(*arguments, **options)(images[0]))
    assert (plain == changed).mean() > (0.999 if 'merged' in options else 0.9)


def test_the_model_of_the_package():
    image = ROOT / 'tests/data/camvid/images/test/0001TP_008550.jpg'
    truth = np.asarray(Image.open(ROOT / 'tests/data/camvid/annotations/test/0001TP_008550.png'))
    predictor = Predictor(device='cpu')
    sample = predictor(image)
    known = truth < len(predictor.meta['classes'])
    # The share of pixels that are right, which an untrained network does not come near.
    assert (labels(sample)[known] == truth[known]).mean() > 0.7
    picture = predictor.draw(image, sample)
    assert picture.height == truth.shape[0]
    assert picture.width > truth.shape[1]


@given(st.integers(1, 500), st.integers(1, 200), st.data())
def test_spans_cover_a_side_once(size, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    tile = min(tile, size) if size < tile else tile
    overlap = min(overlap, tile - 1)
    found = spans(size, tile, overlap)
    covered = [pixel for _, first, end in found for pixel in range(first, end)]
    assert covered == list(range(size))
    for start, first, end in found:
        assert 0 <= start <= first < end <= start + tile <= size
    for (a, _, _), (b, first, _) in itertools.pairwise(found):
        shared = a + tile - b
        assert shared >= overlap
        # The border is in the middle of what the two share.
        assert abs((first - b) - (a + tile - first)) <= 1


class Threshold(torch.nn.Module):
    """A segmentor whose class is 1 for bright pixels; it remembers the shapes of its inputs."""

    def test_step(self, data):
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        self.shapes = [*getattr(self, 'shapes', []), *(x.shape for x in data['inputs'])]
        samples = []
        for image in data['inputs']:
            sample = SegDataSample()
            sample.pred_sem_seg = PixelData(data=(image[:1] > 127).long())
            samples.append(sample)
        return samples


@pytest.mark.parametrize('size', [(100, 64), (37, 230), (41, 41), (20, 30)])
@pytest.mark.parametrize('batch_size', [1, 4])
def test_tiles_give_the_same_as_the_whole_image(size, batch_size, checkpoints):
    predictor = Predictor(
        CONFIGS['segmentation'], checkpoints['segmentation'], 'cpu',
        options={'test_dataloader.dataset.pipeline': [
            dict(type='LoadImageFromFile'), dict(type='PackSegInputs')
        ]},
        tile=40, overlap=8,
    )  # fmt: skip
    predictor.model = Threshold()
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    calls = []
    (sample,) = predictor.predict([image], batch_size, lambda *args: calls.append(args))
    assert np.array_equal(labels(sample), image[..., 0] > 127)
    # No input is larger than a tile.
    assert all(max(shape[1:]) <= 40 for shape in predictor.model.shapes)
    if max(size) > 40:
        assert calls[-1][0] == calls[-1][1] == len(predictor.model.shapes)


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (('detection', dict(tile=64)), ValueError, 'segmentation only'),
        (('segmentation', dict(tile=64, overlap=64)), ValueError, '--overlap'),
        (('segmentation', dict(overlap=8)), ValueError, '--tile'),
        (('segmentation', dict(options={'default_scope': 'mmpose'})), ValueError, 'default_scope'),
    ],
)
def test_settings_that_do_not_fit(arguments, error, message, checkpoints):
    name, options = arguments
    with pytest.raises(error, match=message):
        Predictor(CONFIGS[name], checkpoints[name], 'cpu', **options)


def test_a_config_needs_a_checkpoint():
    with pytest.raises(ValueError, match='CONFIG and CHECKPOINT'):
        Predictor(CONFIGS['segmentation'])


def test_damaged_images_and_wrong_arrays(tmp_path):
    predictor = Predictor(device='cpu')
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'\x89PNG\r\n\x1a\n')
    with pytest.raises(BadImageError, match=r'broken\.png'):
        predictor(broken)
    with pytest.raises(BadImageError, match='missing'):
        predictor(tmp_path / 'none.png')
    with pytest.raises(ValueError, match=r'\(H, W, 3\)'):
        predictor(np.zeros((4, 4), np.uint8))


def test_class_names_of_the_dataset_type(checkpoints):
    cfg = load_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
    assert isinstance(cfg, Config)
    assert _classes_of_dataset(cfg)['classes'][:2] == ('person', 'bicycle')
    cfg.test_dataloader.dataset.type = 'BaseDetDataset'
    with pytest.raises(ValueError, match='class names are unknown'):
        _classes_of_dataset(cfg)
