"""How many weights each layer keeps: uniform, ERK, SNIP, or sparsities given by pattern."""

import math
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from .checks import check_sparsity
from .selection import lowest
from .snip import check_scores
from .structures import Units

METHODS = ('uniform', 'erk', 'snip')
#: Key of the sparsities by pattern.
SPARSITIES = 'sparsities'
#: A layer with a higher density than this is left dense.
DENSE_ABOVE = 0.99


def allocate(
    weights: Mapping[str, Tensor | tuple[int, ...] | Units],
    sparsity: float,
    method: str | Mapping[str, Mapping[str, float]] = 'erk',
    scores: Mapping[str, Tensor] | None = None,
) -> dict[str, int]:
    """Distribute the active weights of a sparse network over its layers.

    With ``uniform`` every layer has the same density. With ``erk`` the density is proportional to
    (in + out + kernel height + kernel width) / (in * out * kernel height * kernel width) and at
    most 1 (Evci et al. 2020, section 3; ``in`` is the second dimension of the weight tensor, 1 for
    depth-wise kernels). With ``snip`` the weights with the highest scores in the whole network are
    counted in each layer (paper, section 4, footnote 1). All three keep exactly
    ``round((1 - sparsity) * N)`` of the N weights.

    Layers of :class:`Units` keep whole units. The number of weights is then at most this number,
    and lower by less than the smallest unit that is masked. ``snip`` compares the mean score of a
    unit's weights: a budget of weights keeps the highest sum of scores if the units with the most
    score per weight come first. ``erk`` uses the sums of all tensors of a unit.

    A layer that would keep more than 99 % of its weights is left dense, and the other layers
    keep fewer to compensate. If no other layer can compensate, as with ``uniform`` and a sparsity
    below 1 %, the layer keeps the allocated number. Every layer keeps at least one weight or unit.
    For layers of the structure ``dense`` the others compensate, too.

    Args:
        weights (Mapping): Weight tensors, or their shapes, or :class:`Units`, by name.
        sparsity (float): Share of all weights to mask, in [0, 1).
        method (str or Mapping): ``uniform``, ``erk``, ``snip``, or
            ``dict(sparsities={pattern: sparsity})`` with shell patterns on the names. The first
            pattern that matches a name is used. Layers that no pattern matches have the sparsity
            ``sparsity``.
        scores (Mapping[str, Tensor], optional): For ``snip``, from :func:`snip_scores`.

    Returns:
        dict[str, int]: Number of weights, or of units, that each layer keeps.

    Raises:
        ValueError: For a sparsity outside [0, 1) or too high to leave each layer a weight, an
            unknown method, a pattern that matches no name, or scores that do not fit.
    """
    units = {
        name: value
        if isinstance(value, Units)
        else Units.weights(name, getattr(value, 'shape', value))
        for name, value in weights.items()
    }
    check_sparsity('sparsity', sparsity)
    if isinstance(method, Mapping):
        return _by_pattern(units, sparsity, _pattern_sparsities(method))
    if method not in METHODS:
        raise ValueError(
            f'allocation must be one of {", ".join(map(repr, METHODS))} or '
            f'dict(sparsities={{pattern: sparsity}}), got {method!r}'
        )
    total = round((1 - sparsity) * sum(one.numel for one in units.values()))
    dense = [name for name, one in units.items() if one.structure == 'dense']
    _check_total(units, dense, sparsity, total)
    if method == 'snip':
        shapes = {part.name: part.shape for one in units.values() for part in one.parts}
        check_scores(shapes, scores)

    kept: dict[str, int] = {}
    while rest := {name: one for name, one in units.items() if name not in dense}:
        budget = total - sum(units[name].numel for name in dense)
        if method == 'snip':
            kept = _snip(rest, budget, scores)
        else:
            weight = {n: 1.0 if method == 'uniform' else _erk(one) for n, one in rest.items()}
            kept = _proportional(rest, budget, weight)
        full = [name for name in rest if kept[name] > DENSE_ABOVE * rest[name].count]
        left = budget - sum(rest[name].numel for name in full)
        least = sum(one.size for name, one in rest.items() if name not in full)
        if not full or not least or left < least:
            break
        dense += full
    return {name: kept.get(name, one.count) for name, one in units.items()}


def _check_total(
    units: Mapping[str, Units], dense: Collection[str], sparsity: float, total: int
) -> None:
    """Check that the dense layers, and one unit of each other layer, are at most ``total``."""
    rest = [one for name, one in units.items() if name not in dense]
    kept = sum(units[name].numel for name in dense)
    if total >= kept + sum(one.size for one in rest):
        return
    count = sum(one.numel for one in units.values())
    if dense:
        raise ValueError(
            f'sparsity={sparsity!r} leaves {total} weights of {count}, but the dense layers of '
            f'structure have {kept} and each of the {len(rest)} other layers needs at least one '
            'weight or unit; lower sparsity, or make fewer layers dense'
        )
    least = 'weight' if all(one.size == 1 for one in rest) else 'weight or unit'
    raise ValueError(
        f'sparsity must leave each of the {len(rest)} layers at least one {least}, but '
        f'{sparsity!r} leaves {total} weights of {count} for all of them'
    )


