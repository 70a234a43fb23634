"""Reading checkpoints safely, in the format of this package and in that of the authors."""

from .backbone import load_backbone, load_classifier
from .compare import Differences, compare
from .initializer import PretrainedInit
from .merging import merge_checkpoint
from .official import SPARSITY_STATE, Converted, describe, from_official, recover_masks, to_official
from .reading import CheckpointError, UnsafeCheckpointError, read_checkpoint

__all__ = [
    'SPARSITY_STATE',
    'CheckpointError',
    'Converted',
    'Differences',
    'PretrainedInit',
    'UnsafeCheckpointError',
    'compare',
    'describe',
    'from_official',
    'load_backbone',
    'load_classifier',
    'merge_checkpoint',
    'read_checkpoint',
    'recover_masks',
    'to_official',
]
