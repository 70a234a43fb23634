"""The slow reference of the operator, which every implementation is tested against."""

import torch
from torch import Tensor


def forward(x: Tensor, weight: Tensor, dilation: tuple[int, int] = (1, 1)) -> Tensor:
    """Correlate each channel of ``x`` with its own kernel, in double precision.

    Args:
        x (Tensor): Feature maps of shape (N, C, H, W).
        weight (Tensor): Kernels of shape (C, 1, kh, kw), kh and kw odd.
        dilation (tuple[int, int]): dh and dw, the distance of neighbouring weights.

    Returns:
        Tensor: float64, shape (N, C, H, W): the sum over i and j of
        ``weight[c, 0, i, j] * x[n, c, h + dh * (i - kh // 2), w + dw * (j - kw // 2)]``, where x is
        zero outside the feature map.
    """
    out = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    for i, j, here, there in _taps(x, weight.shape[-2:], dilation):
        out[here] += weight[:, :, i, j].double().unsqueeze(-1) * x[there].double()
    return out


def input_gradient(grad: Tensor, weight: Tensor, dilation: tuple[int, int] = (1, 1)) -> Tensor:
    """Return the gradient of the input.

    Args:
        grad (Tensor): Gradient of the output, of shape (N, C, H, W).
        weight (Tensor): Kernels of shape (C, 1, kh, kw), kh and kw odd.
        dilation (tuple[int, int]): The distance of neighbouring weights.

    Returns:
        Tensor: float64, shape (N, C, H, W).
    """
    out = torch.zeros(grad.shape, dtype=torch.float64, device=grad.device)
    for i, j, here, there in _taps(grad, weight.shape[-2:], dilation):
        out[there] += weight[:, :, i, j].double().unsqueeze(-1) * grad[here].double()
    return out


def weight_gradient(
    x: Tensor, grad: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> Tensor:
    """Return the gradient of the kernels.

    Args:
        x (Tensor): Feature maps of shape (N, C, H, W).
        grad (Tensor): Gradient of the output, of the same shape.
        kernel_size (tuple[int, int]): kh and kw, odd.
        dilation (tuple[int, int]): The distance of neighbouring weights.

    Returns:
        Tensor: float64, shape (C, 1, kh, kw).
    """
    out = torch.zeros(x.shape[1], 1, *kernel_size, dtype=torch.float64, device=x.device)
    for i, j, here, there in _taps(x, kernel_size, dilation):
        out[:, 0, i, j] = (grad[here].double() * x[there].double()).sum((0, 2, 3))
    return out


def _taps(x: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int]):
    """Yield each position of the kernel with the slices of output and input that it connects."""
    (height, width), (rows, columns) = x.shape[-2:], kernel_size
    for i in range(rows):
        for j in range(columns):
            down, right = (i - rows // 2) * dilation[0], (j - columns // 2) * dilation[1]
            if abs(down) < height and abs(right) < width:
                here = (..., _span(height, -down), _span(width, -right))
                there = (..., _span(height, down), _span(width, right))
                yield i, j, here, there


def _span(extent: int, shift: int) -> slice:
    return slice(max(0, shift), extent + min(0, shift))
