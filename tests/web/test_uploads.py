"""Files that the page refuses, and images that it reads."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmseg')

from mmslak.validation.images import BadImageError
from mmslak.web.uploads import read_upload


@pytest.fixture
def limit(monkeypatch):
    """Set the limit to 100 pixels."""
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'bmp', 'tif', 'webp'])
def test_images(tmp_path, suffix):
    path = tmp_path / f'a.{suffix}'
    Image.new('RGB', (7, 5), (200, 10, 90)).save(path)
    image = read_upload(path)
    assert image.shape == (5, 7, 3)
    np.testing.assert_allclose(image[2, 3], [90, 10, 200], atol=12)


def test_photographs_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (7, 5)).save(tmp_path / 'a.jpg', exif=exif)
    assert read_upload(tmp_path / 'a.jpg').shape == (7, 5, 3)


def test_a_text_is_no_image(tmp_path):
    path = tmp_path / 'notes.png'
    path.write_text('not an image')
    with pytest.raises(BadImageError) as error:
        read_upload(path)
    assert str(error.value) == (
        'notes.png is not an image: choose a file of the format JPEG, PNG, BMP, TIFF or WEBP.'
    )


def test_formats_whose_decoder_starts_a_program_are_not_opened(tmp_path):
    path = tmp_path / 'page.png'
    Image.new('RGB', (9, 9)).save(path, 'EPS')
    with pytest.raises(BadImageError, match=r'page\.png is not an image'):
        read_upload(path)


@pytest.mark.parametrize('share', [0.3, 0.9])
@pytest.mark.parametrize('suffix', ['png', 'jpg'])
def test_a_truncated_image_is_damaged(tmp_path, suffix, share):
    path = tmp_path / f'a.{suffix}'
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BadImageError, match=rf'^a\.{suffix} is damaged \(.*\): choose another'):
        read_upload(path)


def test_an_empty_file(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'')
    with pytest.raises(BadImageError, match=r'^a\.png is empty'):
        read_upload(tmp_path / 'a.png')


# Pillow itself stops at more than twice the limit.
@pytest.mark.parametrize('width', [11, 40])
def test_too_many_pixels(tmp_path, limit, width):
    path = tmp_path / 'large.png'
    Image.new('RGB', (width, 10)).save(path)
    with pytest.raises(BadImageError) as error:
        read_upload(path)
    assert str(error.value) == (
        'large.png has more than 100 pixels, the limit of this page: choose a smaller image.'
    )


def test_as_many_pixels_as_the_limit(tmp_path, limit):
    Image.new('RGB', (10, 10)).save(tmp_path / 'a.png')
    assert read_upload(tmp_path / 'a.png').shape == (10, 10, 3)
