"""Conversion between the authors' checkpoint format and this package's format.

The files contain weights by name. The authors' code is not needed to read them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..sparsity import active_weights, pack_mask, select_targets
from .architecture import check_complete, describe
from .errors import CheckpointError
from .safetensors_file import SPARSITY_STATE

#: Parts of the names in a block: authors' format -> this package's format. The last is of ConvNeXt,
#: whose block is that of mode ``naive``; the others are of SLaK.
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
_PREFIX = 'backbone.'
#: Keys under which the authors' files may contain the weights.
_CLASSIFIER, _AVERAGE, _DOWNSTREAM = 'model', 'model_ema', 'state_dict'
#: Key in the meta data of a converted checkpoint for the kind of the file and the backbone.
_META = 'mmslak'


@dataclass
class Converted:
    """A checkpoint in the format of this package.

    Attributes:
        state_dict (dict[str, Tensor]): Weights of the whole model. Names of the backbone begin with
            ``backbone.``.
        settings (dict): Arguments of :class:`mmslak.models.SLaK` that build this backbone.
        kind (str): ``classifier`` or ``downstream``.
        masks (dict[str, Tensor]): Boolean masks of the weights that contain zeros, by name.
        densities (dict[str, float]): Share of active weights of every convolution and linear layer
            of the backbone and of the head of a classifier, by name.
        renamed (int): Number of entries whose name changed.
        passed (list[str]): Names outside the backbone that are kept, such as those of heads.
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
        """Return the checkpoint to save: weights, masks with one bit per weight, and meta data."""
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
        checkpoint (Mapping): Content of the file. The weights of a classifier are under ``model``
            or at the top level, those of a segmentor or detector under ``state_dict``.
        ema (bool): Convert the averaged weights, ``model_ema``.
        source (str): Name of the file, for errors.

    Returns:
        Converted: With every entry of the file, renamed or kept.

    Raises:
        CheckpointError: If the file has no weights of SLaK or ConvNeXt, if an entry is unknown,
            missing or of an unexpected shape, or if the branches were merged.
    """
    state, kind, meta = select_weights(checkpoint, ema, source)
    if kind == 'ours':
        raise CheckpointError(f"{source} is already in this package's format")
    mine = {k: v for k, v in state.items() if kind == 'classifier' or k.startswith(_PREFIX)}
    backbone = {name.removeprefix(_PREFIX): value for name, value in mine.items()}
    _refuse_others(backbone, source)
    renamed = {name: _ours(name, kind) for name in backbone}
    settings = describe({renamed[name]: value for name, value in backbone.items()}, source)
    network = check_complete(
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
    """Find the weights in the content of a file, and determine its kind.

    Args:
        checkpoint (Mapping): Content of the file.
        ema (bool): Select the averaged weights.
        source (str): Name of the file, for errors.

    Returns:
        tuple[dict, str, dict]: Tensors by name; ``classifier`` or ``downstream`` for a file of the
        authors, ``ours`` for a file of this package; meta data.

    Raises:
        CheckpointError: If the file contains no weights.
    """
    if ema:
        if _AVERAGE not in checkpoint:
            raise CheckpointError(
                f'{source} contains no averaged weights ({_AVERAGE!r}), only '
                f'{_listed(checkpoint)}; convert it without --ema'
            )
        weights, kind = checkpoint[_AVERAGE], 'classifier'
    elif isinstance(checkpoint.get(_CLASSIFIER), Mapping):
        weights, kind = checkpoint[_CLASSIFIER], 'classifier'
    elif isinstance(checkpoint.get(_DOWNSTREAM), Mapping):
        weights, kind = checkpoint[_DOWNSTREAM], 'downstream'
    else:
        weights, kind = checkpoint, 'classifier'
    if not isinstance(weights, Mapping):
        raise CheckpointError(
            f'{source} must contain a dict of weights, got a {type(weights).__name__}'
        )
    tensors = {k.removeprefix('module.'): v for k, v in weights.items() if isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError(
            f'{source} must contain a dict of weights under {_CLASSIFIER!r} or {_DOWNSTREAM!r}, '
            f'but it contains no weights, only {_listed(checkpoint) or "an empty dict"}'
        )
    if weights is checkpoint and len(tensors) < len(weights):
        odd = [k for k, v in weights.items() if not isinstance(v, Tensor)]
        raise CheckpointError(f'{source} contains entries that are not weights: {_listed(odd)}')
    if any('.mixing.' in name for name in tensors):
        kind = 'ours'
    elif kind == 'downstream' and not any(name.startswith(_PREFIX) for name in tensors):
        kind = 'classifier'
    meta = checkpoint.get('meta') if kind == 'downstream' else None
    return tensors, kind, dict(meta or {})


def _refuse_others(backbone: Mapping, source: str) -> None:
    """Refuse known architectures that cannot be converted, naming the reason."""
    if any('lkb_reparam' in name for name in backbone):
        raise CheckpointError(
            f'{source} contains merged kernels (lkb_reparam), from which branches and batch norms '
            'cannot be recovered; convert the file that was merged'
        )
    if any(name.startswith(('stem.', 'transitions.')) or '.blocks.' in name for name in backbone):
        raise CheckpointError(
            f"{source} contains RepLKNet's own architecture (a stem of four convolutions and "
            'separate feed-forward blocks), which SLaK cannot build; mode "reparam" needs a file '
            'of ConvNeXt blocks with lkb_origin and small_conv'
        )
    if not any(re.match(r'stages\.\d+\.\d+\.', name) for name in backbone) or not any(
        name.startswith('downsample_layers.') for name in backbone
    ):
        raise CheckpointError(
            f'{source} contains another architecture: SLaK and ConvNeXt have downsample_layers and '
            f'stages, but the file has {_listed(backbone)}'
        )


def _ours(name: str, kind: str) -> str:
    """Return this package's name of an entry of the backbone or of a classifier's head."""
    if kind == 'classifier' and re.fullmatch(r'norm\.(weight|bias)', name):
        return name.replace('norm.', 'norm3.')
    if kind == 'classifier' and re.fullmatch(r'head\.(weight|bias)', name):
        return name.replace('head.', 'head.fc.')
    for theirs, ours in _BLOCK.items():
        name = name.replace(theirs, ours)
    return name


def recover_masks(
    weights: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Recover masks from the zeros of weights. The authors' files contain no masks.

    Args:
        weights (Mapping): Weights of convolutions and linear layers, by name.

    Returns:
        tuple[dict, dict]: Boolean masks of the weight tensors that contain zeros, and the densities
        of all of them, both by name. A weight that was grown and is still zero counts as masked.
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
        checkpoint (Mapping): A checkpoint of a training, or of :meth:`Converted.checkpoint`.
        source (str): Name of the file, for errors.

    Returns:
        dict: ``dict(model=...)`` for a classifier, otherwise ``dict(meta=..., state_dict=...)``.
        It contains neither masks nor the state of an optimiser. Masked weights are zero.

    Raises:
        CheckpointError: If it does not contain a SLaK in this package's format.
    """
    state, kind, _ = select_weights(checkpoint, False, source)
    if kind != 'ours' or not any(name.startswith(_PREFIX) for name in state):
        raise CheckpointError(
            f"{source} is not in this package's format: it has no entries named "
            f'{_PREFIX}stages.*.mixing.*, but {_listed(state)}'
        )
    inner = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
    settings = describe(inner, source)
    check_complete(inner, settings, source, {name: name for name in inner})
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


def _listed(names, most: int = 3) -> str:
    names = list(map(str, names))
    rest = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + rest
