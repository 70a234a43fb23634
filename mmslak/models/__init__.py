"""The network: the SLaK backbone, its spatial mixing block, and learning from it."""

from .distillation import DistilledClassifier, nkd_loss
from .large_kernel import MODES, SpatialMixing
from .slak import SLaK, SLaKBlock

__all__ = ['MODES', 'DistilledClassifier', 'SLaK', 'SLaKBlock', 'SpatialMixing', 'nkd_loss']
