"""Depth-wise convolution with very large kernels, fast on CPUs and GPUs, nothing to build."""

from .depthwise import IMPLEMENTATIONS, decomposed_conv2d, depthwise_conv2d

__all__ = ['IMPLEMENTATIONS', 'decomposed_conv2d', 'depthwise_conv2d']
