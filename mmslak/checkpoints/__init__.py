"""Reading checkpoints safely, in this package's format and in the authors' format."""

from .architecture import describe
from .backbone import backbone_prefix, load_backbone, load_classifier
from .compare import Differences, compare
from .errors import CheckpointError, DownloadError, UnsafeCheckpointError
from .export import Exported, dataset_meta, export_checkpoint, remove_initialisation
from .fitting import load_weights, resize_merged
from .initializer import PretrainedInit
from .latest import has_checkpoint, latest_checkpoint, numbered_checkpoints
from .loader import load_from_file
from .locate import find_checkpoint, pretrained_names, resolve_name
from .merging import merge_checkpoint
from .official import Converted, from_official, recover_masks, to_official
from .pretrained_folder import load_pretrained, save_pretrained
from .published import PUBLISHED, PublishedWeights
from .reading import read_checkpoint, weights_of
from .safetensors_file import SAFETENSORS, SPARSITY_STATE
from .writing import AtomicLocalBackend, write_atomically

__all__ = [
    'PUBLISHED',
    'SAFETENSORS',
    'SPARSITY_STATE',
    'AtomicLocalBackend',
    'CheckpointError',
    'Converted',
    'Differences',
    'DownloadError',
    'Exported',
    'PretrainedInit',
    'PublishedWeights',
    'UnsafeCheckpointError',
    'backbone_prefix',
    'compare',
    'dataset_meta',
    'describe',
    'export_checkpoint',
    'find_checkpoint',
    'from_official',
    'has_checkpoint',
    'latest_checkpoint',
    'load_backbone',
    'load_classifier',
    'load_from_file',
    'load_pretrained',
    'load_weights',
    'merge_checkpoint',
    'numbered_checkpoints',
    'pretrained_names',
    'read_checkpoint',
    'recover_masks',
    'remove_initialisation',
    'resize_merged',
    'resolve_name',
    'save_pretrained',
    'to_official',
    'weights_of',
    'write_atomically',
]
