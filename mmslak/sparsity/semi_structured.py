"""2:4 sparsity: two of every four weights along the input of a linear layer are active."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .targets import active_weights

GROUP, KEPT = 4, 2
#: PyTorch's sparse kernels for 16-bit weights need rows and columns that are multiples of these.
ROWS, COLUMNS = 32, 64


def can_be_two_four(shape: Sequence[int]) -> bool:
    """Return whether a weight of this shape is of a linear layer with a multiple of 4 inputs."""
    return len(shape) == 2 and shape[1] % GROUP == 0


def is_two_four(weights: Tensor) -> bool:
    """Return whether at most two of every four weights along the input are active."""
    if not can_be_two_four(weights.shape):
        return False
    return bool((active_weights(weights).reshape(-1, GROUP).sum(1) <= KEPT).all())


def lowest_of_groups(values: Tensor, counts: Tensor | int) -> Tensor:
    """Mark the lowest values of every four. Among equal values lower indices come first.

    Args:
        values (Tensor): Of shape (N,), N divisible by 4.
        counts (Tensor or int): Number of values to mark in each group, of shape (N / 4,), or one
            number for all groups.

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

    This is for inference on a GPU with sparse tensor cores (compute capability 8.0 or later). The
    outputs equal those of the masked dense layers up to rounding. A layer changes only if its
    weights are 2:4 and it has a multiple of 32 outputs and a multiple of 64 inputs.

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
                'semi-structured sparsity needs a model on an NVIDIA GPU with compute capability '
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
            f'none of the {len(layers)} linear layers has 2:4 weights of 16 bits, a multiple of '
            f'{ROWS} outputs and a multiple of {COLUMNS} inputs'
        )
    for name in ready:
        layer = layers[name]
        weight = torch.sparse.to_sparse_semi_structured(layer.weight.detach().contiguous())
        layer.weight = nn.Parameter(weight, requires_grad=False)
    return ready
