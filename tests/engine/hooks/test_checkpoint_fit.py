"""Checkpoints that do not fit the model are refused."""

from types import SimpleNamespace

import pytest
import torch
from small_training import small_runner
from torch import nn

from mmslak.engine import CheckpointFitHook
from mmslak.models import SLaK


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda state: state.pop('1.weight'), ['1 are missing', '1.weight']),
        (lambda state: state.update({'0.bias': torch.zeros(5)}), ['1 have another', '0.bias']),
    ],
)
def test_differences_are_named(change, words):
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    runner = SimpleNamespace(model=model)
    state = {f'module.{name}': value for name, value in model.state_dict().items()}
    CheckpointFitHook().after_load_checkpoint(runner, {'state_dict': state})
    state = dict(model.state_dict())
    change(state)
    with pytest.raises(ValueError) as error:
        CheckpointFitHook().after_load_checkpoint(runner, {'state_dict': state})
    for word in words:
        assert word in str(error.value)


def test_a_merged_checkpoint_needs_a_merged_model():
    plain, merged = SLaK('nano'), SLaK('nano', deploy=True)
    for model, other, words in (
        (plain, merged, 'add --cfg-options model.backbone.deploy=True'),
        (merged, plain, 'model.backbone.deploy is True'),
    ):
        with pytest.raises(ValueError, match=words):
            CheckpointFitHook().after_load_checkpoint(
                SimpleNamespace(model=model), dict(state_dict=other.state_dict())
            )


def test_another_model_is_named_before_data_is_read(tmp_path):
    small_runner(tmp_path, iters=2).train()
    checkpoint = tmp_path / 'iter_2.pth'
    runner = small_runner(
        tmp_path, model=dict(type='SmallNetwork', hidden=9), load_from=str(checkpoint), resume=True,
        # This data set does not exist.
        train_dataloader=dict(dataset=dict(type='NoDataset')),
    )  # fmt: skip
    with pytest.raises(ValueError) as error:
        runner.train()
    message = str(error.value)
    assert message.startswith(f'{checkpoint} of the training {tmp_path}_')
    assert 'stem.weight has shape (8, 3, 3, 3) in the file and (9, 3, 3, 3) in the model' in message
