"""LayerNorm, two linear layers and layer scale, computed on widths that the hardware likes.

Matrix products are slow if the rows of a matrix do not start at multiples of some number of bytes:
the tensor cores of a GPU need 16 bytes, and a CPU computes whole vectors. SLaK's widths (124, 249,
499, 998) are no such multiples. The functions of this module pad the tensors with zeros, and drop
the padding at the end. Zeros add nothing to a product, and GELU(0) = 0, so the result stays the
same up to rounding. Parameters keep their shapes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .depthwise import is_transformed

#: Values of ``aligned``: choose by device, dtype and shape; always; never.
CHOICES = ('auto', True, False)
#: Rows of matrices are padded to a multiple of so many bytes, by the type of the device.
ALIGNMENT = {'cpu': 64, 'cuda': 64}
#: Tensor cores need rows of a multiple of 16 bytes.
TENSOR_CORE_BYTES = 16
#: On a CPU ``auto`` pads layers with at least so many channels and rows. The products of smaller
#: layers do not take longer than copying the weights.
MIN_CHANNELS, MIN_ROWS = 96, 256
_HALF = (torch.float16, torch.bfloat16)


def aligned_width(width: int, dtype: torch.dtype, device: str) -> int:
    """Return the smallest aligned width that is not below ``width``.

    Args:
        width (int): Number of elements in a row.
        dtype (torch.dtype): Their dtype.
        device (str): Type of the device.
    """
    multiple = max(1, ALIGNMENT.get(device, 1) // dtype.itemsize)
    return -(-width // multiple) * multiple


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which a linear layer with input ``x`` is computed, with autocast."""
    device = x.device.type
    if x.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def runs_aligned(x: Tensor, weights: list[Tensor], aligned: bool | str = 'auto') -> bool:
    """Return whether to compute two linear layers on padded widths.

    Args:
        x (Tensor): Input of the first layer, of shape (..., C).
        weights (list[Tensor]): Weights of the two layers, of shapes (H, C) and (C, H).
        aligned (bool or str): One of :data:`CHOICES`. Layers that are already aligned, devices
            other than CPUs and GPUs, subclasses of tensors, and the transforms of ``torch.func``
            are never padded.
    """
    device = x.device.type
    if not aligned or device not in ALIGNMENT or is_transformed():
        return False
    dtype, autocast = compute_dtype(x), torch.is_autocast_enabled(device)
    for weight in weights:
        # A dtype that does not fit is an error, which the linear layer explains.
        if type(weight) not in (torch.nn.Parameter, Tensor):
            return False
        if not autocast and weight.dtype != dtype:
            return False
    widths = weights[0].shape
    if all(aligned_width(width, dtype, device) == width for width in widths):
        return False
    if aligned is True:
        return True
    if device == 'cpu':
        rows = x.numel() // x.shape[-1]
        return dtype == torch.float32 and x.shape[-1] >= MIN_CHANNELS and rows >= MIN_ROWS
    tensor_cores = dtype in _HALF or (
        dtype == torch.float32 and torch.get_float32_matmul_precision() != 'highest'
    )
    return tensor_cores and any(width * dtype.itemsize % TENSOR_CORE_BYTES for width in widths)


def feed_forward(
    x: Tensor,
    norm: tuple[Tensor, Tensor, float],
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
) -> Tensor:
    """Compute LayerNorm, linear layer, GELU, linear layer on padded widths.

    Under autocast LayerNorm runs in the dtype of ``x``, with its statistics in float32, and the
    weights are cast and padded in one copy.

    Args:
        x (Tensor): Of shape (..., C).
        norm (tuple): Weight and bias of the LayerNorm, of shape (C,), and its epsilon.
        first (tuple): Weight of shape (H, C) and bias of shape (H,).
        second (tuple): Weight of shape (C, H) and bias of shape (C,).

    Returns:
        Tensor: Of shape (..., C), a view of a tensor of a larger width.
    """
    device, dtype = x.device.type, compute_dtype(x)
    *shape, channels = x.shape
    width = aligned_width(channels, dtype, device)
    hidden = aligned_width(first[0].shape[0], dtype, device)
    # On a CPU only the width of the output matters. Gradients of the input are such outputs too.
    inputs = channels if device == 'cpu' and not torch.is_grad_enabled() else width
    with torch.autocast(device, enabled=False):
        weight, bias, eps = norm
        x = F.layer_norm(x, (channels,), weight.to(x.dtype), bias.to(x.dtype), eps)
        x = pad(x.reshape(-1, channels), (-1, inputs), dtype)
        x = F.linear(x, pad(first[0], (hidden, inputs), dtype), pad(first[1], (hidden,), dtype))
        x = F.gelu(x)
        x = F.linear(x, pad(second[0], (width, hidden), dtype), pad(second[1], (width,), dtype))
        return crop(x, channels).view(*shape, channels)


def add_scaled(x: Tensor, y: Tensor, scale: Tensor | None) -> Tensor:
    """Compute ``x + scale * y`` in one pass, in the dtype to which the three promote.

    Args:
        x (Tensor): Of any shape.
        y (Tensor): Of the shape of ``x``.
        scale (Tensor, optional): A shape that broadcasts to that of ``x``. Default: 1.

    Returns:
        Tensor: Of the shape of ``x``.
    """
    if scale is None:
        return x + y
    # Autocast would copy y to float32 first.
    with torch.autocast(x.device.type, enabled=False):
        return torch.addcmul(x, scale, y)


def pad(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Cast a tensor and append zeros in each dimension, in one copy.

    Args:
        x (Tensor): Of one or two dimensions.
        shape (tuple[int, ...]): Shape of the result; -1 keeps a size.
        dtype (torch.dtype): Dtype of the result.

    Returns:
        Tensor: ``x`` itself if shape and dtype are already those of the result.
    """
    shape = tuple(n if m == -1 else m for m, n in zip(shape, x.shape, strict=True))
    if shape == tuple(x.shape):
        return x.to(dtype)
    if torch.compiler.is_compiling():
        # The compiler fuses the two.
        sides = [
            n for m, k in zip(shape[::-1], tuple(x.shape)[::-1], strict=True) for n in (0, m - k)
        ]
        return F.pad(x.to(dtype), sides)
    return _Pad.apply(x, shape, dtype)


def crop(x: Tensor, width: int) -> Tensor:
    """Return the first ``width`` columns of a matrix.

    Unlike slicing, the backward pass writes each element of the gradient once.
    """
    if x.shape[1] == width:
        return x
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return x[:, :width]
    return _Crop.apply(x, width)


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        ctx.shape, ctx.dtype = x.shape, x.dtype
        out = x.new_empty(shape, dtype=dtype)
        inner = out
        for dim, size in enumerate(x.shape):
            if size < shape[dim]:
                inner.narrow(dim, size, shape[dim] - size).zero_()
                inner = inner.narrow(dim, 0, size)
        inner.copy_(x)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        for dim, size in enumerate(ctx.shape):
            grad = grad.narrow(dim, 0, size)
        return grad.to(ctx.dtype), None, None


class _Crop(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, width: int) -> Tensor:
        ctx.shape, ctx.dtype = x.shape, x.dtype
        return x[:, :width]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        return pad(grad, ctx.shape, ctx.dtype), None
