"""Optimiser wrappers and their constructors."""

from .amp import AmpOptimWrapper
from .grouped import GroupedOptimWrapperConstructor
from .layer_decay import LearningRateDecayOptimWrapperConstructor

__all__ = [
    'AmpOptimWrapper',
    'GroupedOptimWrapperConstructor',
    'LearningRateDecayOptimWrapperConstructor',
]
