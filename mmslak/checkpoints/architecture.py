"""The architecture of SLaK that weights belong to."""

import re
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from ..models import SLaK
from ..models.large_kernel import BRANCHES
from ..models.variants import name_arch
from .compare import compare
from .errors import CheckpointError

#: mode -> names of the branches of a block.
_BRANCHES = {mode: set(kernels(51, 5)) for mode, kernels in BRANCHES.items()}


def describe(backbone: Mapping[str, Tensor], source: str = 'the file') -> dict:
    """Infer the architecture from the names and shapes of the weights of a backbone.

    Args:
        backbone (Mapping): Weights in this package's format, without the prefix ``backbone.``.
        source (str): Name of the file, for errors.

    Returns:
        dict: Arguments of :class:`mmslak.models.SLaK`: ``arch``, ``width_factor``,
        ``kernel_sizes``, ``mode``, and others that differ from their defaults.

    Raises:
        CheckpointError: If the weights belong to another architecture.
    """
    blocks = Counter()
    for stage, block in {
        tuple(map(int, found.groups()))
        for name in backbone
        if (found := re.match(r'stages\.(\d+)\.(\d+)\.', name))
    }:
        blocks[stage] = max(blocks[stage], block + 1)
    convs = [f'downsample_layers.{i}.{0 if i == 0 else 1}.weight' for i in range(4)]
    missing = [name for name in convs if name not in backbone or backbone[name].dim() != 4]
    if missing or sorted(blocks) != [0, 1, 2, 3]:
        raise CheckpointError(
            f'{source} contains another architecture: SLaK has four stages, each with a '
            f'downsampling convolution, but {missing[0] if missing else "a stage"} is missing'
        )
    depths = tuple(blocks[i] for i in range(4))
    widths = tuple(int(backbone[name].shape[0]) for name in convs)
    kernels, branches = [], set()
    for i in range(4):
        start = f'stages.{i}.0.mixing.'
        shapes = {
            name[len(start) :].split('.')[0]: tuple(value.shape)
            for name, value in backbone.items()
            if name.startswith(start) and name.endswith('.conv.weight') and value.dim() == 4
        }
        branches.add(frozenset(shapes))
        kernels.append(shapes)
    found = next((m for m, names in _BRANCHES.items() if branches == {frozenset(names)}), None)
    if found is None:
        shown = ' and '.join(sorted({'+'.join(sorted(names)) or 'nothing' for names in branches}))
        raise CheckpointError(
            f'{source} has blocks with the branches {shown}, but the modes of SLaK are '
            + ', '.join(f'{mode} ({"+".join(sorted(names))})' for mode, names in _BRANCHES.items())
        )
    main = {'decomposed': 'tall', 'reparam': 'large', 'naive': 'large'}[found]
    settings = dict(
        **name_arch(depths, widths),
        kernel_sizes=tuple(shapes[main][2] for shapes in kernels),
        mode=found,
    )
    if found != 'naive':
        settings['small_kernel'] = kernels[0]['small'][2]
    if (channels := int(backbone[convs[0]].shape[1])) != 3:
        settings['in_channels'] = channels
    if not any(name.endswith('.gamma') for name in backbone):
        settings['layer_scale_init_value'] = 0
    return settings


def check_complete(backbone: Mapping, settings: Mapping, source: str, names: Mapping) -> SLaK:
    """Compare names and shapes with the network of these settings, and return that network.

    Args:
        backbone (Mapping): Weights in this package's format, without the prefix ``backbone.``.
        settings (Mapping): Arguments of SLaK.
        source (str): Name of the file, for errors.
        names (Mapping): Names in this package's format -> names in the file, for errors.

    Raises:
        CheckpointError: If the weights do not fit.
    """
    norms = [i for i in range(4) if f'norm{i}.weight' in backbone]
    try:
        with torch.device('meta'):
            network = SLaK(**settings, out_indices=norms or [3])
    except ValueError as error:
        raise CheckpointError(
            f'{source} contains the weights of a network that SLaK cannot build: {error}'
        ) from None
    wanted = network.state_dict()
    if not norms:
        wanted = {k: v for k, v in wanted.items() if not k.startswith('norm')}
    found = compare(backbone, wanted)
    looks_like = f'{source} seems to contain SLaK({arguments_of(settings)}), but it has'
    if found.unknown or found.missing:
        what = []
        if found.unknown:
            what.append(
                f'{len(found.unknown)} unknown entries ({names[next(iter(found.unknown))]})'
            )
        if found.missing:
            what.append(f'{len(found.missing)} missing entries ({next(iter(found.missing))})')
        raise CheckpointError(f'{looks_like} {" and ".join(what)}')
    for name, (shape, expected) in found.reshaped.items():
        raise CheckpointError(f'{looks_like} {names[name]} of shape {shape} instead of {expected}')
    return network


def arguments_of(settings: Mapping) -> str:
    """Format settings as the arguments of a call."""
    return ', '.join(f'{key}={value!r}' for key, value in settings.items())
