"""Errors of datasets."""


class DatasetLayoutError(FileNotFoundError):
    """A dataset does not exist or does not have the layout of its type."""


class AnnotationError(ValueError):
    """An annotation or a label map is wrong, or it does not fit the config."""
