"""Reading checkpoints safely, and the form in which the authors' code writes them."""

from .backbone import load_backbone, load_classifier
from .merging import merge_checkpoint
from .official import Converted, describe, from_official, recover_masks, to_official
from .reading import CheckpointError, UnsafeCheckpointError, read_checkpoint

__all__ = [
    'CheckpointError',
    'Converted',
    'UnsafeCheckpointError',
    'describe',
    'from_official',
    'load_backbone',
    'load_classifier',
    'merge_checkpoint',
    'read_checkpoint',
    'recover_masks',
    'to_official',
]
