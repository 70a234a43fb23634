"""Missing and damaged images."""

import logging

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from PIL import Image

from mmslak.validation.images import BadImageError, check_images, image_fault


@pytest.fixture
def images(tmp_path):
    """Paths of good and bad images, by the kind of fault."""
    picture = Image.radial_gradient('L').convert('RGB')
    paths = {
        name: tmp_path / f'{name}.jpg' for name in ('good', 'cut', 'text', 'empty', 'trailing')
    }
    picture.save(paths['good'])
    data = paths['good'].read_bytes()
    paths['cut'].write_bytes(data[: len(data) // 2])
    paths['text'].write_text('not a picture')
    paths['empty'].write_bytes(b'')
    # Some cameras write more data after the end of the image.
    paths['trailing'].write_bytes(data + bytes(500))
    for suffix in ('png', 'bmp'):
        paths[suffix] = tmp_path / f'good.{suffix}'
        picture.save(paths[suffix])
    paths['missing'] = tmp_path / 'missing.jpg'
    paths['inside'] = tmp_path / 'inside.png'
    damaged = bytearray(paths['png'].read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 40] = bytes(40)
    paths['inside'].write_bytes(bytes(damaged))
    return paths


@pytest.mark.parametrize('decode', [False, True])
def test_faults_of_images(images, decode):
    faults = {name: image_fault(path, decode) for name, path in images.items()}
    for name in ('good', 'png', 'bmp', 'trailing'):
        assert faults[name] is None
    assert faults['missing'] == 'missing' and faults['empty'] == 'empty file'
    assert 'truncated' in faults['cut'] and 'cannot identify' in faults['text']
    # A fault in the middle of a file is found only by decoding it.
    assert bool(faults['inside']) == decode


class ListDataset(BaseDataset):
    """A dataset of the given image files."""

    def __init__(self, paths, **kwargs):
        self.paths = paths
        super().__init__(**dict(dict(pipeline=[]), **kwargs))

    def load_data_list(self):
        return [dict(img_path=str(path)) for path in self.paths]


@pytest.mark.parametrize('wrap', [lambda d: RepeatDataset(d, 3), lambda d: ConcatDataset([d] * 3)])
def test_bad_images_in_wrapped_datasets_are_skipped(images, caplog, wrap):
    paths = [images[name] for name in ('good', 'cut', 'png', 'missing')]
    dataset, log = wrap(ListDataset(paths, ann_file='list.txt')), logging.getLogger('test')
    with pytest.raises(BadImageError, match=r'2 of 4 images are missing or damaged:\n.*cut\.jpg'):
        check_images(dataset, skip=False, log=log)
    assert len(dataset) == 12
    with caplog.at_level(logging.WARNING, 'test'):
        check_images(dataset, skip=True, log=log)
    assert 'skipped 2 of 4 images of' in caplog.text
    assert len(dataset) == 6
    names = [dataset.get_data_info(i)['img_path'] for i in range(6)]
    assert set(names) == {str(images['good']), str(images['png'])}


def test_no_image_left_is_an_error(images):
    log = logging.getLogger('test')
    with pytest.raises(BadImageError, match='all 1 images are missing or damaged'):
        check_images(ListDataset([images['cut']]), skip=True, log=log)
    with pytest.raises(BadImageError, match='contains no image'):
        check_images(ListDataset([], ann_file='list.txt', serialize_data=False), False, log)


@pytest.mark.parametrize('skip', [False, True])
def test_images_in_an_lmdb_are_not_searched_on_disk(images, skip):
    class Load:
        backend_args = dict(backend='lmdb', db_path='train.lmdb')

        def __call__(self, item):
            return item

    dataset = ListDataset([images['missing']], ann_file='list.txt', pipeline=[Load()])
    check_images(dataset, skip, logging.getLogger('test'))
    assert len(dataset) == 1
