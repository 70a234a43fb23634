"""Extensions of MMEngine: hooks, optimiser wrappers, a metric, a runner, and configs by name."""

from . import packaged_configs
from .hooks import (
    CheckpointFitHook,
    CUDAGraphHook,
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
from .optim import (
    AmpOptimWrapper,
    GroupedOptimWrapperConstructor,
    LearningRateDecayOptimWrapperConstructor,
)

__all__ = [
    'AmpOptimWrapper',
    'CUDAGraphHook',
    'CheckpointFitHook',
    'DetectionResults',
    'DynamicSparsityHook',
    'ExactResumeHook',
    'FinishTrainingHook',
    'GroupedOptimWrapperConstructor',
    'LearningRateDecayOptimWrapperConstructor',
    'NonFiniteError',
    'NonFiniteHook',
    'PlainCheckpointHook',
    'SafeCheckpointHook',
    'StepImagesHook',
    'StopSignalHook',
    'ThroughputHook',
    'packaged_configs',
    'recompute_statistics',
]
