"""Extensions of MMEngine: hooks, optimiser wrappers, a metric and a runner."""

from .hooks import (
    CheckpointFitHook,
    DynamicSparsityHook,
    FinishTrainingHook,
    PlainCheckpointHook,
    RandomStateHook,
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
    'PlainCheckpointHook',
    'RandomStateHook',
    'StepImagesHook',
    'StopSignalHook',
    'ThroughputHook',
    'recompute_statistics',
]
