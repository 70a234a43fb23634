"""The initialiser of pre-trained weights for MMEngine."""

from torch import nn

from ..models import SLaK
from ..registry import WEIGHT_INITIALIZERS
from .backbone import load_backbone, load_classifier


@WEIGHT_INITIALIZERS.register_module(name='Pretrained')
class PretrainedInit:
    """Initialise a SLaK backbone or classifier from a checkpoint.

    SLaK uses it for ``init_cfg=dict(type='Pretrained', checkpoint=FILE)``. Unlike MMEngine's
    initialiser it reads the file safely, accepts the authors' format and refuses a checkpoint that
    does not fit.

    Args:
        checkpoint (str): Checkpoint of this package or of the authors of SLaK and ConvNeXt.
        prefix (str, optional): Prefix of the names of the backbone in a file of this package.
            Default: ``backbone.`` if there are such names, otherwise none.
        map_location (str): Accepted for compatibility with MMEngine, but not used. Files are read
            onto the CPU.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If it cannot be read safely or does not fit.
    """

    def __init__(self, checkpoint: str, prefix: str | None = None, map_location: str = 'cpu'):
        self.checkpoint, self.prefix = checkpoint, prefix

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into a backbone, or into a classifier with ``backbone`` and ``head``."""
        if isinstance(module, SLaK):
            load_backbone(module, self.checkpoint, self.prefix)
        else:
            load_classifier(module, self.checkpoint)
