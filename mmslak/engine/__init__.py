"""Extensions of MMEngine: hooks, optimiser wrappers, a metric and a runner."""

from .hooks import (
    CheckpointFitHook,
    DynamicSparsityHook,
    ExactResumeHook,
    FinishTrainingHook,
    NonFiniteError,
    NonFiniteHook,
    PlainCheckpointHook,
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
    'ExactResumeHook',
    'FinishTrainingHook',
    'LearningRateDecayOptimWrapperConstructor',
    'NonFiniteError',
    'NonFiniteHook',
    'PlainCheckpointHook',
    'SafeCheckpointHook',
    'StepImagesHook',
    'StopSignalHook',
    'ThroughputHook',
    'recompute_statistics',
]
