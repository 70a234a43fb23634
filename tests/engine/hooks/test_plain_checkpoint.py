"""Checkpoints of tensors and plain containers."""

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmslak.engine import PlainCheckpointHook


def test_message_hub_is_rebuilt_after_safe_loading(tmp_path):
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
    with pytest.raises(TypeError, match=r'message_hub\.runtime_info\.odd .* got object'):
        PlainCheckpointHook().before_save_checkpoint(
            None, {'message_hub': {'runtime_info': {'odd': object()}}}
        )
