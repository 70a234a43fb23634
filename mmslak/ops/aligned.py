"""LayerNorm, two linear layers and layer scale, computed on widths that the hardware likes.

Matrix products are slow if the rows of a matrix do not start at multiples of some number of bytes:
the tensor cores of a GPU need 16 bytes, and a CPU computes whole vectors. SLaK's widths (124, 249,
499, 998) are no such multiples. The functions of this module pad the tensors with zeros, and drop
the padding at the end. Zeros add nothing to a product, and GELU(0) = 0, so the result stays the
same up to rounding. Parameters keep their shapes.
"""

from collections.abc import Sequence

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
#: ``auto`` pads layers with at least so many channels and, on a CPU, so many rows. In smaller ones
#: copying the weights takes as long as the products.
MIN_CHANNELS, MIN_ROWS = 96, 256
_HALF = (torch.float16, torch.bfloat16)
# PyTorch 2.5 lacks the function.
_is_exporting = getattr(torch.compiler, 'is_exporting', lambda: False)


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
            other than CPUs and GPUs, subclasses of tensors, ``torch.jit.trace``, ``torch.export``
            and the transforms of ``torch.func`` are never padded.
    """
    device = x.device.type
    if not aligned or device not in ALIGNMENT or is_transformed():
        return False
    # In an exported network the choice would hold for all shapes, or would restrict them.
    if torch.jit.is_tracing() or _is_exporting():
        return False
    dtype, autocast = compute_dtype(x), torch.is_autocast_enabled(device)
    for weight in weights:
        # A dtype that does not fit is an error, which the linear layer explains.
        if type(weight) not in (torch.nn.Parameter, Tensor):
            return False
        if not autocast and weight.dtype != dtype:
            return False
    hidden, channels = weights[0].shape
    if all(aligned_width(width, dtype, device) == width for width in (hidden, channels)):
        return False
    if aligned is True:
        return True
    if channels < MIN_CHANNELS:
        return False
    if device == 'cpu':
        return dtype == torch.float32 and x.numel() // channels >= MIN_ROWS
    return dtype in _HALF and channels * dtype.itemsize % TENSOR_CORE_BYTES != 0


def padded_parameters(x: Tensor, parameters: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Cast and pad the parameters of :func:`feed_forward`.

    Args:
        x (Tensor): Input of :func:`feed_forward`.
        parameters (Sequence[Tensor or None]): Weight and bias of the LayerNorm, of shape (C,), or
            None; of the first linear layer, of shapes (H, C) and (H,); and of the second one, of
            shapes (C, H) and (C,).

    Returns:
        tuple[Tensor or None]: The six tensors.
    """
    device, dtype = x.device.type, compute_dtype(x)
    norm_weight, norm_bias, weight1, bias1, weight2, bias2 = parameters
    hidden, channels = weight1.shape
    width = aligned_width(channels, dtype, device)
    hidden = aligned_width(hidden, dtype, device)
    # On a CPU only the width of the output matters. Gradients of the input are such outputs too.
    inputs = channels if device == 'cpu' and not torch.is_grad_enabled() else width
    with torch.autocast(device, enabled=False):
        return (
            None if norm_weight is None else norm_weight.to(x.dtype),
            None if norm_bias is None else norm_bias.to(x.dtype),
            _pad_parameter(weight1, (hidden, inputs), dtype),
            _pad_parameter(bias1, (hidden,), dtype),
            _pad_parameter(weight2, (width, hidden), dtype),
            _pad_parameter(bias2, (width,), dtype),
        )


