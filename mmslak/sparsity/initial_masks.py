"""The masks that sparse training starts with."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from .allocation import allocate
from .selection import lowest, random_stream
from .semi_structured import KEPT, is_two_four, lowest_of_groups
from .targets import active_weights

INITS = ('random', 'scores', 'from_weights')


def initial_masks(
    parameters: Mapping[str, nn.Parameter],
    init: str,
    sparsity: float,
    allocation: str | Mapping[str, float],
    scores: Mapping[str, Tensor] | None = None,
    two_four: Collection[str] = (),
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
        two_four (Collection[str]): Names of the weights that keep two of every four.
        seed (int): Seed of random masks.

    Returns:
        dict[str, Tensor]: Boolean masks by name; weights without one are dense.

    Raises:
        ValueError: If the settings are not allowed, or scores are missing or do not fit.
    """
    if init == 'from_weights':
        return {
            name: _mask_from_weights(p.detach(), name in two_four) for name, p in parameters.items()
        }
    if init == 'scores':
        for name, parameter in parameters.items():
            if scores is None or name not in scores or scores[name].shape != parameter.shape:
                raise ValueError(
                    f"init='scores' needs the scores of {name!r}, of shape {tuple(parameter.shape)}"
                )
    # Frozen weights stay as they are. Masks would damage them for good, because they never adapt.
    parameters = {name: p for name, p in parameters.items() if p.requires_grad}
    others = {name: p for name, p in parameters.items() if name not in two_four}
    counts = allocate(others, sparsity, allocation, scores) if others else {}
    masks = {}
    for name, parameter in parameters.items():
        if counts.get(name) == parameter.numel():
            continue
        if init == 'scores':
            priority = -scores[name].detach().reshape(-1)
        else:
            priority = torch.rand(parameter.numel(), generator=random_stream(seed, 0, name))
        if name in two_four:
            mask = lowest_of_groups(priority, KEPT)
        else:
            mask = lowest(priority, counts[name])
        masks[name] = mask.reshape(parameter.shape)
    return masks


def _mask_from_weights(weights: Tensor, two_four: bool) -> Tensor:
    if two_four and is_two_four(weights):
        # A group may have fewer than two non-zero weights, because a grown weight can still be
        # zero. Such a group is filled up with its first zeros.
        mask = lowest_of_groups(-weights.reshape(-1).abs(), KEPT)
        return mask.reshape(weights.shape)
    return active_weights(weights)
