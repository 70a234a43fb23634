"""Conversion between the authors' checkpoint format and that of this package.

The files hold names, shapes and values of weights. None of the authors' code is needed to read
them.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..models import SLaK
from ..models.large_kernel import BRANCHES
from ..models.variants import name_arch
from ..sparsity import active_weights, pack_mask, select_targets
from .compare import compare
from .reading import CheckpointError

#: Part of a name in the authors' format -> in ours, within a block. The last is of ConvNeXt, whose
#: block is that of mode ``naive``; the others are of SLaK.
_BLOCK = {
    '.large_kernel.LoRA1.conv.': '.mixing.tall.conv.',
    '.large_kernel.LoRA1.bn.': '.mixing.tall.norm.',
    '.large_kernel.LoRA2.conv.': '.mixing.wide.conv.',
    '.large_kernel.LoRA2.bn.': '.mixing.wide.norm.',
    '.large_kernel.lkb_origin.conv.': '.mixing.large.conv.',
    '.large_kernel.lkb_origin.bn.': '.mixing.large.norm.',
    '.large_kernel.small_conv.conv.': '.mixing.small.conv.',
    '.large_kernel.small_conv.bn.': '.mixing.small.norm.',
    '.dwconv.': '.mixing.large.conv.',
}
#: mode -> names of the branches of a block.
_BRANCHES = {mode: set(kernels(51, 5)) for mode, kernels in BRANCHES.items()}
_PREFIX = 'backbone.'
#: Keys of the authors' files that may hold the weights.
_CLASSIFIER, _AVERAGE, _DOWNSTREAM = 'model', 'model_ema', 'state_dict'
#: Key under which a conversion adds to the meta data.
_META = 'mmslak'
#: Key of the masks in a checkpoint of this package.
SPARSITY_STATE = 'dynamic_sparsity'


@dataclass
class Converted:
    """A checkpoint in the format of this package.

    Args:
        state_dict (dict): Weights of the whole model, those of the backbone under ``backbone.``.
        settings (dict): Arguments of :class:`mmslak.models.SLaK` that build this backbone.
        kind (str): ``classifier`` or ``downstream``.
        masks (dict): Boolean masks of the weights that contain zeros, by name.
        densities (dict): Share of active weights of every convolution and linear layer.
        renamed (int): Number of entries that got another name.
        passed (list): Names outside the backbone that are kept, those of the toolbox's heads.
        meta (dict): Meta data of a downstream checkpoint.
    """

    state_dict: dict[str, Tensor]
    settings: dict
    kind: str
    masks: dict[str, Tensor] = field(default_factory=dict)
    densities: dict[str, float] = field(default_factory=dict)
    renamed: int = 0
    passed: list[str] = field(default_factory=list)
    meta: dict = field(default_factory=dict)

    def checkpoint(self) -> dict:
        """Return what to save: weights, masks of one bit for each weight, and meta data."""
        note = dict(kind=self.kind, backbone=self.settings)
        checkpoint = dict(meta={**self.meta, _META: note}, state_dict=self.state_dict)
        if self.masks:
            checkpoint[SPARSITY_STATE] = dict(
                shapes={name: list(self.state_dict[name].shape) for name in self.densities},
                packed={name: pack_mask(mask) for name, mask in self.masks.items()},
            )
        return checkpoint


# --- from the authors' format ---------------------------------------------------------------------


def from_official(checkpoint: Mapping, ema: bool = False, source: str = 'the file') -> Converted:
    """Convert a checkpoint of the authors of SLaK or ConvNeXt.

    Args:
        checkpoint (Mapping): Content of the file: the weights of a classifier under ``model`` or
            at the top level, or of a segmentor or detector under ``state_dict``.
        ema (bool): Take the averaged weights, ``model_ema``.
        source (str): Name of the file, for errors.

    Returns:
        Converted: Every entry of the file, renamed or kept.

    Raises:
        CheckpointError: If the file has no weights of such a network, if an entry is unknown,
            missing or of an unexpected shape, or if the branches were merged.
    """
    state, kind, meta = select_weights(checkpoint, ema, source)
    if kind == 'ours':
        raise CheckpointError(f'{source} is in the format of this package already')
    mine = {k: v for k, v in state.items() if kind == 'classifier' or k.startswith(_PREFIX)}
    backbone = {name.removeprefix(_PREFIX): value for name, value in mine.items()}
    _refuse_others(backbone, source)
    renamed = {name: _ours(name, kind) for name in backbone}
    settings = describe({renamed[name]: value for name, value in backbone.items()}, source)
    network = _check_complete(
        {renamed[name]: v for name, v in backbone.items() if not renamed[name].startswith('head.')},
        settings,
        source,
        {renamed[name]: name for name in backbone},
    )
    converted, changed = {}, 0
    for name, value in state.items():
        new = name
        if name in mine:
            inner = renamed[name.removeprefix(_PREFIX)]
            new = inner if inner.startswith('head.') else _PREFIX + inner
        changed += new != name
        converted[new] = value
    passed = [name for name in state if name not in mine]
    names = [*select_targets(network, 'all', _PREFIX), 'head.fc.weight']
    masks, densities = recover_masks({k: converted[k] for k in names if k in converted})
    return Converted(converted, settings, kind, masks, densities, changed, passed, meta)


def select_weights(checkpoint: Mapping, ema: bool, source: str) -> tuple[dict, str, dict]:
    """Find the weights in the content of a file, and tell which kind they are.

    Returns:
        tuple: Tensors by name; ``classifier`` or ``downstream`` for files of the authors,
        ``ours`` for files of this package; meta data.

    Raises:
        CheckpointError: If there are none.
    """
    if ema:
        if _AVERAGE not in checkpoint:
            raise CheckpointError(
                f'{source} holds no averaged weights (no {_AVERAGE!r}, only '
                f'{_listed(checkpoint)}); convert it without --ema'
            )
        weights, kind = checkpoint[_AVERAGE], 'classifier'
    elif isinstance(checkpoint.get(_CLASSIFIER), Mapping):
        weights, kind = checkpoint[_CLASSIFIER], 'classifier'
    elif isinstance(checkpoint.get(_DOWNSTREAM), Mapping):
        weights, kind = checkpoint[_DOWNSTREAM], 'downstream'
    else:
        weights, kind = checkpoint, 'classifier'
    if not isinstance(weights, Mapping):
        raise CheckpointError(f'{source} holds a {type(weights).__name__} instead of weights')
    tensors = {k.removeprefix('module.'): v for k, v in weights.items() if isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError(
            f'{source} holds no weights, only {_listed(checkpoint)}; expected a dict of tensors '
            f'under {_CLASSIFIER!r} or {_DOWNSTREAM!r}'
        )
    if weights is checkpoint and len(tensors) < len(weights):
        odd = [k for k, v in weights.items() if not isinstance(v, Tensor)]
        raise CheckpointError(f'{source} holds entries that are not weights: {_listed(odd)}')
    if any('.mixing.' in name for name in tensors):
        kind = 'ours'
    elif kind == 'downstream' and not any(name.startswith(_PREFIX) for name in tensors):
        kind = 'classifier'
    meta = checkpoint.get('meta') if kind == 'downstream' else None
    return tensors, kind, dict(meta or {})


def _refuse_others(backbone: Mapping, source: str) -> None:
    """Refuse what is known but cannot be converted, with the reason."""
    if any('lkb_reparam' in name for name in backbone):
        raise CheckpointError(
            f'{source} holds merged kernels (lkb_reparam): the branches and batch norms '
            'cannot be recovered from them; convert the file from before the merge'
        )
    if any(name.startswith(('stem.', 'transitions.')) or '.blocks.' in name for name in backbone):
        raise CheckpointError(
            f"{source} is of RepLKNet's own architecture (a stem of four convolutions, separate "
            'feed-forward blocks), which is not one of the modes of SLaK; mode "reparam" takes '
            'files of ConvNeXt blocks with lkb_origin and small_conv'
        )
    if not any(re.match(r'stages\.\d+\.\d+\.', name) for name in backbone) or not any(
        name.startswith('downsample_layers.') for name in backbone
    ):
        raise CheckpointError(
            f'{source} is of another architecture: it has no downsample_layers and stages as '
            f'SLaK and ConvNeXt have, but {_listed(backbone)}'
        )


def _ours(name: str, kind: str) -> str:
    """Return our name of an entry of the backbone or of a classifier's head."""
    if kind == 'classifier' and re.fullmatch(r'norm\.(weight|bias)', name):
        return name.replace('norm.', 'norm3.')
    if kind == 'classifier' and re.fullmatch(r'head\.(weight|bias)', name):
        return name.replace('head.', 'head.fc.')
    for theirs, ours in _BLOCK.items():
        name = name.replace(theirs, ours)
    return name


