"""Depth-wise convolution by PyTorch's own convolution."""

import torch
import torch.nn.functional as F
from torch import Tensor


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, add_to: Tensor | None = None
) -> Tensor:
    """Convolve as :func:`mmslak.ops.depthwise_conv2d` does, and add to ``add_to`` in place."""
    padding = (weight.shape[-2] // 2, weight.shape[-1] // 2)
    out = F.conv2d(x, weight, bias, padding=padding, groups=weight.shape[0])
    return out if add_to is None else add_to.add_(out)


def weight_gradient(x: Tensor, grad: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """Return the gradient of the kernels, (C, 1, kh, kw), for ``grad`` of the output."""
    padding = [kernel_size[0] // 2, kernel_size[1] // 2]
    weight = x.new_empty(x.shape[1], 1, *kernel_size)
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], x.shape[1],
        [False, True, False],
    )[1]  # fmt: skip
