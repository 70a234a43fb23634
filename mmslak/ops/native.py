"""Depth-wise convolution by PyTorch's own convolution."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    add_to: Tensor | None = None,
    dilation: Sequence[int] = (1, 1),
) -> Tensor:
    """Convolve as :func:`mmslak.ops.depthwise_conv2d` does, and add to ``add_to`` in place."""
    padding = [size // 2 * step for size, step in zip(weight.shape[-2:], dilation, strict=True)]
    out = F.conv2d(
        x, weight, bias, padding=padding, dilation=list(dilation), groups=weight.shape[0]
    )
    return out if add_to is None else add_to.add_(out)


def weight_gradient(
    x: Tensor, grad: Tensor, kernel_size: tuple[int, int], dilation: Sequence[int] = (1, 1)
) -> Tensor:
    """Return the gradient of the kernels, (C, 1, kh, kw), for ``grad`` of the output."""
    padding = [size // 2 * step for size, step in zip(kernel_size, dilation, strict=True)]
    weight = x.new_empty(x.shape[1], 1, *kernel_size)
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], padding, list(dilation), False, [0, 0], x.shape[1],
        [False, True, False],
    )[1]  # fmt: skip
