"""Errors of checkpoint files."""


class CheckpointError(ValueError):
    """A file is not a checkpoint, or it does not fit the model."""


class DownloadError(FileNotFoundError):
    """Published weights are not in the cache and could not be downloaded."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint contains objects other than tensors and plain containers."""
