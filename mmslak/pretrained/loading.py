"""Loading a trained segmentation model without a config file."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import MODELS, TASK_UTILS, TRANSFORMS, init_default_scope
from torch import nn

from ..checkpoints import (
    CheckpointError,
    compare,
    read_checkpoint,
    remove_initialisation,
    weights_of,
)
from ..models import build_model
from ..toolboxes import ToolboxMissingError

_SCOPE = 'mmseg'
_ALLOWED_SCOPES = (_SCOPE, 'mmslak', 'mmengine')
_KEYS = dict(model=dict, test_pipeline=list, dataset_meta=dict)


def load_model(name_or_path: str | Path, device: str = 'cpu') -> nn.Module:
    """Load a trained model for ``mmseg.apis.inference_model(model, image)``.

    As ``mmseg.apis.init_model`` does, this sets MMEngine's default scope to ``mmseg``.

    Args:
        name_or_path (str or Path): Name of a model in the package, such as ``slak_nano_camvid``,
            or a file of ``tools/deploy/export.py``.
        device (str): Device of the model.

    Returns:
        nn.Module: The segmentor in evaluation mode, with ``cfg`` and ``dataset_meta``.

    Raises:
        FileNotFoundError: If there is no such file.
        ToolboxMissingError: If MMSegmentation is not installed.
        CheckpointError: If the file is damaged, has no config of a segmentor, or its parts do not
            fit each other.
    """
    if importlib.util.find_spec(_SCOPE) is None:
        raise ToolboxMissingError(_SCOPE, 'load_model')
    checkpoint, source = read_checkpoint(name_or_path), str(name_or_path)
    meta = checkpoint.get('meta') or {}
    for key, kind in _KEYS.items():
        if not isinstance(meta.get(key), kind):
            raise CheckpointError(
                f'{source} contains no {key}; load_model reads files of tools/deploy/export.py'
            )
    if meta.get('default_scope') != _SCOPE:
        raise CheckpointError(
            f'{source} contains a model with default_scope={meta.get("default_scope")!r:.40}; '
            f'load_model reads models with {_SCOPE!r}'
        )
    remove_initialisation(meta['model'])
    _check_types([meta['model'], meta['test_pipeline']], source)
    init_default_scope(_SCOPE)
    model, weights = _build(meta, source), weights_of(checkpoint)
    if differences := compare(weights, model.state_dict()):
        raise CheckpointError(f'{source} does not fit its own config: {differences.first()}')
    model.load_state_dict(weights)
    model.dataset_meta = meta['dataset_meta']
    return model.to(device).eval()


def _build(meta: Mapping, source: str) -> nn.Module:
    try:
        cfg = Config(
            dict(
                default_scope=_SCOPE,
                model=meta['model'],
                test_pipeline=_with_tuples(meta['test_pipeline']),
            )
        )
        model = build_model(cfg)
    # The constructors of a toolbox may raise anything for settings that they do not expect.
    except Exception as error:
        reason = str(error).split('\n')[0]
        raise CheckpointError(f'the model config of {source} cannot be built: {reason}') from error
    model.cfg = cfg
    return model


def _with_tuples(node):
    """Copy settings from JSON with tuples in place of lists of numbers, as MMCV's sizes need."""
    if isinstance(node, Mapping):
        return {key: _with_tuples(value) for key, value in node.items()}
    if not isinstance(node, list):
        return node
    items = [_with_tuples(item) for item in node]
    return tuple(items) if all(isinstance(item, (int, float)) for item in items) else items


def _check_types(settings: list, source: str) -> None:
    """Refuse types that are not registered classes, and scopes of other packages.

    MMEngine imports and calls any function whose dotted name is a ``type``, and imports the package
    named by a ``_scope_``, so that a config from an unknown source could run any code.
    """
    # This adds the registries of mmseg to the children of MMEngine's.
    import mmseg.registry  # noqa: F401

    nodes = [settings]
    while nodes:
        node = nodes.pop()
        if isinstance(node, Mapping):
            if 'type' in node and not _is_registered(node['type']):
                raise CheckpointError(
                    f'the config in {source} has the type {node["type"]!r:.80}, which is no class '
                    'of mmseg, mmslak or mmengine'
                )
            if node.get('_scope_', _SCOPE) not in _ALLOWED_SCOPES:
                raise CheckpointError(
                    f'the config in {source} has the scope {node["_scope_"]!r:.80}; allowed are '
                    f'{", ".join(_ALLOWED_SCOPES)}'
                )
            nodes += node.values()
        elif isinstance(node, (list, tuple)):
            nodes += node


def _is_registered(kind: object) -> bool:
    if not isinstance(kind, str):
        return False
    scope, _, name = kind.rpartition('.')
    for root in (MODELS, TRANSFORMS, TASK_UTILS):
        registries = {'mmengine': root, **root.children}
        for searched in [scope] if scope else [_SCOPE, 'mmengine']:
            if searched not in _ALLOWED_SCOPES or searched not in registries:
                continue
            registries[searched].import_from_location()
            if name in registries[searched].module_dict:
                return True
    return False
