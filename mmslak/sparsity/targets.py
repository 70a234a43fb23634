"""Which weights are maskable, and which of them are active."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

#: A depth-wise kernel with a side of at least this size is a large kernel. In SLaK these are the
#: tall and the wide kernel of the spatial mixing (or its only large kernel), but not the 5 x 5 one.
LARGE_KERNEL = 7
TARGETS = ('all', 'large_kernels')


def active_weights(weights: Tensor) -> Tensor:
    """Return which weights are active if no mask was saved: those that are not zero.

    A weight that was grown and is still zero counts as masked here. Saved masks are exact.

    Args:
        weights (Tensor): Of any shape.

    Returns:
        Tensor: Boolean mask of the same shape, True where a weight is active.
    """
    return weights.detach() != 0


def select_targets(
    module: nn.Module, targets: str | dict = 'all', prefix: str = ''
) -> dict[str, nn.Parameter]:
    """Select the maskable weights of a module: weights of convolutions and linear layers.

    Args:
        module (nn.Module): The network or a part of it.
        targets (str or dict): ``all`` (the weights of every convolution and linear layer),
            ``large_kernels`` (depth-wise kernels with a side of 7 or more), or
            ``dict(include=[...], exclude=[...])`` of shell patterns on the names with their
            prefix. Each of the two lists is optional.
        prefix (str): Put before every name, such as ``backbone.``.

    Returns:
        dict[str, nn.Parameter]: By name, in the order of the modules, of shape (out, in) or
        (out, in / groups, kernel height, kernel width). A parameter that several modules share
        appears once, under its first name.

    Raises:
        ValueError: For unknown targets, a pattern that matches no weight, or targets that select
            no weight.
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
        chosen = [name for name, layer in layers.items() if is_large_kernel(layer)]
    elif isinstance(targets, Mapping) and targets and set(targets) <= {'include', 'exclude'}:
        chosen = _match(targets, list(parameters))
    else:
        raise ValueError(
            f'targets must be {", ".join(map(repr, TARGETS))} or a dict of include and exclude '
            f'patterns, got {targets!r}'
        )
    if not chosen:
        raise ValueError(
            f'targets={targets!r} selects no weight of {type(module).__name__}; it must select at '
            f'least one of its {len(parameters)} weights of convolutions and linear layers'
        )
    return {name: parameters[name] for name in chosen}


def select_model_targets(model: nn.Module, targets: str | dict = 'all') -> dict[str, nn.Parameter]:
    """Select the maskable weights of a classifier, detector or segmentor.

    Args:
        model (nn.Module): A model with ``backbone``; dicts of patterns need none.
        targets (str or dict): As for :func:`select_targets`. ``all`` are the weights of the
            backbone and of the head of a classifier; ``large_kernels`` are those of the backbone.
            Patterns match the names in the whole model.

    Returns:
        dict[str, nn.Parameter]: By name in the model.

    Raises:
        ValueError: As for :func:`select_targets`, and if the model has no backbone.
    """
    if not isinstance(targets, str):
        return select_targets(model, targets)
    if not hasattr(model, 'backbone'):
        raise ValueError(
            f'targets={targets!r} needs a model with a backbone, but {type(model).__name__} has '
            'none; use targets=dict(include=[...])'
        )
    parameters = select_targets(model.backbone, targets, 'backbone.')
    # Only classifiers call their head `head`. The paper counts it as part of the sparse network;
    # the heads of detectors and segmentors are dense.
    if targets == 'all' and isinstance(getattr(model, 'head', None), nn.Module):
        parameters.update(select_targets(model.head, 'all', 'head.'))
    return parameters


def is_large_kernel(layer: nn.Module) -> bool:
    """Return whether a layer is a depth-wise convolution with a side of 7 or more."""
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
                    f'{len(names)} weight names (the first is {next(iter(names), None)!r})'
                )
            matches[key] |= found
    included = matches.get('include', set(names))
    return [name for name in names if name in included - matches.get('exclude', set())]
