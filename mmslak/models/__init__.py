"""The SLaK backbone, its spatial mixing, and a classifier trained by distillation."""

from .arguments import MODES
from .build import build_model
from .distillation import DistilledClassifier, nkd_loss
from .large_kernel import SpatialMixing, branches_kept_apart
from .slak import SLaK, SLaKBlock
from .variants import ARCHS

__all__ = [
    'ARCHS',
    'MODES',
    'DistilledClassifier',
    'SLaK',
    'SLaKBlock',
    'SpatialMixing',
    'branches_kept_apart',
    'build_model',
    'nkd_loss',
]
