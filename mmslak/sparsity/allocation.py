"""How many weights each layer keeps: uniform, ERK, SNIP, or numbers given by hand."""

import contextlib
import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .masks import lowest

METHODS = ('uniform', 'erk', 'snip')
#: A layer allocated a higher density than this is left dense.
DENSE_ABOVE = 0.99


def allocate(
    weights: Mapping[str, Tensor | tuple[int, ...]],
    sparsity: float,
    method: str | Mapping[str, float] = 'erk',
    scores: Mapping[str, Tensor] | None = None,
) -> dict[str, int]:
    """Share out the weights that a sparsity leaves over the layers of a network.

    ``uniform`` gives every layer the same density. ``erk`` makes the density proportional to
    (in + out + kernel height + kernel width) / (in * out * height * width), at most 1 (Evci
    et al. 2020, section 3; ``in`` is the weight's own second dimension, 1 for depth-wise
    kernels). ``snip`` gives a layer as many as it has among the highest scores of the whole
    network (paper, section 4, footnote 1). All three keep exactly
    ``round((1 - sparsity) * N)`` of the N weights.

    A layer that would get more than 99 % of its weights is left dense, and the others keep
    so many fewer; only where no other layer could (as in ``uniform`` with a sparsity below
    1 %), it gets what it was allocated. Every layer keeps at least one weight.

    Args:
        weights (Mapping): Weight tensors, or their shapes, by name.
        sparsity (float): Share of all weights to leave out, in [0, 1).
        method (str or Mapping[str, float]): ``uniform``, ``erk``, ``snip``, or sparsities by
            shell pattern on the names, the first that matches a name counting. These are taken
            at their word, layer by layer; layers that none matches get ``sparsity``.
        scores (Mapping[str, Tensor], optional): For ``snip``, from :func:`snip_scores`.

    Returns:
        dict[str, int]: Number of weights each layer keeps.

    Raises:
        ValueError: For a sparsity outside [0, 1) or so high that a layer would be empty, an
            unknown method, a pattern that matches nothing, or scores that do not fit.
    """
    shapes = {name: tuple(getattr(value, 'shape', value)) for name, value in weights.items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    _check_sparsity('sparsity', sparsity)
    if isinstance(method, Mapping):
        return _by_hand(sizes, sparsity, method)
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
        _check_scores(shapes, scores)

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
    """Make densities proportional to ``weight``, those above 1 cut to 1 and shared out again."""
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
    # Largest remainder: round down, then one more where rounding down took most.
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
        # The best of every layer comes first, so that none is left empty.
        values[values.argmax()] = torch.inf
        flat.append(values)
    chosen = lowest(-torch.cat(flat), budget)
    parts = chosen.split(list(sizes.values()))
    return {name: int(part.count_nonzero()) for name, part in zip(sizes, parts, strict=True)}


def _by_hand(
    sizes: Mapping[str, int], sparsity: float, sparsities: Mapping[str, float]
) -> dict[str, int]:
    for pattern, value in sparsities.items():
        _check_sparsity(f'allocation[{pattern!r}]', value)
        if not any(fnmatchcase(name, pattern) for name in sizes):
            raise ValueError(
                f'allocation has the pattern {pattern!r}, which matches none of the '
                f'{len(sizes)} weights (such as {list(sizes)[:1]})'
            )
    kept = {}
    for name, size in sizes.items():
        value = next((v for p, v in sparsities.items() if fnmatchcase(name, p)), sparsity)
        kept[name] = max(1, round((1 - value) * size))
        if kept[name] > DENSE_ABOVE * size:
            kept[name] = size
    return kept


def _check_sparsity(key: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f'{key} must be a number in [0, 1), got {value!r}')


def _check_scores(shapes: Mapping[str, tuple], scores: Mapping[str, Tensor] | None) -> None:
    if scores is None:
        raise ValueError("allocation='snip' needs the scores of the weights, got none")
    for name, shape in shapes.items():
        if name not in scores or tuple(scores[name].shape) != shape:
            got = tuple(scores[name].shape) if name in scores else 'none'
            raise ValueError(f'scores of {name!r} must have its shape {shape}, got {got}')
        if not torch.isfinite(scores[name]).all() or (scores[name] < 0).any():
            raise ValueError(f'scores of {name!r} must be finite and at least 0, as |g * w| is')
    if not any((scores[name] > 0).any() for name in shapes):
        raise ValueError('scores must not all be 0: the loss depends on none of the weights')


def snip_scores(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], closure: Callable[[], Tensor]
) -> dict[str, Tensor]:
    """Compute SNIP's connection sensitivity |g * w| of weights (Lee et al. 2019).

    The gradient g is averaged over the processes of ``torch.distributed`` first, where there
    are several. The model is left as it was: no ``.grad``, the buffers (statistics of batch
    norms), training flags and PyTorch's random state as before.

    Args:
        model (nn.Module): The network itself, not its distributed wrapper.
        parameters (Mapping[str, nn.Parameter]): The weights to score; one that is frozen or
            has no influence on the loss scores 0.
        closure (Callable): Runs the model on one batch and returns the loss, a scalar.

    Returns:
        dict[str, Tensor]: Scores of the parameters' shapes and dtypes.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    training = [(module, module.training) for module in model.modules()]
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    devices = {p.get_device() for p in parameters.values() if p.is_cuda}
    with contextlib.ExitStack() as stack:
        stack.callback(_restore, buffers, training)
        stack.enter_context(torch.random.fork_rng(devices=sorted(devices)))
        stack.enter_context(torch.enable_grad())
        found = torch.autograd.grad(closure(), list(trained.values()), allow_unused=True)
    gradients = dict(zip(trained, found, strict=True))
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    scores = {}
    for name, parameter in parameters.items():
        gradient = gradients.get(name)
        if gradient is None:
            gradient = torch.zeros_like(parameter)
        if several:
            gradient = gradient.contiguous()
            dist.all_reduce(gradient)
            gradient = gradient / dist.get_world_size()
        scores[name] = (gradient * parameter.detach()).abs()
    return scores


def _restore(buffers: list, training: list) -> None:
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    for module, flag in training:
        module.training = flag
