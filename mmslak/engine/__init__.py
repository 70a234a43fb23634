"""What plugs into MMEngine: thin, calling the packages beside it."""

from .amp import AmpOptimWrapper
from .checkpoint import CheckpointFitHook, PlainCheckpointHook, RandomStateHook
from .detections import DetectionResults
from .finish import FinishTrainingHook, recompute_statistics
from .layer_decay import LearningRateDecayOptimWrapperConstructor
from .sparsity import DynamicSparsityHook
from .throughput import ThroughputHook

__all__ = [
    'AmpOptimWrapper',
    'CheckpointFitHook',
    'DetectionResults',
    'DynamicSparsityHook',
    'FinishTrainingHook',
    'LearningRateDecayOptimWrapperConstructor',
    'PlainCheckpointHook',
    'RandomStateHook',
    'ThroughputHook',
    'recompute_statistics',
]
