"""The end of pre-training; tests/e2e/test_classification.py runs the hook."""

import numpy as np
import pytest
import torch
from small_training import SmallImages, small_runner

from mmslak.engine import FinishTrainingHook

#: An average of the weights, and the end of the training.
HOOKS = dict(
    ema=dict(
        type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.5, update_buffers=True
    ),
    finish=dict(type='mmslak.FinishTrainingHook', evaluate=False),
)


def test_wrong_setting_is_named():
    with pytest.raises(ValueError, match='batches must be positive'):
        FinishTrainingHook(batches=0)


@pytest.mark.parametrize(
    ('metainfo', 'saved'),
    [
        (
            dict(classes=('cat', 'dog'), palette=np.array([[1, 2, 3], [4, 5, 6]])),
            dict(classes=('cat', 'dog'), palette=torch.tensor([[1, 2, 3], [4, 5, 6]])),
        ),
        (None, None),
    ],
)
def test_class_names_are_saved(tmp_path, monkeypatch, metainfo, saved):
    """MMPretrain calls the classes of a checkpoint without names those of ImageNet."""
    if metainfo is not None:
        monkeypatch.setattr(SmallImages, 'metainfo', metainfo, raising=False)
    small_runner(tmp_path, iters=1, by_epoch=True, hooks=HOOKS).train()
    for name in ('raw', 'averaged'):
        meta = torch.load(tmp_path / f'{name}.pth', weights_only=True)['meta']
        if saved is None:
            assert 'dataset_meta' not in meta
        else:
            found = meta['dataset_meta']
            assert found['classes'] == saved['classes']
            assert torch.equal(found['palette'], saved['palette'])


def test_statistics_need_one_pass_of_a_sampler_without_end(tmp_path, monkeypatch):
    """Trainings by iterations have such a sampler."""
    read, read_image = [], SmallImages.__getitem__

    def count(dataset, index):
        read.append(index)
        assert len(read) < 200, 'the data is read again and again'
        return read_image(dataset, index)

    monkeypatch.setattr(SmallImages, '__getitem__', count)
    small_runner(tmp_path, iters=2, hooks=HOOKS).train()
    # Two batches of two images in the training, and one pass over 32 images.
    assert len(set(read)) == 32 and 36 <= len(read) < 50
    norm = 'norm.num_batches_tracked'
    averaged = torch.load(tmp_path / 'averaged.pth', weights_only=True)['state_dict']
    assert averaged[norm] == 16
