"""Memory formats around several large convolutions of one feature map on a GPU.

The Triton kernels read and write planar feature maps, with the positions of a channel adjacent in
memory. In networks the channels are usually adjacent (channels last). Converting once before all
convolutions, and once after the sum of their outputs, saves a conversion for the input, the output
and both gradients of each convolution.
"""

import torch
from torch import Tensor

from . import measured
from .depthwise import is_transformed, resolve


def prefers_planar(x: Tensor, implementation: str) -> bool:
    """Return whether to convert ``x`` before several convolutions.

    Args:
        x (Tensor): Feature maps of shape (N, C, H, W).
        implementation (str): That of the convolutions.
    """
    return (
        x.is_cuda
        and x.dim() == 4
        and resolve(implementation) in ('auto', 'triton')
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()
        and not is_transformed()
    )


def to_planar(x: Tensor) -> Tensor:
    """Convert ``x`` to planar, in the dtype of autocast; its gradient comes back channels last.

    Args:
        x (Tensor): Of shape (N, C, H, W).

    Returns:
        Tensor: The same values, of the same shape.
    """
    device, dtype = x.device.type, x.dtype
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    return _Converted.apply(x, dtype, torch.contiguous_format, torch.channels_last)


def to_channels_last(x: Tensor) -> Tensor:
    """Convert ``x`` of shape (N, C, H, W) to channels last; its gradient comes back planar."""
    return _Converted.apply(x, x.dtype, torch.channels_last, torch.contiguous_format)


class _Converted(torch.autograd.Function):
    """Changes dtype and memory format, and those of the gradient to given ones."""

    @staticmethod
    def forward(ctx, x, dtype, memory_format, of_gradient):
        ctx.formats = x.dtype, of_gradient, memory_format
        return measured.converted(x, dtype, memory_format)

    @staticmethod
    def backward(ctx, grad):
        return _Converted.apply(grad, *ctx.formats), None, None, None
