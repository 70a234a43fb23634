"""Reading checkpoints safely, in this package's format and in the authors' format."""

from .architecture import describe
from .backbone import load_backbone, load_classifier
from .compare import Differences, compare
from .initializer import PretrainedInit
from .merging import merge_checkpoint
from .official import SPARSITY_STATE, Converted, from_official, recover_masks, to_official
from .reading import CheckpointError, UnsafeCheckpointError, read_checkpoint, weights_of

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
    'weights_of',
]
