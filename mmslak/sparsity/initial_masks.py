"""The masks that sparse training starts with."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .allocation import allocate
from .selection import random_stream
from .structures import Units

INITS = ('random', 'scores', 'from_weights')


def initial_masks(
    parameters: Mapping[str, nn.Parameter],
    init: str,
    sparsity: float,
    allocation: str | Mapping[str, Mapping[str, float]],
    scores: Mapping[str, Tensor] | None = None,
    units: Sequence[Units] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Choose the active weights of a network at the start.

    Args:
        parameters (Mapping[str, nn.Parameter]): From :func:`select_targets`. Frozen ones get masks
            only from ``from_weights``; the sparsity is then that of the others.
        init (str): ``random``, ``scores`` or ``from_weights``, see :class:`DynamicSparsity`.
        sparsity (float): Share of the weights to mask; not used by ``from_weights``.
        allocation (str or Mapping): See :func:`allocate`; not used by ``from_weights``.
        scores (Mapping[str, Tensor], optional): For ``allocation='snip'`` or ``init='scores'``.
        units (Sequence[Units], optional): From :func:`find_units`. Default: single weights.
        seed (int): Seed of random masks.

    Returns:
        dict[str, Tensor]: Boolean masks by name; weights without one are dense.

    Raises:
        ValueError: If the settings are not allowed, or scores are missing or do not fit.
    """
    if units is None:
        units = [Units.weights(name, p.shape) for name, p in parameters.items()]
    masks: dict[str, Tensor] = {}
    if init == 'from_weights':
        for one in units:
            one.expand(one.recover(parameters), masks)
        return {name: mask for name, mask in masks.items() if name in parameters}
    if init == 'scores':
        for name, parameter in parameters.items():
            if scores is None or name not in scores or scores[name].shape != parameter.shape:
                raise ValueError(
                    f"init='scores' needs the scores of {name!r}, of shape {tuple(parameter.shape)}"
                )
    # Frozen weights stay as they are. Masks would damage them for good, because they never adapt.
    units = [one for one in units if one.trained(parameters)]
    allocated = {one.name: one for one in units if one.allocated}
    counts = allocate(allocated, sparsity, allocation, scores) if allocated else {}
    for one in units:
        if init == 'scores':
            priority = -one.reduce(scores).detach()
        else:
            priority = torch.rand(one.count, generator=random_stream(seed, 0, one.name))
        one.expand(one.choose(priority, counts.get(one.name, 0)), masks)
    return {name: mask for name, mask in masks.items() if name in parameters}