class PaddedParameters:
    """Padded parameters that are kept for the next call, for networks that are not trained further.

    They are computed again if a parameter was replaced, moved, cast or changed in place, other than
    through ``parameter.data``, which PyTorch does not record. Copies of this object are empty.
    """

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Forget the padded parameters."""
        self._sources, self._padded = None, None

    def get(self, x: Tensor, parameters: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """Return the result of :func:`padded_parameters`."""
        given, parameters = parameters, [p for p in parameters if p is not None]
        if any(parameter.is_inference() for parameter in parameters):
            # PyTorch does not record changes of these.
            return padded_parameters(x, given)
        sources = [(p.data_ptr(), p._version, p.dtype, p.shape) for p in parameters]
        sources.append((x.device, x.dtype, compute_dtype(x)))
        if sources != self._sources:
            self._padded = padded_parameters(x, given)
            # The memory of the sources is kept, so that no other tensor gets the same address.
            self._kept = [parameter.detach() for parameter in parameters]
            self._sources = sources
        return self._padded

    def __reduce__(self) -> tuple:
        return PaddedParameters, ()


def feed_forward(x: Tensor, parameters: Sequence[Tensor | None], eps: float) -> Tensor:
    """Compute LayerNorm, linear layer, GELU, linear layer on padded widths.

    Under autocast LayerNorm runs in the dtype of ``x``, with its statistics in float32.

    Args:
        x (Tensor): Of shape (..., C).
        parameters (Sequence[Tensor or None]): Result of :func:`padded_parameters`.
        eps (float): Epsilon of the LayerNorm.

    Returns:
        Tensor: Of shape (..., C'), where C' is the aligned width.
    """
    *shape, channels = x.shape
    norm_weight, norm_bias, weight1, bias1, weight2, bias2 = parameters
    with torch.autocast(x.device.type, enabled=False):
        x = F.layer_norm(x, (channels,), norm_weight, norm_bias, eps)
        x = pad(x.reshape(-1, channels), (-1, weight1.shape[1]), weight1.dtype)
        x = F.linear(F.gelu(F.linear(x, weight1, bias1)), weight2, bias2)
        return x.view(*shape, -1)


def add_scaled(x: Tensor, y: Tensor, scale: Tensor | None) -> Tensor:
    """Compute ``x + scale * y`` in one pass, in the dtype to which the three promote.

    Args:
        x (Tensor): Feature map of shape (N, C, H, W).
        y (Tensor): Shape (N, H, W, C'), C' at least C. Channels from C on are ignored.
        scale (Tensor, optional): A shape that broadcasts to (N, C, H, W). Default: 1.

    Returns:
        Tensor: Of shape (N, C, H, W).
    """
    # Autocast would copy y to float32 first.
    with torch.autocast(x.device.type, enabled=False):
        if scale is None:
            scale = x.new_ones(1, 1, 1, 1)
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return torch.addcmul(x, scale, y[..., : x.shape[1]].permute(0, 3, 1, 2))
        return _AddScaled.apply(x, y, scale)


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
        return _pad_parameter(x, shape, dtype)
    return _Pad.apply(x, shape, dtype)


def _pad_parameter(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Cast and pad in two copies. For small tensors this is faster than a Python function."""
    sides = [
        n for size, old in zip(shape[::-1], x.shape[::-1], strict=True) for n in (0, size - old)
    ]
    return F.pad(x.to(dtype), sides) if any(sides) else x.to(dtype)


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


class _AddScaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(y, scale)
        ctx.dtype = x.dtype
        return torch.addcmul(x, scale, y[..., : x.shape[1]].permute(0, 3, 1, 2))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        y, scale = ctx.saved_tensors
        x_grad = y_grad = scale_grad = None
        channels = grad.shape[1]
        if ctx.needs_input_grad[0]:
            x_grad = grad.to(ctx.dtype)
        grad, scale = grad.permute(0, 2, 3, 1), scale.permute(0, 2, 3, 1)
        if ctx.needs_input_grad[1]:
            if torch.is_grad_enabled():
                y_grad = F.pad(grad * scale, (0, y.shape[-1] - channels)).to(y.dtype)
            else:
                # Multiplied, cast and padded in one pass.
                y_grad = torch.empty_like(y)
                y_grad[..., channels:].zero_()
                torch.mul(grad, scale, out=y_grad[..., :channels])
        if ctx.needs_input_grad[2]:
            product = grad * y[..., :channels]
            scale_grad = product.sum_to_size(scale.shape).permute(0, 3, 1, 2).to(scale.dtype)
        return x_grad, y_grad, scale_grad
