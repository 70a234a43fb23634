"""Extensions of MMEngine: hooks, optimiser wrappers, a metric and a runner."""

from .hooks import (
    CheckpointFitHook,
    DynamicSparsityHook,
    FinishTrainingHook,
    NonFiniteError,
    NonFiniteHook,
    PlainCheckpointHook,
    RandomStateHook,
    SafeCheckpointHook,
    StepImagesHook,
    StopSignalHook,
    ThroughputHook,
    recompute_statistics,
)
from .metrics import DetectionResults
from .optim import AmpOptimWrapper, LearningRateDecayOptimWrapperConstructor

__all__ = [
    'AmpOptimWrapper',
    'CheckpointFitHook',
    'DetectionResults',
    'DynamicSparsityHook',
    'FinishTrainingHook',
    'LearningRateDecayOptimWrapperConstructor',
    'NonFiniteError',
    'NonFiniteHook',
    'PlainCheckpointHook',
    'RandomStateHook',
    'SafeCheckpointHook',
    'StepImagesHook',
    'StopSignalHook',
    'ThroughputHook',
    'recompute_statistics',
]
