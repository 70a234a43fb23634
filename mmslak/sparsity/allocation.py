"""How many weights each layer keeps: uniform, ERK, SNIP, or sparsities given by pattern."""

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from .checks import check_sparsity
from .selection import lowest
from .snip import check_scores

METHODS = ('uniform', 'erk', 'snip')
#: A layer with a higher density than this is left dense.
DENSE_ABOVE = 0.99


def allocate(
    weights: Mapping[str, Tensor | tuple[int, ...]],
    sparsity: float,
    method: str | Mapping[str, float] = 'erk',
    scores: Mapping[str, Tensor] | None = None,
) -> dict[str, int]:
    """Distribute the active weights of a sparse network over its layers.

    With ``uniform`` every layer has the same density. With ``erk`` the density is proportional to
    (in + out + kernel height + kernel width) / (in * out * kernel height * kernel width) and at
    most 1 (Evci et al. 2020, section 3; ``in`` is the second dimension of the weight tensor, 1 for
    depth-wise kernels). With ``snip`` the weights with the highest scores in the whole network are
    counted in each layer (paper, section 4, footnote 1). All three keep exactly
    ``round((1 - sparsity) * N)`` of the N weights.

    A layer that would keep more than 99 % of its weights is left dense, and the other layers
    keep fewer to compensate. If no other layer can compensate, as with ``uniform`` and a sparsity
    below 1 %, the layer keeps the allocated number. Every layer keeps at least one weight.

    Args:
        weights (Mapping): Weight tensors, or their shapes, by name.
        sparsity (float): Share of all weights to mask, in [0, 1).
        method (str or Mapping[str, float]): ``uniform``, ``erk``, ``snip``, or sparsities by
            shell pattern on the names. The first pattern that matches a name is used. Layers that
            no pattern matches have the sparsity ``sparsity``.
        scores (Mapping[str, Tensor], optional): For ``snip``, from :func:`snip_scores`.

    Returns:
        dict[str, int]: Number of weights each layer keeps.

    Raises:
        ValueError: For a sparsity outside [0, 1) or too high to leave each layer a weight, an
            unknown method, a pattern that matches no name, or scores that do not fit.
    """
    shapes = {name: tuple(getattr(value, 'shape', value)) for name, value in weights.items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    check_sparsity('sparsity', sparsity)
    if isinstance(method, Mapping):
        return _by_pattern(sizes, sparsity, method)
    if method not in METHODS:
        raise ValueError(
            f'allocation must be one of {", ".join(map(repr, METHODS))} or a dict of sparsities '
            f'by pattern, got {method!r}'
        )
    total = round((1 - sparsity) * sum(sizes.values()))
    if total < len(sizes):
        raise ValueError(
            f'sparsity must leave each of the {len(sizes)} layers at least one weight, but '
            f'{sparsity!r} leaves {total} weights of {sum(sizes.values())} for all of them'
        )
    if method == 'snip':
        check_scores(shapes, scores)

    dense: list[str] = []
    while True:
        rest = {name: size for name, size in sizes.items() if name not in dense}
        budget = total - sum(sizes[name] for name in dense)
        if method == 'snip':
            kept = _snip(rest, budget, scores)
        else:
            weight = {name: 1.0 if method == 'uniform' else _erk(shapes[name]) for name in rest}
            kept = _proportional(rest, budget, weight)
        full = [name for name in rest if kept[name] > DENSE_ABOVE * rest[name]]
        others = len(rest) - len(full)
        if not full or not others or budget - sum(rest[name] for name in full) < others:
            return {name: kept.get(name, size) for name, size in sizes.items()}
        dense += full


def _erk(shape: tuple[int, ...]) -> float:
    return sum(shape) / math.prod(shape)


def _proportional(
    sizes: Mapping[str, int], budget: int, weight: Mapping[str, float]
) -> dict[str, int]:
    """Make densities proportional to ``weight``; cut them at 1 and raise the others instead."""
    full: set[str] = set()
    while True:
        rest = [name for name in sizes if name not in full]
        left = budget - sum(sizes[name] for name in full)
        scale = left / sum(weight[name] * sizes[name] for name in rest) if rest else 0.0
        over = {name for name in rest if scale * weight[name] > 1}
        if not over:
            break
        full |= over
    exact = {
        name: float(size) if name in full else scale * weight[name] * size
        for name, size in sizes.items()
    }
    # Largest remainder method: round down, then add 1 to the counts that lost most.
    counts = {name: min(sizes[name], max(1, int(exact[name]))) for name in sizes}
    order = sorted(sizes, key=lambda name: int(exact[name]) - exact[name])
    missing = budget - sum(counts.values())
    while missing:
        unit = 1 if missing > 0 else -1
        for name in order if missing > 0 else reversed(order):
            if missing and 1 <= counts[name] + unit <= sizes[name]:
                counts[name] += unit
                missing -= unit
    return counts


def _snip(sizes: Mapping[str, int], budget: int, scores: Mapping[str, Tensor]) -> dict[str, int]:
    flat = []
    for name in sizes:
        values = scores[name].detach().reshape(-1).float().clone()
        # The highest score of every layer is always kept, so that no layer is empty.
        values[values.argmax()] = torch.inf
        flat.append(values)
    chosen = lowest(-torch.cat(flat), budget)
    parts = chosen.split(list(sizes.values()))
    return {name: int(part.count_nonzero()) for name, part in zip(sizes, parts, strict=True)}


def _by_pattern(
    sizes: Mapping[str, int], sparsity: float, sparsities: Mapping[str, float]
) -> dict[str, int]:
    for pattern, value in sparsities.items():
        check_sparsity(f'allocation[{pattern!r}]', value)
        if not any(fnmatchcase(name, pattern) for name in sizes):
            raise ValueError(
                f'allocation has the pattern {pattern!r}, which matches none of the '
                f'{len(sizes)} weight names (the first is {next(iter(sizes), None)!r})'
            )
    kept = {}
    for name, size in sizes.items():
        value = next((v for p, v in sparsities.items() if fnmatchcase(name, p)), sparsity)
        kept[name] = max(1, round((1 - value) * size))
        if kept[name] > DENSE_ABOVE * size:
            kept[name] = size
    return kept
