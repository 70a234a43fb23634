"""Hooks for MMEngine's training and test loops, one in each file."""

from .checkpoint_fit import CheckpointFitHook
from .dynamic_sparsity import DynamicSparsityHook
from .finish_training import FinishTrainingHook
from .non_finite import NonFiniteError, NonFiniteHook
from .plain_checkpoint import PlainCheckpointHook
from .precise_bn import recompute_statistics
from .random_state import RandomStateHook
from .safe_checkpoint import SafeCheckpointHook
from .step_images import StepImagesHook
from .stop_signal import StopSignalHook
from .throughput import ThroughputHook

__all__ = [
    'CheckpointFitHook',
    'DynamicSparsityHook',
    'FinishTrainingHook',
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
