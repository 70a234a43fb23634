"""Depth-wise convolution from PyTorch's own operators, for CPUs without a compiler.

On CPUs PyTorch's convolution is fast for tall kernels only, and slow in every backward pass. Wide
kernels are therefore transposed, and the gradient of a kernel is a batched matrix product. For a
channel and a row i of the kernel, let x_i be the feature map shifted by i - kh // 2 rows. Then
``P = grad^T x_i``, summed over all rows of all images, contains the product of every column p of
the gradient with every column q of the feature map. The gradient of the weight in row i and column
j of the kernel is the sum of the diagonal q - p = j - kw // 2 of P. A dilation multiplies both
shifts.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from . import native


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    add_to: Tensor | None = None,
    dilation: Sequence[int] = (1, 1),
) -> Tensor:
    """Convolve as :func:`mmslak.ops.depthwise_conv2d` does, and add to ``add_to`` in place."""
    if weight.shape[-1] > weight.shape[-2]:
        # ONNX from torch.jit.trace lacks mT.
        x, weight = (t.transpose(2, 3).contiguous() for t in (x, weight))
        out = native.forward(x, weight, bias, dilation=dilation[::-1]).transpose(2, 3)
        return out if add_to is None else add_to.add_(out)
    return native.forward(x, weight, bias, add_to, dilation)


def weight_gradient(
    x: Tensor, grad: Tensor, kernel_size: tuple[int, int], dilation: Sequence[int] = (1, 1)
) -> Tensor:
    """Return the gradient of the kernels, (C, 1, kh, kw), for ``grad`` of the output."""
    rows, columns = kernel_size
    if rows > columns:
        out = weight_gradient(x.mT, grad.mT, (columns, rows), dilation[::-1])
        return out.mT.contiguous()
    images, channels, height, width = x.shape
    out = x.new_zeros(channels, rows, columns)
    # (C, H, N, W): one row of all images is one block in memory.
    x, grad = (t.permute(1, 2, 0, 3).contiguous() for t in (x, grad))
    for i in range(rows):
        down = (i - rows // 2) * dilation[0]
        lines = height - abs(down)
        if lines <= 0:
            continue
        g = grad[:, max(0, -down) :][:, :lines].reshape(channels, lines * images, width)
        line = x[:, max(0, down) :][:, :lines].reshape(channels, lines * images, width)
        out[:, i] = _diagonals(g.mT @ line, columns, dilation[1])
    return out.unsqueeze(1)


def _diagonals(products: Tensor, count: int, step: int) -> Tensor:
    """Sum every ``step``-th diagonal on both sides of the main one: (C, L, L) to (C, count)."""
    channels, length, _ = products.shape
    # Rows of length 2 L - 1 are viewed as rows of length 2 L. This shifts row p by p positions to
    # the left, so that column d + L - 1 contains the diagonal q - p = d.
    rows = F.pad(products, (length - 1, 0)).flatten(1)
    sums = F.pad(rows, (0, length)).view(channels, length, 2 * length).sum(1)
    margin = count // 2 * step - (length - 1)
    return F.pad(sums[:, :-1], (margin, margin))[:, ::step]
