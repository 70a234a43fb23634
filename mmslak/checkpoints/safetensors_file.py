"""Weights, masks and the model config in one safetensors file.

The file contains weights under their names, masks with one bit per weight under ``mask/NAME``, and
JSON under the metadata key ``mmslak``. Reading it runs no code from it.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..sparsity import unpack_mask
from .errors import CheckpointError
from .writing import write_atomically

#: Suffix of these files.
SAFETENSORS = '.safetensors'
#: Key of the masks in a checkpoint of this package.
SPARSITY_STATE = 'dynamic_sparsity'
FORMAT_VERSION = 1
_METADATA, _MASK = 'mmslak', 'mask/'


def write_safetensors(
    path: str | Path,
    state_dict: Mapping[str, Tensor],
    sparsity: Mapping | None,
    meta: Mapping,
    half: bool = True,
) -> None:
    """Write weights, masks and meta data. The file appears only when it is complete.

    Masked weights become 0.

    Args:
        path (str or Path): File to write.
        state_dict (Mapping[str, Tensor]): Weights by name.
        sparsity (Mapping, optional): State of :meth:`mmslak.sparsity.SparseMasks.state_dict`; its
            other keys are not written.
        meta (Mapping): Values that JSON can represent.
        half (bool): Round weights of two or more dimensions to float16.

    Raises:
        ValueError: If the file exists, or if a weight is not finite in float16.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f'{path} already exists; give another name or remove it')
    document = dict(format_version=FORMAT_VERSION, meta=dict(meta), sparsity=None)
    packed = {}
    if sparsity is not None:
        document['sparsity'] = {name: list(shape) for name, shape in sparsity['shapes'].items()}
        packed = dict(sparsity['packed'])
    tensors = {}
    for name, value in state_dict.items():
        value = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        if name in packed:
            value[~unpack_mask(packed[name], value.shape)] = 0
        if half and value.dim() >= 2 and value.is_floating_point():
            value = value.half()
            if not value.isfinite().all():
                raise ValueError(f'{name} contains values that are not finite in float16')
        tensors[name] = value
    tensors |= {_MASK + name: mask.clone() for name, mask in packed.items()}
    # Unlike save_file, this leaves the permissions to the umask.
    write_atomically(save(tensors, {_METADATA: json.dumps(document, allow_nan=False)}), path)


def read_safetensors(file: Path, name: str) -> dict:
    """Read a file of :func:`write_safetensors`, or any safetensors file with weights.

    Args:
        file (Path): The file.
        name (str): Its name, for errors.

    Returns:
        dict: ``state_dict`` with the weights in float32, ``meta`` (empty for files of other
        programs) and, for sparse models, the masks as in a checkpoint of a training.

    Raises:
        CheckpointError: If the file is damaged, or its parts do not fit each other.
    """
    try:
        with safe_open(file, 'pt') as content:
            metadata = content.metadata() or {}
            # Tensors of safe_open change with the file, so they are copied.
            tensors = {key: _float32(content.get_tensor(key)) for key in content.keys()}  # noqa: SIM118
    except (SafetensorError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        reason = str(error).split('\n')[0]
        raise CheckpointError(
            f'{name} is not a safetensors file, or it is truncated or damaged '
            f'({file.stat().st_size:,} bytes; {reason}); copy or download it again'
        ) from None
    if _METADATA not in metadata:
        checkpoint = dict(state_dict=tensors, meta={})
    else:
        checkpoint = _with_masks(tensors, metadata[_METADATA], name)
    if not checkpoint['state_dict']:
        raise CheckpointError(f'{name} contains no weights')
    return checkpoint


def _float32(value: Tensor) -> Tensor:
    small = value.is_floating_point() and value.element_size() < 4
    return value.float() if small else value.clone()


def _with_masks(tensors: dict[str, Tensor], text: str, name: str) -> dict:
    """Return the content of a file of this package, after checking that its parts fit."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise CheckpointError(f'{name} is damaged: its metadata is not JSON') from None
    version = document.get('format_version') if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f'{name} has format version {version!r:.40}, but this version of mmslak reads '
            f'{FORMAT_VERSION}; install the version that wrote the file'
        )
    meta, shapes = document.get('meta'), document.get('sparsity')
    if not isinstance(meta, dict) or not isinstance(shapes, dict | None):
        raise CheckpointError(f'{name} is damaged: its metadata lacks the entry meta or sparsity')
    packed = {k.removeprefix(_MASK): v for k, v in tensors.items() if k.startswith(_MASK)}
    weights = {k: v for k, v in tensors.items() if not k.startswith(_MASK)}
    _check_masks(weights, shapes or {}, packed, name)
    checkpoint = dict(state_dict=weights, meta=meta)
    if shapes is not None:
        checkpoint[SPARSITY_STATE] = dict(
            shapes=shapes, packed={key: packed[key] for key in shapes if key in packed}
        )
    return checkpoint


def _check_masks(weights: Mapping, shapes: Mapping, packed: Mapping, name: str) -> None:
    for key, shape in shapes.items():
        if key not in weights or list(weights[key].shape) != shape:
            raise CheckpointError(
                f'{name} is damaged: it has no weights {key!r:.80} of shape {shape!r:.80}'
            )
    for key, mask in packed.items():
        if key not in shapes:
            raise CheckpointError(f'{name} is damaged: the mask {key!r:.80} belongs to no weights')
        try:
            active = unpack_mask(mask, shapes[key])
        except ValueError as error:
            raise CheckpointError(f'{name} is damaged: {error}') from None
        if weights[key][~active].any():
            raise CheckpointError(f'{name} is damaged: masked weights of {key!r:.80} are not 0')
