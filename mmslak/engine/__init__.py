"""What plugs into MMEngine: thin, calling the packages beside it."""

from .amp import AmpOptimWrapper
from .checkpoint import CheckpointFitHook, PlainCheckpointHook, RandomStateHook
from .detections import DetectionResults
from .layer_decay import LearningRateDecayOptimWrapperConstructor
from .sparsity import DynamicSparsityHook

__all__ = [
    'AmpOptimWrapper',
    'CheckpointFitHook',
    'DetectionResults',
    'DynamicSparsityHook',
    'LearningRateDecayOptimWrapperConstructor',
    'PlainCheckpointHook',
    'RandomStateHook',
]