def _erk(units: Units) -> float:
    return sum(sum(part.shape) for part in units.parts) / sum(
        math.prod(part.shape) for part in units.parts
    )


def _proportional(
    units: Mapping[str, Units], budget: int, weight: Mapping[str, float]
) -> dict[str, int]:
    """Make densities proportional to ``weight``; cut them at 1 and raise the others instead."""
    full: set[str] = set()
    while True:
        rest = [name for name in units if name not in full]
        left = budget - sum(units[name].numel for name in full)
        scale = left / sum(weight[name] * units[name].numel for name in rest) if rest else 0.0
        over = {name for name in rest if scale * weight[name] > 1}
        if not over:
            break
        full |= over
    exact = {
        name: float(one.count) if name in full else scale * weight[name] * one.numel / one.size
        for name, one in units.items()
    }
    # Largest remainder method: round down, then add 1 to the counts that lost most.
    counts = {name: min(one.count, max(1, int(exact[name]))) for name, one in units.items()}
    order = sorted(units, key=lambda name: int(exact[name]) - exact[name])
    missing = budget - sum(counts[name] * one.size for name, one in units.items())
    for step in (-1, 1):
        moved = True
        while moved and missing * step > 0:
            moved = False
            for name in order if step > 0 else reversed(order):
                size = units[name].size
                # Units are removed until none is too many, and added as long as they fit.
                fits = size <= missing if step > 0 else missing < 0
                if fits and 1 <= counts[name] + step <= units[name].count:
                    counts[name] += step
                    missing -= step * size
                    moved = True
    return counts


def _snip(units: Mapping[str, Units], budget: int, scores: Mapping[str, Tensor]) -> dict[str, int]:
    flat, sizes = [], []
    for one in units.values():
        values = one.reduce({name: scores[name].detach().float() for name in one.names}) / one.size
        # The highest score of every layer is always kept, so that no layer is empty.
        values[values.argmax()] = torch.inf
        flat.append(values)
        sizes.append(torch.full_like(values, one.size, dtype=torch.long))
    chosen = _highest(torch.cat(flat), torch.cat(sizes), budget)
    parts = chosen.split([one.count for one in units.values()])
    return {name: int(part.count_nonzero()) for name, part in zip(units, parts, strict=True)}


def _highest(values: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """Mark the highest values whose sizes fit into the budget.

    If a unit does not fit, it and all others of at least this size are left out.
    """
    if (sizes == 1).all():
        return lowest(-values, budget)
    chosen = torch.zeros_like(values, dtype=torch.bool)
    left = values.argsort(descending=True, stable=True)
    while len(left):
        ends = sizes[left].cumsum(0)
        fit = int((ends <= budget).count_nonzero())
        chosen[left[:fit]] = True
        budget -= int(ends[fit - 1]) if fit else 0
        left = left[fit:]
        left = left[sizes[left] <= budget]
    return chosen


def _pattern_sparsities(method: Mapping) -> Mapping[str, float]:
    """Return the sparsities by pattern, whose key says that they are not densities."""
    sparsities = method.get(SPARSITIES)
    if set(method) != {SPARSITIES} or not isinstance(sparsities, Mapping):
        raise ValueError(
            f'allocation must be dict({SPARSITIES}={{pattern: sparsity}}), where a sparsity is the '
            f'share of masked weights, got {dict(method)!r}'
        )
    return sparsities


def _by_pattern(
    units: Mapping[str, Units], sparsity: float, sparsities: Mapping[str, float]
) -> dict[str, int]:
    names = list(dict.fromkeys(name for one in units.values() for name in one.names))
    for pattern, value in sparsities.items():
        check_sparsity(f'allocation.{SPARSITIES}[{pattern!r}]', value)
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f'allocation.{SPARSITIES} has the pattern {pattern!r}, which matches none of the '
                f'{len(names)} weight names (the first is {next(iter(names), None)!r})'
            )
    kept = {}
    for name, one in units.items():
        matching = (v for p, v in sparsities.items() if any(fnmatchcase(n, p) for n in one.names))
        value = 0 if one.structure == 'dense' else next(matching, sparsity)
        kept[name] = max(1, round((1 - value) * one.count))
        if kept[name] > DENSE_ABOVE * one.count:
            kept[name] = one.count
    return kept
