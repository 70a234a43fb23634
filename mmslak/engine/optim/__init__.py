"""Optimiser wrappers and their constructors."""

from .amp import AmpOptimWrapper
from .layer_decay import LearningRateDecayOptimWrapperConstructor

__all__ = ['AmpOptimWrapper', 'LearningRateDecayOptimWrapperConstructor']
