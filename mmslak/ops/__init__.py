"""Depth-wise convolution with very large kernels, fast on CPUs and GPUs, without a build step."""

from .acceleration import accelerate
from .depthwise import IMPLEMENTATIONS, decomposed_conv2d, depthwise_conv2d
from .modules import LargeKernelConv2d

__all__ = [
    'IMPLEMENTATIONS',
    'LargeKernelConv2d',
    'accelerate',
    'decomposed_conv2d',
    'depthwise_conv2d',
]
