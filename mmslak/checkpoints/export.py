"""Exporting a trained model to one small file with everything that inference needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..models import build_model
from ..sparsity import unpack_masks
from .fitting import load_weights
from .safetensors_file import SAFETENSORS, SPARSITY_STATE, write_safetensors


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        size (int): Size of the file in bytes.
        parameters (int): Parameters of the model.
        active (int): Parameters that are not masked.
    """

    size: int
    parameters: int
    active: int


def export_checkpoint(
    cfg: Config,
    checkpoint: Mapping,
    path: str | Path,
    notes: Mapping | None = None,
    source: str = 'the checkpoint',
) -> Exported:
    """Write weights, masks, model config, test pipeline and classes to a safetensors file.

    The weights are those that the validation scored: MMEngine's ``EMAHook`` saves the averaged
    weights as ``state_dict``.

    Args:
        cfg (Config): Config that the checkpoint was trained with.
        checkpoint (Mapping): From :func:`read_checkpoint`.
        path (str or Path): File to write, which ends with ``.safetensors``. Its name is the name of
            the model.
        notes (Mapping, optional): Other meta data, such as scores and the licence.
        source (str): Name of the checkpoint, for errors.

    Returns:
        Exported: The numbers to report.

    Raises:
        ValueError: If the name has another suffix, the file exists, a key of ``notes`` is already
            used, or config and checkpoint name no classes.
        CheckpointError: If the checkpoint does not fit the model.
    """
    if Path(path).suffix != SAFETENSORS:
        raise ValueError(f'OUT must end with {SAFETENSORS}, got {path}')
    if Path(path).exists():
        raise ValueError(f'OUT {path} already exists; give another name or remove it')
    settings = cfg.to_dict()
    meta = dict(
        name=Path(path).stem,
        default_scope=cfg.get('default_scope'),
        model=remove_initialisation(settings['model']),
        test_pipeline=settings['test_dataloader']['dataset']['pipeline'],
        dataset_meta=dataset_meta(cfg, checkpoint),
    )
    if not meta['dataset_meta']:
        raise ValueError(
            f'{source} has no classes in meta.dataset_meta and the config has none in '
            'test_dataloader.dataset.metainfo; add them there'
        )
    if used := sorted(set(meta) & set(notes or {})):
        raise ValueError(f'the key {used[0]!r} of --meta is already used; choose another one')
    model = build_model(cfg)
    state = load_weights(model, checkpoint, source)
    sparsity = checkpoint.get(SPARSITY_STATE)
    masks = {} if sparsity is None else unpack_masks(sparsity)
    write_safetensors(path, state, sparsity, {**meta, **(notes or {})})
    parameters = sum(parameter.numel() for parameter in model.parameters())
    masked = sum(int((~mask).sum()) for mask in masks.values())
    return Exported(Path(path).stat().st_size, parameters, parameters - masked)


def remove_initialisation(settings: dict) -> dict:
    """Remove from the settings of a model, in place, the checkpoints that its parts start from."""
    nodes: list = [settings]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            for key in ('init_cfg', 'pretrained'):
                node.pop(key, None)
            nodes += node.values()
        elif isinstance(node, (list, tuple)):
            nodes += node
    return settings


def dataset_meta(cfg: Config, checkpoint: Mapping) -> dict:
    """Return the classes that a model was trained with and their colours, if they are known.

    Args:
        cfg (Config): Config of the model.
        checkpoint (Mapping): From :func:`read_checkpoint`.

    Returns:
        dict: ``classes`` and ``palette``, from the checkpoint or else the config; may be empty.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    for found in ((checkpoint.get('meta') or {}).get('dataset_meta'), dataset.get('metainfo')):
        if found and found.get('classes'):
            return {key: found[key] for key in ('classes', 'palette') if key in found}
    return {}
