"""The receptive field of one pixel, against a naive computation."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')

from mmslak import Predictor
from mmslak.analysis.erf import PredictedScore, contribution_scores
from mmslak.web.pixel_field import PixelField, area_text, draw_field, pixel_field


@pytest.fixture(scope='module')
def predictor():
    """Return the model of the package, for images of 64 x 48."""
    options = {'test_pipeline.1.scale': (64, 48)}
    return Predictor(device='cpu', options=options)


def image_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_field_of_a_pixel_against_autograd(predictor):
    image = image_of(48, 64)
    field = pixel_field(predictor, image, (50.5 / 64, 7.5 / 48))
    assert field.pixel == (50, 7)
    # The same by hand: normalise, run the network, and take the gradient of the best class.
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    pixels = (image[..., ::-1] - mean) / std
    tensor = torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32, requires_grad=True)
    model = predictor.model
    low = model.decode_head(model.backbone(tensor))
    scores = nn.functional.interpolate(low, (48, 64), mode='bilinear')[0, :, 7, 50]
    best = scores.argmax()
    (gradient,) = torch.autograd.grad(scores[best] - scores.mean(), tensor)
    expected = gradient[0].clamp(min=0).sum(0).numpy()
    np.testing.assert_allclose(field.scores, expected, rtol=1e-3, atol=1e-6 * expected.max())
    assert field.scores.max() > 0
    # It is where the pixel is.
    assert field.scores[:24, 32:].sum() > 0.5 * field.scores.sum()


def test_scores_of_pixels_by_hand():
    class Segmentor(nn.Module):
        def encode_decode(self, image, metas):
            assert metas[0]['img_shape'] == (2, 3)
            # Three classes with the scores x, 2x and -3x.
            return torch.cat([image, 2 * image, -3 * image], 1)

    image = torch.tensor([[[[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]]]])
    # The mean of the classes is 0. For positive x the second one is predicted, otherwise the third.
    wanted = torch.tensor([[[[2.0, 4.0, 6.0], [3.0, 6.0, 9.0]]]])
    assert torch.equal(PredictedScore(Segmentor())(image), wanted)
    scores, size = contribution_scores(PredictedScore(Segmentor()), image, (1, 0))
    assert size == (2, 3)
    # Only the pixel itself contributes, with the slope 2.
    np.testing.assert_allclose(scores, [[0, 2, 0], [0, 0, 0]], rtol=1e-6)


def test_a_single_score_counts_by_its_size():
    class Segmentor(nn.Module):
        def encode_decode(self, image, metas):
            return image

    image = torch.tensor([[[[2.0, -3.0]]]])
    assert PredictedScore(Segmentor())(image).tolist() == [[[[2, 3]]]]


@pytest.mark.parametrize(
    ('point', 'pixel'), [((0, 0), (0, 0)), ((0.999, 0.999), (63, 47)), ((1, 1), (63, 47))]
)
def test_corners(predictor, point, pixel):
    assert pixel_field(predictor, image_of(48, 64), point).pixel == pixel


def test_point_is_relative_to_the_image(predictor):
    # The pipeline resizes this image to 64 x 48.
    field = pixel_field(predictor, image_of(96, 128), (0.5, 0.25))
    assert field.pixel == (32, 12)
    assert field.scores.shape == (48, 64)


def test_area_of_a_field_by_hand():
    scores = np.zeros((10, 10))
    scores[5, 5] = 6
    scores[0, 0] = 4
    text = area_text(PixelField(scores, (5, 5)))
    assert text == (
        '50% of the contributions lie in a square of 1.0% of the image, '
        '99% of the contributions lie in a square of 100.0% of the image.'
    )
    assert 'No pixel' in area_text(PixelField(np.zeros((2, 2)), (0, 0)))


def test_heat_is_drawn_where_the_scores_are():
    scores = np.zeros((400, 400))
    scores[300:, 300:] = 1
    image = np.full((400, 400, 3), 200, np.uint8)
    drawn = np.asarray(draw_field(image, PixelField(scores, (100, 100)))).astype(int)
    # Grey without heat, yellow with it, and a cross around the pixel.
    assert drawn[50, 50].max() - drawn[50, 50].min() == 0
    assert drawn[390, 390, 0] > drawn[390, 390, 2] + 50
    assert drawn[100, 110].tolist() == drawn[110, 100].tolist() == [255, 0, 0]
    assert drawn[100, 100].tolist() == drawn[50, 50].tolist()
