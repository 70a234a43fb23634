"""Which weights are maskable, and which of them are active."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

#: A depth-wise kernel with a side of at least this many weights is a large kernel: the tall and
#: the wide (or the one large) kernel of the spatial mixing, but not the 5 x 5 kernel beside them.
LARGE_KERNEL = 7
TARGETS = ('all', 'large_kernels')


def active_weights(weights: Tensor) -> Tensor:
    """Return which weights are active where no mask was saved: those that are not zero.

    A weight that was grown and is still zero is lost; saved masks lose none.

    Args:
        weights (Tensor): Of any shape.

    Returns:
        Tensor: Boolean mask of the same shape, True where a weight is active.
    """
    return weights.detach() != 0


def select_targets(
    module: nn.Module, targets: str | dict = 'all', prefix: str = ''
) -> dict[str, nn.Parameter]:
    """Select the weights that sparse training may mask.

    Args:
        module (nn.Module): The network or a part of it.
        targets (str or dict): ``all`` (the weights of every convolution and linear layer),
            ``large_kernels`` (depth-wise kernels with a side of 7 or more), or
            ``dict(include=[...], exclude=[...])`` of shell patterns on the names with their
            prefix; each of the two may be left out.
        prefix (str): Added before every name, such as ``backbone.``.

    Returns:
        dict[str, nn.Parameter]: By name, in the order of the modules; of dimensions
        (out, in) or (out, in / groups, kernel height, kernel width). A parameter shared by
        several modules appears once, under its first name.

    Raises:
        ValueError: For unknown targets, a pattern that matches no weight, or no weight left.
    """
    layers: dict[str, nn.Module] = {}
    parameters: dict[str, nn.Parameter] = {}
    seen = set()
    for path, layer in module.named_modules():
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)) and id(layer.weight) not in seen:
            name = f'{prefix}{path}.weight' if path else f'{prefix}weight'
            seen.add(id(layer.weight))
            layers[name], parameters[name] = layer, layer.weight
    if targets == 'all':
        chosen = list(parameters)
    elif targets == 'large_kernels':
        chosen = [name for name, layer in layers.items() if _has_large_kernel(layer)]
    elif isinstance(targets, Mapping) and targets and set(targets) <= {'include', 'exclude'}:
        chosen = _match(targets, list(parameters))
    else:
        raise ValueError(
            f'targets must be {", ".join(map(repr, TARGETS))} or a dict of include and exclude '
            f'patterns, got {targets!r}'
        )
    if not chosen:
        raise ValueError(
            f'targets={targets!r} selects no weight of {type(module).__name__}; it must select '
            f'at least one of its {len(parameters)} convolution and linear weights'
        )
    return {name: parameters[name] for name in chosen}


def _has_large_kernel(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.modules.conv._ConvNd)
        and layer.groups == layer.in_channels == layer.out_channels
        and max(layer.kernel_size) >= LARGE_KERNEL
    )


def _match(targets: Mapping, names: list[str]) -> list[str]:
    matches = {}
    for key in targets:
        patterns = targets[key]
        if isinstance(patterns, str) or not isinstance(patterns, Sequence):
            raise ValueError(f'targets.{key} must be a list of patterns, got {patterns!r}')
        matches[key] = set()
        for pattern in patterns:
            found = {name for name in names if fnmatchcase(name, pattern)}
            if not found:
                raise ValueError(
                    f'targets.{key} has the pattern {pattern!r}, which matches none of the '
                    f'{len(names)} convolution and linear weights (such as {names[:1]})'
                )
            matches[key] |= found
    included = matches.get('include', set(names))
    return [name for name in names if name in included - matches.get('exclude', set())]
