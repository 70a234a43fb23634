"""2:4 sparsity: of every four weights along the input of a linear layer two are active."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .targets import active_weights

STRUCTURES = ('unstructured', '2:4')
GROUP, KEPT = 4, 2
#: Rows and columns must be multiples of these for all sparse kernels that PyTorch has for 16-bit
#: weights.
ROWS, COLUMNS = 32, 64


def can_be_two_four(shape: Sequence[int]) -> bool:
    """Return whether a linear layer of this shape has a multiple of four inputs."""
    return len(shape) == 2 and shape[1] % GROUP == 0


def is_two_four(weights: Tensor) -> bool:
    """Return whether at most two of every four weights along the input are not zero."""
    if not can_be_two_four(weights.shape):
        return False
    return bool((active_weights(weights).reshape(-1, GROUP).sum(1) <= KEPT).all())


def lowest_of_groups(values: Tensor, counts: Tensor | int) -> Tensor:
    """Mark the lowest values of every four, lower indices first where values are equal.

    Args:
        values (Tensor): Of shape (N,), N divisible by 4.
        counts (Tensor or int): How many to mark in each group, of shape (N / 4,) or one for
            all.

    Returns:
        Tensor: Boolean, of shape (N,).
    """
    order = values.reshape(-1, GROUP).sort(dim=1, stable=True).indices
    rank = order.argsort(dim=1)
    if isinstance(counts, Tensor):
        counts = counts[:, None]
    return (rank < counts).reshape(-1)


def to_semi_structured(model: nn.Module) -> list[str]:
    """Store the 2:4 linear layers of a trained model in PyTorch's semi-structured format.

    This is for inference on a GPU with sparse tensor cores (compute capability 8.0 and later). The
    outputs equal those of the masked dense layers up to rounding. Layers whose weights are not 2:4
    or whose sizes are not multiples of 32 outputs and 64 inputs do not change.

    Args:
        model (nn.Module): On the GPU, in half precision or bfloat16; changed in place.

    Returns:
        list[str]: Names of the layers that were converted.

    Raises:
        RuntimeError: If the model is not on such a GPU.
        ValueError: If no linear layer can be converted.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    for name, layer in layers.items():
        device = layer.weight.device
        if device.type != 'cuda' or torch.cuda.get_device_capability(device) < (8, 0):
            raise RuntimeError(
                'semi-structured sparsity needs a model on an NVIDIA GPU of compute capability '
                f'8.0 or later, but {name!r} is on {device}'
            )
    ready = [
        name
        for name, layer in layers.items()
        if layer.weight.dtype in (torch.float16, torch.bfloat16)
        and layer.out_features % ROWS == 0
        and layer.in_features % COLUMNS == 0
        and is_two_four(layer.weight.detach())
    ]
    if not ready:
        raise ValueError(
            f'none of the {len(layers)} linear layers has 2:4 weights of 16 bits and a multiple '
            f'of {ROWS} outputs and {COLUMNS} inputs'
        )
    for name in ready:
        layer = layers[name]
        weight = torch.sparse.to_sparse_semi_structured(layer.weight.detach().contiguous())
        layer.weight = nn.Parameter(weight, requires_grad=False)
    return ready
