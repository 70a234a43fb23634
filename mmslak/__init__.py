"""SLaK, very large convolution kernels trained with sparsity, for OpenMMLab.

Importing the package registers everything it brings under the scope ``mmslak``,
so that ``custom_imports = dict(imports=['mmslak'])`` in a config is enough to write
``backbone=dict(type='mmslak.SLaK', arch='tiny')``. None of MMDetection,
MMSegmentation and MMPretrain is imported.
"""

from . import engine, models, sparsity

__version__ = '0.1.0'
__all__ = ['__version__', 'engine', 'models', 'sparsity']
