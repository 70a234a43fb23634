"""SLaK for OpenMMLab: very large convolution kernels, trained with dynamic sparsity.

Importing the package registers its modules with MMEngine under the scope ``mmslak``. With
``custom_imports = dict(imports=['mmslak'])`` a config can use
``backbone=dict(type='mmslak.SLaK', arch='tiny')``. MMDetection, MMSegmentation and MMPretrain are
not imported. Without MMEngine, ``mmslak.ops`` and ``mmslak.sparsity`` can still be used.
"""

import importlib.util
import os
import sys

if 'torch' not in sys.modules and not os.environ.keys() & {'GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'}:
    # OpenMP reads it when PyTorch is imported. Waiting threads spin for a shorter time, so that
    # another process on the same cores is not kept waiting (tools/benchmark/busy_neighbour.py).
    os.environ['GOMP_SPINCOUNT'] = '10000'

from . import sparsity

if importlib.util.find_spec('mmengine') is not None:
    from . import engine, models
    from .toolboxes import find_forks

    find_forks()

__version__ = '0.1.0'
__all__ = ['Predictor', '__version__', 'engine', 'models', 'sparsity']


def __getattr__(name: str):
    # Training does not need what predictions need, such as OpenCV.
    if name != 'Predictor':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return importlib.import_module('.predict', __name__).Predictor
