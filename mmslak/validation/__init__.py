"""Checks of the user's data before training."""
