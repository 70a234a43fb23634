"""Hooks for MMEngine's training and test loops."""

from .checkpoint_fit import CheckpointFitHook
from .dynamic_sparsity import DynamicSparsityHook
from .finish_training import FinishTrainingHook
from .precise_bn import recompute_statistics
from .resume import PlainCheckpointHook, RandomStateHook
from .throughput import ThroughputHook

__all__ = [
    'CheckpointFitHook',
    'DynamicSparsityHook',
    'FinishTrainingHook',
    'PlainCheckpointHook',
    'RandomStateHook',
    'ThroughputHook',
    'recompute_statistics',
]
