"""Hooks for MMEngine's training and test loops, one in each file."""

from .checkpoint_fit import CheckpointFitHook
from .cuda_graph import CUDAGraphHook
from .dynamic_sparsity import DynamicSparsityHook
from .exact_resume import ExactResumeHook
from .finish_training import FinishTrainingHook
from .non_finite import NonFiniteError, NonFiniteHook
from .plain_checkpoint import PlainCheckpointHook
from .precise_bn import recompute_statistics
from .safe_checkpoint import SafeCheckpointHook
from .step_images import StepImagesHook
from .stop_signal import StopSignalHook
from .throughput import ThroughputHook

__all__ = [
    'CUDAGraphHook',
    'CheckpointFitHook',
    'DynamicSparsityHook',
    'ExactResumeHook',
    'FinishTrainingHook',
    'NonFiniteError',
    'NonFiniteHook',
    'PlainCheckpointHook',
    'SafeCheckpointHook',
    'StepImagesHook',
    'StopSignalHook',
    'ThroughputHook',
    'recompute_statistics',
]
