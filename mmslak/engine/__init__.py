"""What plugs into MMEngine: thin, calling the packages beside it."""

from .amp import AmpOptimWrapper
from .checkpoint import CheckpointFitHook, PlainCheckpointHook, RandomStateHook
from .layer_decay import LearningRateDecayOptimWrapperConstructor

__all__ = [
    'AmpOptimWrapper',
    'CheckpointFitHook',
    'LearningRateDecayOptimWrapperConstructor',
    'PlainCheckpointHook',
    'RandomStateHook',
]
