"""Stand in for the CUDA extension of large depth-wise convolutions by MegEngine's authors.

RepLKNet, UniRepLKNet, SLaK, OverLoCK and others run

    from depthwise_conv2d_implicit_gemm import DepthWiseConv2dImplicitGEMM

After ``import mmslak.ops.implicit_gemm`` this import returns the class below, in the same process.
If the extension is installed, it stays in use, and a warning says so. RepLKNet and HorNet use the
extension only if an environment variable is set. They are set too.

``python -m mmslak.ops.implicit_gemm SCRIPT ARGUMENTS`` runs a script after this import.
"""

import importlib.util
import os
import sys
import warnings
from pathlib import Path

from ..modules import LargeKernelConv2d

__all__ = ['DepthWiseConv2dImplicitGEMM']

#: Module of the extension in Python, and the one that is compiled.
_PYTHON = 'depthwise_conv2d_implicit_gemm'
_COMPILED = '_depthwise_conv2d_implicit_gemm_C'


class DepthWiseConv2dImplicitGEMM(LargeKernelConv2d):
    """Depth-wise convolution with stride 1 and "same" padding, with the extension's signature.

    Args:
        channels (int): Channels C of the input and of the output.
        kernel (int or tuple[int, int]): Height and width of the kernel, odd.
        bias (bool): Whether there is a bias of shape (C,).

    Raises:
        ValueError: For a kernel of even size.
    """

    def __init__(self, channels: int, kernel: int | tuple[int, int], bias: bool = False):
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        # RepLKNet passes the padding on to nn.Conv2d when it merges kernels.
        padding = height // 2, width // 2
        super().__init__(channels, channels, (height, width), padding=padding, bias=bias)


def _register() -> None:
    """Make the class importable under the name of the extension."""
    if importlib.util.find_spec(_COMPILED):
        warnings.warn(
            f'{_PYTHON} is installed as a CUDA extension and stays in use; uninstall it to use '
            'the operator of mmslak',
            stacklevel=3,
        )
        return
    # SLaK has a Python file of this name, which needs the compiled module.
    sys.modules[_PYTHON] = sys.modules[__name__]
    for variable in ('LARGE_KERNEL_CONV_IMPL', 'DWCONV_IMPL'):
        # The networks add the value to sys.path. There is no module in this directory.
        os.environ.setdefault(variable, str(Path(__file__).parent))


_register()
