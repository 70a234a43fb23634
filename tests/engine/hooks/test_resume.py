"""Checkpoints hold tensors and plain containers, and say so when they do not fit."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmslak.engine import CheckpointFitHook, PlainCheckpointHook, RandomStateHook


def test_message_hub_survives_safe_loading(tmp_path):
    history = HistoryBuffer([0.5, 0.25], [1, 2], max_length=7)
    history.update(0.125, 3)
    checkpoint = {
        'message_hub': {
            'log_scalars': {'train/loss': history},
            'runtime_info': {'iter': np.int64(3), 'best_score': np.float64(0.5), 'ids': {3, 1}},
            'resumed_keys': {'train/loss': True},
        },
        'meta': {'dataset_meta': {'palette': np.arange(3)}, 'seed': np.int32(4)},
    }
    PlainCheckpointHook().before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / 'c.pth')
    loaded = torch.load(tmp_path / 'c.pth', weights_only=True)
    PlainCheckpointHook().after_load_checkpoint(None, loaded)
    restored = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(restored, HistoryBuffer)
    values, counts = restored.data
    assert values.tolist() == [0.5, 0.25, 0.125]
    assert counts.tolist() == [1, 2, 3]
    assert restored.max_length == 7
    assert restored.mean() == history.mean()
    restored.update(1.0)
    info = loaded['message_hub']['runtime_info']
    assert info == {'iter': 3, 'best_score': 0.5, 'ids': [1, 3]}
    assert type(info['best_score']) is float


def test_other_objects_are_named():
    with pytest.raises(TypeError, match=r'message_hub\.runtime_info\.odd is a object'):
        PlainCheckpointHook().before_save_checkpoint(
            None, {'message_hub': {'runtime_info': {'odd': object()}}}
        )


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda state: state.pop('1.weight'), ['1 are missing', '1.weight']),
        (lambda state: state.update({'0.bias': torch.zeros(5)}), ['1 have another', '0.bias']),
    ],
)
def test_misfit_is_an_error(change, words):
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


def test_random_states_are_carried_over(tmp_path):
    runner = SimpleNamespace(world_size=1, _resume=True, train_loop=None)

    def draw():
        return torch.rand(3).tolist() + [random.random(), float(np.random.rand())]

    draw()
    checkpoint = {}
    RandomStateHook().before_save_checkpoint(runner, checkpoint)
    torch.save(checkpoint, tmp_path / 'c.pth')
    expected = draw()
    assert draw() != expected
    hook = RandomStateHook()
    hook.after_load_checkpoint(runner, torch.load(tmp_path / 'c.pth', weights_only=True))
    hook.before_train_epoch(runner)
    assert draw() == expected
    hook.before_train_epoch(runner)  # only once
    assert draw() != expected
