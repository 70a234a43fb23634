"""The names that the authors' code gives to weights, there and back.

The files hold names, shapes and values; nothing of the code that wrote them is needed. What the
names mean was read off the files.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..sparsity.masks import pack_mask
from .reading import CheckpointError

#: Part of a name in the authors' form -> ours, within a block. The first four are of SLaK, the
#: last of ConvNeXt, whose block is the `naive` one.
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
_BRANCHES = {
    'decomposed': {'tall', 'wide', 'small'},
    'reparam': {'large', 'small'},
    'naive': {'large'},
}
_PREFIX = 'backbone.'
#: Keys of a file of the authors' under which weights may lie.
_CLASSIFIER, _AVERAGE, _DOWNSTREAM = 'model', 'model_ema', 'state_dict'
#: Key of what a conversion adds to the meta data.
_META = 'mmslak'
_STATE = 'dynamic_sparsity'


@dataclass
class Converted:
    """A checkpoint in this package's form.

    Args:
        state_dict (dict): Weights of the whole model, the backbone's under ``backbone.``.
        settings (dict): Arguments of :class:`mmslak.models.SLaK` that build this backbone.
        form (str): ``classifier`` or ``downstream``.
        masks (dict): Boolean masks of the weights that have zeros, by name.
        densities (dict): Share of non-zero weights of every convolution and linear layer.
        renamed (int): How many entries got another name.
        passed (list): Names outside the backbone that stay as they are: a toolbox's heads.
        meta (dict): Meta data of a downstream checkpoint.
    """

    state_dict: dict[str, Tensor]
    settings: dict
    form: str
    masks: dict[str, Tensor] = field(default_factory=dict)
    densities: dict[str, float] = field(default_factory=dict)
    renamed: int = 0
    passed: list[str] = field(default_factory=list)
    meta: dict = field(default_factory=dict)

    def checkpoint(self) -> dict:
        """Assemble what to save: weights, masks at one bit a weight, and meta data."""
        note = dict(form=self.form, backbone=self.settings)
        checkpoint = dict(meta={**self.meta, _META: note}, state_dict=self.state_dict)
        if self.masks:
            checkpoint[_STATE] = dict(
                shapes={name: list(self.state_dict[name].shape) for name in self.densities},
                packed={name: pack_mask(mask) for name, mask in self.masks.items()},
            )
        return checkpoint


# --- from the authors' form -----------------------------------------------------------------------


def from_official(checkpoint: Mapping, ema: bool = False, source: str = 'the file') -> Converted:
    """Convert a checkpoint of the authors of SLaK or ConvNeXt.

    Args:
        checkpoint (Mapping): As read: weights of a classifier under ``model`` (or bare), or of a
            segmentor or detector under ``state_dict``.
        ema (bool): Take the averaged weights, ``model_ema``.
        source (str): Name of the file, for errors.

    Returns:
        Converted: With every entry accounted for: renamed, kept, or passed on to a toolbox's head.

    Raises:
        CheckpointError: If the file has no weights of such a network, an entry is unknown,
            missing or of another shape than the rest implies, or branches were merged.
    """
    state, form, meta = select_weights(checkpoint, ema, source)
    if form == 'ours':
        raise CheckpointError(f'{source} is in the form of this package already')
    mine = {k: v for k, v in state.items() if form == 'classifier' or k.startswith(_PREFIX)}
    backbone = {name.removeprefix(_PREFIX): value for name, value in mine.items()}
    _refuse_others(backbone, source)
    renamed = {name: _ours(name, form) for name in backbone}
    settings = describe({renamed[name]: value for name, value in backbone.items()}, source)
    _check_complete(
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
    masks, densities = recover_masks(converted)
    return Converted(converted, settings, form, masks, densities, changed, passed, meta)


def select_weights(checkpoint: Mapping, ema: bool, source: str) -> tuple[dict, str, dict]:
    """Find the weights in a file, and say what form they have.

    Returns:
        tuple: Tensors by name; ``classifier``, ``downstream`` or ``ours``; meta data.

    Raises:
        CheckpointError: If there are none.
    """
    if ema:
        if _AVERAGE not in checkpoint:
            raise CheckpointError(
                f'{source} holds no averaged weights (no {_AVERAGE!r}, only '
                f'{_listed(checkpoint)}); convert it without --ema'
            )
        weights, form = checkpoint[_AVERAGE], 'classifier'
    elif isinstance(checkpoint.get(_CLASSIFIER), Mapping):
        weights, form = checkpoint[_CLASSIFIER], 'classifier'
    elif isinstance(checkpoint.get(_DOWNSTREAM), Mapping):
        weights, form = checkpoint[_DOWNSTREAM], 'downstream'
    else:
        weights, form = checkpoint, 'classifier'
    if not isinstance(weights, Mapping):
        raise CheckpointError(f'{source} holds a {type(weights).__name__} in the place of weights')
    tensors = {k.removeprefix('module.'): v for k, v in weights.items() if isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError(
            f'{source} holds no weights, only {_listed(checkpoint)}; expected a dict of tensors '
            f'under {_CLASSIFIER!r} or {_DOWNSTREAM!r}'
        )
    if weights is checkpoint and len(tensors) < len(weights):
        odd = [k for k, v in weights.items() if not isinstance(v, Tensor)]
        raise CheckpointError(f'{source} holds entries that are no weights: {_listed(odd)}')
    if any('.mixing.' in name for name in tensors):
        form = 'ours'
    elif form == 'downstream' and not any(name.startswith(_PREFIX) for name in tensors):
        form = 'classifier'
    meta = checkpoint.get('meta') if form == 'downstream' else None
    return tensors, form, dict(meta or {})


def _refuse_others(backbone: Mapping, source: str) -> None:
    """Say what a file holds that is known but cannot be converted."""
    if any('lkb_reparam' in name for name in backbone):
        raise CheckpointError(
            f'{source} holds merged kernels (lkb_reparam): the branches and batch norms they '
            'were merged from cannot be told apart again; convert the file from before the merge'
        )
    if any(name.startswith(('stem.', 'transitions.')) or '.blocks.' in name for name in backbone):
        raise CheckpointError(
            f"{source} is of RepLKNet's own architecture (a stem of four convolutions, separate "
            'feed-forward blocks), which no mode of SLaK coincides with; mode "reparam" takes '
            'files that hold ConvNeXt blocks with lkb_origin and small_conv'
        )
    if not any(re.match(r'stages\.\d+\.\d+\.', name) for name in backbone) or not any(
        name.startswith('downsample_layers.') for name in backbone
    ):
        raise CheckpointError(
            f'{source} is of another architecture: it has no downsample_layers and stages as '
            f'SLaK and ConvNeXt have, but {_listed(backbone)}'
        )


def _ours(name: str, form: str) -> str:
    """Give an entry of the backbone (or a classifier's head) our name."""
    if form == 'classifier' and re.fullmatch(r'norm\.(weight|bias)', name):
        return name.replace('norm.', 'norm3.')
    if form == 'classifier' and re.fullmatch(r'head\.(weight|bias)', name):
        return name.replace('head.', 'head.fc.')
    for theirs, ours in _BLOCK.items():
        name = name.replace(theirs, ours)
    return name


# --- what a network it is -------------------------------------------------------------------------


def describe(backbone: Mapping[str, Tensor], source: str = 'the file') -> dict:
    """Read the architecture off the names and shapes of a backbone in our form.

    Args:
        backbone (Mapping): Weights without the prefix ``backbone.``.
        source (str): Name of the file, for errors.

    Returns:
        dict: ``arch``, ``width_factor``, ``kernel_sizes``, ``small_kernel``, ``mode`` and what
        else differs from the defaults of :class:`mmslak.models.SLaK`.

    Raises:
        CheckpointError: If no such network has these entries.
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
        **_named_arch(depths, widths),
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


def _named_arch(depths: tuple, widths: tuple) -> dict:
    from ..models.slak import ARCHS

    factors = [1.3, 1.0] + [i / 20 for i in range(2, 81)]
    for factor in factors:
        for name, arch in ARCHS.items():
            if arch['depths'] == depths and widths == tuple(
                int(w * factor) for w in arch['widths']
            ):
                return dict(arch=name, width_factor=factor)
    return dict(arch=dict(depths=depths, widths=widths), width_factor=1.0)


def _check_complete(backbone: Mapping, settings: Mapping, source: str, names: Mapping) -> None:
    """Compare names and shapes with those of the network that ``settings`` build."""
    from ..models.slak import SLaK

    norms = [i for i in range(4) if f'norm{i}.weight' in backbone]
    try:
        with torch.device('meta'):
            wanted = SLaK(**settings, out_indices=norms or [3]).state_dict()
    except ValueError as error:
        raise CheckpointError(
            f'{source} describes a network that cannot be built: {error}'
        ) from None
    if not norms:
        wanted = {k: v for k, v in wanted.items() if not k.startswith('norm')}
    unknown = [names[name] for name in backbone if name not in wanted]
    missing = [name for name in wanted if name not in backbone]
    # PyTorch 0.4 began to count batches; older files do not.
    missing = [name for name in missing if not name.endswith('num_batches_tracked')]
    if unknown or missing:
        what = [f'{len(unknown)} unknown entries ({unknown[0]})'] if unknown else []
        what += [f'{len(missing)} missing ones ({missing[0]})'] if missing else []
        raise CheckpointError(
            f'{source} looks like SLaK({arguments_of(settings)}), but has {" and ".join(what)}'
        )
    for name, value in backbone.items():
        if value.shape != wanted[name].shape:
            raise CheckpointError(
                f'{source} looks like SLaK({arguments_of(settings)}), but {names[name]} has the '
                f'shape {tuple(value.shape)} where {tuple(wanted[name].shape)} belongs'
            )


def recover_masks(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Take the weights that are not zero as the ones that exist.

    Args:
        state (Mapping): Weights in our form; of these the convolutions and linear layers of the
            backbone and of a classifier's head are looked at.

    Returns:
        tuple: Boolean masks of the weights that have zeros, and the share of non-zero weights of
        all, both by name. A weight that was grown and is still zero cannot be told from one that
        does not exist.
    """
    masks, densities = {}, {}
    for name, value in state.items():
        if not name.endswith('.weight') or value.dim() not in (2, 4) or not value.numel():
            continue
        if name.startswith(_PREFIX) or name == 'head.fc.weight':
            mask = value != 0
            densities[name] = float(mask.double().mean())
            if not mask.all():
                masks[name] = mask
    return masks, densities


# --- back again -----------------------------------------------------------------------------------


def to_official(checkpoint: Mapping, source: str = 'the file') -> dict:
    """Convert a checkpoint of this package into the authors' form.

    Args:
        checkpoint (Mapping): Of training here, or made by :func:`from_official`.
        source (str): Name of the file, for errors.

    Returns:
        dict: ``dict(model=...)`` of a classifier, else ``dict(meta=..., state_dict=...)``.
        Without masks and without an optimiser: their form has no place for masks, and weights
        that do not exist are zero.

    Raises:
        CheckpointError: If it does not hold a SLaK in the form of this package.
    """
    state, form, _ = select_weights(checkpoint, False, source)
    if form != 'ours' or not any(name.startswith(_PREFIX) for name in state):
        raise CheckpointError(
            f'{source} is not in the form of this package: no entry is named '
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
    form = note.get('form') or ('classifier' if classifier else 'downstream')
    naive = settings['mode'] == 'naive'
    theirs = {_theirs(name, form, naive): value for name, value in state.items()}
    if form == 'classifier':
        return dict(model=theirs)
    return dict(meta=meta, state_dict=theirs)


def _theirs(name: str, form: str, naive: bool) -> str:
    if form == 'classifier':
        name = name.removeprefix(_PREFIX)
        name = re.sub(r'^norm3\.', 'norm.', name)
        name = re.sub(r'^head\.fc\.', 'head.', name)
    for theirs, ours in _BLOCK.items():
        if ('dwconv' in theirs) == naive:
            name = name.replace(ours, theirs)
    return name


def arguments_of(settings: Mapping) -> str:
    """Write settings as the arguments of a call."""
    return ', '.join(f'{key}={value!r}' for key, value in settings.items())


def _listed(names, most: int = 3) -> str:
    names = list(map(str, names))
    rest = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + rest
