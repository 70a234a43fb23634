"""Trained models in the package, each with a model card NAME.md."""

from .loading import load_model

__all__ = ['load_model']
