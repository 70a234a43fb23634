"""The SLaK backbone, its spatial mixing, and a classifier trained by distillation.

The backbone needs only PyTorch, the classifier and models of configs need MMEngine.
"""

from .arguments import MODES
from .base import HAS_MMENGINE
from .large_kernel import SpatialMixing, branches_kept_apart
from .slak import SLaK, SLaKBlock
from .variants import ARCHS

if HAS_MMENGINE:
    from .build import build_model
    from .distillation import DistilledClassifier, nkd_loss

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
