"""Depth-wise convolution with large kernels."""