# --- the network behind the weights ---------------------------------------------------------------


def describe(backbone: Mapping[str, Tensor], source: str = 'the file') -> dict:
    """Infer the architecture from the names and shapes of the weights of a backbone.

    Args:
        backbone (Mapping): Weights in our format, without the prefix ``backbone.``.
        source (str): Name of the file, for errors.

    Returns:
        dict: ``arch``, ``width_factor``, ``kernel_sizes``, ``small_kernel``, ``mode`` and what
        else differs from the defaults of :class:`mmslak.models.SLaK`.

    Raises:
        CheckpointError: If they belong to another architecture.
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
            f'{source} is of another architecture: four stages with a downsampling convolution '
            f'each were expected, but {missing[0] if missing else "a stage"} is missing'
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
            f'{source} has blocks of {shown}, which is none of '
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


def _check_complete(backbone: Mapping, settings: Mapping, source: str, names: Mapping) -> SLaK:
    """Compare names and shapes with the network of these settings, and return that network.

    Args:
        backbone (Mapping): Weights in our format, without the prefix ``backbone.``.
        settings (Mapping): Arguments of SLaK.
        source (str): Name of the file, for errors.
        names (Mapping): The name in the file of each of our names.
    """
    norms = [i for i in range(4) if f'norm{i}.weight' in backbone]
    try:
        with torch.device('meta'):
            network = SLaK(**settings, out_indices=norms or [3])
    except ValueError as error:
        raise CheckpointError(
            f'{source} describes a network that cannot be built: {error}'
        ) from None
    wanted = network.state_dict()
    if not norms:
        wanted = {k: v for k, v in wanted.items() if not k.startswith('norm')}
    found = compare(backbone, wanted)
    looks_like = f'{source} looks like SLaK({arguments_of(settings)}), but'
    if found.unknown or found.missing:
        what = []
        if found.unknown:
            what.append(
                f'{len(found.unknown)} unknown entries ({names[next(iter(found.unknown))]})'
            )
        if found.missing:
            what.append(f'{len(found.missing)} missing ones ({next(iter(found.missing))})')
        raise CheckpointError(f'{looks_like} has {" and ".join(what)}')
    for name, (shape, expected) in found.reshaped.items():
        raise CheckpointError(
            f'{looks_like} {names[name]} has the shape {shape} where {expected} is expected'
        )
    return network


def recover_masks(
    weights: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Recover masks from the zeros of weights, because the authors' files contain no masks.

    Args:
        weights (Mapping): Weights of convolutions and linear layers, by name.

    Returns:
        tuple: Boolean masks of the weights that contain zeros, and the density of each of them,
        both by name. A weight that was grown and is still zero counts as masked.
    """
    masks, densities = {}, {}
    for name, value in weights.items():
        mask = active_weights(value)
        densities[name] = float(mask.double().mean())
        if not mask.all():
            masks[name] = mask
    return masks, densities


