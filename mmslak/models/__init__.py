"""The network: the SLaK backbone and its spatial mixing block."""

from .large_kernel import MODES, SpatialMixing
from .slak import SLaK, SLaKBlock

__all__ = ['MODES', 'SLaK', 'SLaKBlock', 'SpatialMixing']
