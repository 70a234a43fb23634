"""Reading checkpoint files without running code from them."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.fileio import get_local_path

_ZIP = b'PK\x03\x04'
#: Files of torch.save from before the ZIP format begin with a pickled long number.
_PICKLE = b'\x80\x02\x8a'


class CheckpointError(ValueError):
    """A file is not a checkpoint, or does not fit."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint contains other objects than tensors and plain containers."""


def read_checkpoint(path: str | Path, trust: bool = False) -> dict:
    """Read a checkpoint onto the CPU.

    Only tensors, numbers, strings and containers of these are unpickled.

    Args:
        path (str or Path): A file, or a URL that MMEngine's file backends can read.
        trust (bool): Unpickle every object in the file, which may run any code.

    Returns:
        dict: The content of the file.

    Raises:
        FileNotFoundError: If the file does not exist.
        UnsafeCheckpointError: If it contains other objects and ``trust`` is not set, naming their
            types.
        CheckpointError: If it is damaged, a directory, or not a checkpoint.
    """
    path = str(path)
    if '://' in path:
        with get_local_path(path) as local:
            return _read(Path(local), path, trust)
    return _read(Path(path), path, trust)


def _read(file: Path, name: str, trust: bool) -> dict:
    if file.is_dir():
        raise CheckpointError(f'{name} is a directory; give one of the checkpoints in it')
    if not file.is_file():
        raise FileNotFoundError(f'checkpoint {name} does not exist')
    with open(file, 'rb') as stream:
        start = stream.read(4)
    try:
        checkpoint = torch.load(file, map_location='cpu', weights_only=not trust)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError, OSError) as error:
        foreign = _foreign_types(file, str(error))
        if foreign and not trust:
            raise UnsafeCheckpointError(
                f'{name} contains objects of {", ".join(foreign)} besides tensors and plain '
                'containers, and reading these can run any code; if you trust its source, '
                'rewrite it with: python tools/convert/official.py SRC DST --trust'
            ) from None
        if start == _ZIP or start.startswith(_PICKLE):
            raise CheckpointError(
                f'{name} is truncated or damaged ({file.stat().st_size:,} bytes); copy or '
                'download it again'
            ) from None
        raise CheckpointError(
            f'{name} is not a checkpoint: it does not begin like a file written by torch.save'
        ) from None
    except (ImportError, AttributeError) as error:
        # Only with trust: unpickling needs the code of the types.
        raise CheckpointError(
            f'{name} contains objects whose code is not installed here ({error}); install it, or '
            'write the weights alone to a file on a machine where it is installed'
        ) from None
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f'{name} contains a {type(checkpoint).__name__} instead of a dict of weights'
        )
    return dict(checkpoint)


def _foreign_types(file: Path, message: str) -> list[str]:
    """Return the names of the types that safe loading refused."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError, AttributeError, OSError):
        found = []
    return sorted(found) or re.findall(r'GLOBAL (\S+) was not an allowed', message)
