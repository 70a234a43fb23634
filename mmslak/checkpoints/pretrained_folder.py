"""Backbones in directories: weights and masks, arguments, and a model card, without pickle."""

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template

from mmengine.model import initialize

from ..models import SLaK
from ..registry import FUNCTIONS
from ..sparsity import SparseMasks, select_targets, unpack_masks
from .architecture import arguments_of, describe
from .backbone import backbone_prefix, backbone_state
from .errors import CheckpointError, DownloadError
from .locate import CONFIG_FILE, WEIGHTS_FILE, pretrained_names
from .published import PUBLISHED
from .safetensors_file import write_safetensors
from .weights_cache import SCHEME
from .writing import write_atomically

_CARD_FILE = 'README.md'
_CARD = Template("""---
library_name: mmslak
tags:
- slak
- large-kernel
- sparse
---

# $name

A SLaK backbone (Liu et al., [More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using
Sparsity](https://arxiv.org/abs/2207.03620)) with $parameters parameters, of which $active are
active.

```python
from mmslak.models import SLaK

backbone = SLaK.from_pretrained('$name')
```

- `$weights`: weights and masks
- `$config`: arguments of `mmslak.models.SLaK`

Please add: training data, recipe, scores, limits and licence.
""")
#: Types of ``norm_cfg`` that may come from a file.
_NORMS = ('BN', 'BN2d', 'SyncBN', 'MMSyncBN', 'GN', 'IN', 'IN2d')
#: Names on the Hugging Face hub.
_HUB_NAME = re.compile(r'[\w.-]+/[\w.-]+', re.ASCII)


@FUNCTIONS.register_module()
def save_pretrained(
    backbone: SLaK, folder: str | Path, masks: SparseMasks | Mapping | None = None
) -> None:
    """Write a backbone into a directory, see :meth:`mmslak.models.SLaK.save_pretrained`."""
    folder = Path(folder)
    for name in (WEIGHTS_FILE, CONFIG_FILE, _CARD_FILE):
        if (folder / name).exists():
            raise ValueError(f'{folder} already contains {name}; give another directory')
    try:
        config = json.dumps(dict(arguments=backbone.arguments), indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'the arguments {arguments_of(backbone.arguments)} cannot be saved as JSON ({error})'
        ) from None
    sparsity = _sparsity_state(backbone, masks)
    write_safetensors(folder / WEIGHTS_FILE, backbone.state_dict(), sparsity, {}, half=False)
    write_atomically(config.encode(), folder / CONFIG_FILE)
    write_atomically(_card(backbone, sparsity, folder.resolve().name).encode(), folder / _CARD_FILE)


def _sparsity_state(backbone: SLaK, masks: SparseMasks | Mapping | None) -> dict:
    parameters = select_targets(backbone, 'all')
    if masks is None:
        masks = SparseMasks.from_weights(parameters)
    state = masks.state_dict() if isinstance(masks, SparseMasks) else masks
    prefix = backbone_prefix(state['shapes'])
    mine = {
        key: {k.removeprefix(prefix): v for k, v in state[key].items() if k.startswith(prefix)}
        for key in ('shapes', 'packed')
    }
    for name, shape in mine['shapes'].items():
        if name not in parameters or list(parameters[name].shape) != list(shape):
            raise ValueError(f'masks: the backbone has no weights {name!r} of shape {tuple(shape)}')
    return mine


def _card(backbone: SLaK, sparsity: Mapping, name: str) -> str:
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    active = parameters - sum(int((~mask).sum()) for mask in unpack_masks(sparsity).values())
    return _CARD.substitute(
        name=name, parameters=f'{parameters:,}', active=f'{active:,}', weights=WEIGHTS_FILE,
        config=CONFIG_FILE,
    )  # fmt: skip


@FUNCTIONS.register_module()
def load_pretrained(cls: type[SLaK], name: str | Path, changes: Mapping | None = None) -> SLaK:
    """Build a backbone with weights, see :meth:`mmslak.models.SLaK.from_pretrained`."""
    arguments, checkpoint = _find(name)
    arguments.update(changes or {})
    backbone = cls(**arguments, init_cfg=dict(type='Pretrained', checkpoint=checkpoint))
    # Unlike init_weights, this does not log every parameter.
    initialize(backbone, backbone.init_cfg)
    backbone.is_init = True
    return backbone


def _find(name: str | Path) -> tuple[dict, str]:
    """Return the arguments of a backbone and the checkpoint with its weights."""
    name = str(name)
    if Path(name).is_dir():
        return _read_folder(Path(name), name)
    plain = name.removeprefix(SCHEME)
    if plain in PUBLISHED or name.startswith(SCHEME):
        checkpoint = f'{SCHEME}{plain}'
    elif name in pretrained_names() or Path(name).is_file():
        checkpoint = name
    elif _HUB_NAME.fullmatch(name):
        return _read_folder(_download(name), name)
    else:
        known = ', '.join([*pretrained_names(), *PUBLISHED])
        raise FileNotFoundError(
            f'from_pretrained: {name!r} is no directory, no checkpoint, no OWNER/NAME on the '
            f'Hugging Face hub and none of the known names ({known})'
        )
    return describe(backbone_state(checkpoint), checkpoint), checkpoint


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ImportError(
            f'from_pretrained: there is no file or directory {name}, and looking for it on the '
            'Hugging Face hub needs huggingface_hub, which is not installed; install it with: '
            "pip install 'mmslak[weights]'"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=[WEIGHTS_FILE, CONFIG_FILE]))
    # Errors of the hub and its connections are OSErrors, those of names are ValueErrors.
    except (OSError, ValueError) as error:
        reason = str(error).strip().split('\n')[0].rstrip('.')
        raise DownloadError(
            f'from_pretrained: there is no file or directory {name}, and it could not be '
            f'downloaded from the Hugging Face hub ({reason}); correct the name, or download the '
            f'files {WEIGHTS_FILE} and {CONFIG_FILE} by hand and give their directory'
        ) from None


def _read_folder(folder: Path, name: str) -> tuple[dict, str]:
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f'from_pretrained: {name} has no file {file}; SLaK.save_pretrained writes it'
            )
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding='utf-8'))
    except (ValueError, RecursionError):
        raise CheckpointError(f'{folder / CONFIG_FILE} is damaged: it is not JSON') from None
    arguments = config.get('arguments') if isinstance(config, dict) else None
    if not isinstance(arguments, dict):
        raise CheckpointError(f'{folder / CONFIG_FILE} is damaged: it has no arguments')
    _check_arguments(arguments, folder / CONFIG_FILE)
    return arguments, str(folder / WEIGHTS_FILE)


def _check_arguments(arguments: Mapping, source: Path) -> None:
    """Refuse arguments of a file from elsewhere with which MMEngine would run any function."""
    known = set(inspect.signature(SLaK).parameters) - {'init_cfg'}
    if unknown := sorted(set(arguments) - known):
        raise CheckpointError(f'{source} has the argument {unknown[0]!r:.40}, which SLaK lacks')
    norm = arguments.get('norm_cfg')
    if norm is not None and not (isinstance(norm, dict) and norm.get('type') in _NORMS):
        raise CheckpointError(
            f'{source} has norm_cfg={norm!r:.80}; only these types are read from a file: '
            f'{", ".join(_NORMS)}'
        )
