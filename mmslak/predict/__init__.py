"""Predictions for images and videos without a dataset."""

from .predictor import Predictor

__all__ = ['Predictor']
