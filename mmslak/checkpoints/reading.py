"""Reading checkpoints by path, URL or name, without running code from them."""

from collections.abc import Mapping
from pathlib import Path

from mmengine.fileio import get_local_path
from torch import Tensor

from .file_content import read_file
from .locate import resolve_name


def read_checkpoint(path: str | Path, trust: bool = False) -> dict:
    """Read a checkpoint onto the CPU.

    Only tensors, numbers, strings and containers of these are unpickled, and nothing of a
    safetensors file. ``meta.config`` is removed, because MMEngine would evaluate this text as
    Python when it resumes a training.

    Args:
        path (str or Path): A file of ``torch.save`` or safetensors, a URL that MMEngine's file
            backends can read, ``slak://NAME`` for weights that the authors published, the name of a
            model in the package, or a directory of ``SLaK.save_pretrained``.
        trust (bool): Unpickle all objects in the file. This can run any code.

    Returns:
        dict: The content of the file. That of a safetensors file has ``state_dict`` (float32),
        ``meta`` and, for sparse models, the masks as in a checkpoint of a training.

    Raises:
        FileNotFoundError: If the file does not exist or cannot be downloaded.
        UnsafeCheckpointError: If it contains other objects and ``trust`` is False, naming their
            types.
        CheckpointError: If it is damaged, a directory, or not a checkpoint.
    """
    found = resolve_name(path)
    if '://' in found:
        with get_local_path(found) as local:
            return read_file(Path(local), found, trust)
    return read_file(Path(found), str(path), trust)


def weights_of(checkpoint: Mapping) -> dict[str, Tensor]:
    """Return the weights in a checkpoint of MMEngine.

    Args:
        checkpoint (Mapping): With ``state_dict``, or the weights themselves.

    Returns:
        dict[str, Tensor]: By name, without the prefix ``module.`` of distributed wrappers.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    return {name.removeprefix('module.'): value for name, value in weights.items()}
