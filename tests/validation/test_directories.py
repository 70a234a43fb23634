"""Missing directories and files of datasets."""

import pytest
from mmengine.config import Config
from PIL import Image

from mmslak.sample_data import THING_CLASSES
from mmslak.validation.layouts import DatasetLayoutError, check_datasets


@pytest.fixture(scope='module')
def sample(sample_data):
    return sample_data(10, 48)


def check(root, **dataset):
    dataset = dict(
        dict(
            type='ADE20KDataset',
            data_root=str(root),
            data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        ),
        **dataset,
    )
    check_datasets(Config(dict(train_dataloader=dict(dataset=dataset))), ('train', 'val'))


def test_complete_layout_passes(sample):
    ade = sample / 'ADEChallengeData2016'
    check(ade)
    check(
        sample / 'coco',
        type='CocoDataset',
        metainfo=dict(classes=THING_CLASSES),
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
    )
    # Datasets inside wrappers are checked.
    inner = dict(type='ADE20KDataset', data_root='/no/such/place', data_prefix=dict(img_path='a'))
    with pytest.raises(DatasetLayoutError, match='/no/such/place'):
        check(ade, type='RepeatDataset', dataset=inner)


def test_missing_directories_and_files_are_named(sample, tmp_path):
    with pytest.raises(DatasetLayoutError) as error:
        check(tmp_path / 'nowhere')
    for word in ('nowhere', 'annotations/training/*.png', 'tools/make_sample_data.py', 'data_root'):
        assert word in str(error.value)

    (tmp_path / 'images/training').mkdir(parents=True)
    with pytest.raises(DatasetLayoutError, match=r'no file in .*images/training'):
        check(tmp_path)
    Image.new('RGB', (8, 8)).save(tmp_path / 'images/training/a.jpg')
    with pytest.raises(DatasetLayoutError, match=r'no directory .*annotations/training'):
        check(tmp_path)
    (tmp_path / 'annotations/training').mkdir(parents=True)
    Image.new('P', (8, 8)).save(tmp_path / 'annotations/training/b.png')
    with pytest.raises(DatasetLayoutError, match=r'label map of a\.jpg, .*training/a\.png'):
        check(tmp_path)
    with pytest.raises(DatasetLayoutError, match=r'no file .*instances.json'):
        check(sample / 'coco', type='CocoDataset', ann_file='instances.json', data_prefix=dict())