# --- to the authors' format -----------------------------------------------------------------------


def to_official(checkpoint: Mapping, source: str = 'the file') -> dict:
    """Convert a checkpoint of this package to the authors' format.

    Args:
        checkpoint (Mapping): From training, or made by :func:`from_official`.
        source (str): Name of the file, for errors.

    Returns:
        dict: ``dict(model=...)`` of a classifier, else ``dict(meta=..., state_dict=...)``.
        It contains neither masks nor the state of an optimiser; masked weights are zero.

    Raises:
        CheckpointError: If it does not hold a SLaK in the format of this package.
    """
    state, kind, _ = select_weights(checkpoint, False, source)
    if kind != 'ours' or not any(name.startswith(_PREFIX) for name in state):
        raise CheckpointError(
            f'{source} is not in the format of this package: no entry is named '
            f'{_PREFIX}stages.*.mixing.*, but {_listed(state)}'
        )
    inner = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
    settings = describe(inner, source)
    _check_complete(inner, settings, source, {name: name for name in inner})
    others = [k for k in state if not k.startswith(_PREFIX)]
    meta = dict(checkpoint.get('meta') or {})
    note = meta.pop(_META, {})
    classifier = all(name in ('head.fc.weight', 'head.fc.bias') for name in others) and not any(
        f'norm{i}.weight' in inner for i in range(3)
    )
    kind = note.get('kind') or ('classifier' if classifier else 'downstream')
    naive = settings['mode'] == 'naive'
    theirs = {_theirs(name, kind, naive): value for name, value in state.items()}
    if kind == 'classifier':
        return dict(model=theirs)
    return dict(meta=meta, state_dict=theirs)


def _theirs(name: str, kind: str, naive: bool) -> str:
    if kind == 'classifier':
        name = name.removeprefix(_PREFIX)
        name = re.sub(r'^norm3\.', 'norm.', name)
        name = re.sub(r'^head\.fc\.', 'head.', name)
    for theirs, ours in _BLOCK.items():
        if ('dwconv' in theirs) == naive:
            name = name.replace(ours, theirs)
    return name


def arguments_of(settings: Mapping) -> str:
    """Format settings as the arguments of a call."""
    return ', '.join(f'{key}={value!r}' for key, value in settings.items())


def _listed(names, most: int = 3) -> str:
    names = list(map(str, names))
    rest = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + rest
