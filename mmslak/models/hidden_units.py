"""Hidden units of a block that contribute nothing: left out in training, removed for inference.

A hidden unit is a row of the first linear layer with its bias, and a column of the second. If the
column is zero, the unit changes no output. If the row is zero, the unit adds a constant.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.aligned import aligned_width


def constant_units(first: nn.Linear, second: nn.Linear) -> Tensor:
    """Return which hidden units do not depend on the input, or have no influence on the output.

    Args:
        first (nn.Linear): From C channels to H hidden units.
        second (nn.Linear): From H hidden units to C channels.

    Returns:
        Tensor: Boolean, of shape (H,).
    """
    return ~(first.weight.any(1) & second.weight.any(0))


def zero_units(first: nn.Linear, second: nn.Linear) -> Tensor:
    """Return which hidden units are masked: their row, their bias and their column are zero.

    Such a unit does not change the output, and all its gradients are zero.

    Args:
        first (nn.Linear): From C channels to H hidden units.
        second (nn.Linear): From H hidden units to C channels.

    Returns:
        Tensor: Boolean, of shape (H,).
    """
    return ~(first.weight.any(1) | (first.bias != 0) | second.weight.any(0))


@torch.no_grad()
def remove_constant_units(first: nn.Linear, second: nn.Linear) -> tuple[nn.Linear, nn.Linear]:
    """Remove the hidden units of :func:`constant_units`; the output stays the same up to rounding.

    The constants are added to the bias of the second layer. The number of the hidden units that
    remain is rounded up with zeros to a width that the hardware likes in 16 bits, unless all units
    remain.

    Args:
        first (nn.Linear): From C channels to H hidden units, both with a bias.
        second (nn.Linear): From H hidden units to C channels, after a GELU.

    Returns:
        tuple[nn.Linear, nn.Linear]: New layers.
    """
    constant = constant_units(first, second)
    kept = (~constant).nonzero().flatten()
    total = len(constant)
    width = min(total, max(1, aligned_width(len(kept), torch.float16, 'cuda')))
    if len(kept) == total:
        return first, second
    columns = second.weight[:, constant]
    bias = second.bias + columns @ F.gelu(first.bias[constant])
    padding = (0, width - len(kept))
    return (
        _linear(F.pad(first.weight[kept], (0, 0, *padding)), F.pad(first.bias[kept], padding)),
        _linear(F.pad(second.weight[:, kept], padding), bias),
    )


@torch.no_grad()
def fold_scales(
    norm: nn.LayerNorm, first: nn.Linear, second: nn.Linear, scale: Tensor | None
) -> tuple[nn.Linear, nn.Linear]:
    """Fold the affine part of a LayerNorm into the layer after it, and a layer scale into the last.

    Args:
        norm (nn.LayerNorm): Before ``first``, with weight and bias.
        first (nn.Linear): From C channels to H hidden units.
        second (nn.Linear): From H hidden units to C channels.
        scale (Tensor, optional): Layer scale after ``second``, of shape (C,).

    Returns:
        tuple[nn.Linear, nn.Linear]: New layers, for a LayerNorm without affine part and no scale.
    """
    bias = first.bias + first.weight @ norm.bias
    first = _linear(first.weight * norm.weight, bias)
    if scale is not None:
        second = _linear(scale[:, None] * second.weight, scale * second.bias)
    return first, second


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device='meta')
    layer.weight, layer.bias = nn.Parameter(weight.contiguous()), nn.Parameter(bias)
    return layer
