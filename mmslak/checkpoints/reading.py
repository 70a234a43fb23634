"""Reading a file that somebody else wrote, without running what it brings."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.fileio import get_local_path

_ZIP = b'PK\x03\x04'
#: What torch.save wrote before it wrote ZIP files begins with a pickled long number.
_PICKLE = b'\x80\x02\x8a'


class CheckpointError(ValueError):
    """A file is no checkpoint, or not one that fits."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint holds more than tensors and plain containers."""


def read_checkpoint(path: str | Path, trust: bool = False) -> dict:
    """Read a checkpoint onto the CPU.

    Nothing is unpickled but tensors, numbers, strings and containers of these.

    Args:
        path (str or Path): A file, or an address that MMEngine's file backends can read.
        trust (bool): Unpickle whatever the file holds, which may run any code.

    Returns:
        dict: What the file holds.

    Raises:
        FileNotFoundError: If there is no such file.
        UnsafeCheckpointError: If it holds other objects and ``trust`` is not set, naming their
            types.
        CheckpointError: If it is damaged, a folder, or no checkpoint.
    """
    path = str(path)
    if '://' in path:
        with get_local_path(path) as local:
            return _read(Path(local), path, trust)
    return _read(Path(path), path, trust)


def _read(file: Path, name: str, trust: bool) -> dict:
    if file.is_dir():
        raise CheckpointError(f'{name} is a folder; give one of the checkpoints in it')
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
                f'{name} holds objects of {", ".join(foreign)} besides tensors and plain '
                'containers, and reading these can run any code; if you trust where it comes from, '
                'rewrite it with: python tools/convert/official.py SRC DST --trust'
            ) from None
        if start == _ZIP or start.startswith(_PICKLE):
            raise CheckpointError(
                f'{name} is truncated or damaged ({file.stat().st_size:,} bytes); copy or '
                'download it again'
            ) from None
        raise CheckpointError(
            f'{name} is not a checkpoint: it does not begin as a file written by torch.save does'
        ) from None
    except (ImportError, AttributeError) as error:
        # Only when trusted: the types have to be there to be unpickled.
        raise CheckpointError(
            f'{name} holds objects whose code is not installed here ({error}); install it, or '
            'write the weights alone to a file where it is'
        ) from None
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f'{name} holds a {type(checkpoint).__name__} where a dict of weights was expected'
        )
    return dict(checkpoint)


def _foreign_types(file: Path, message: str) -> list[str]:
    """Name the types that safe loading refused."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError, AttributeError, OSError):
        found = []
    return sorted(found) or re.findall(r'GLOBAL (\S+) was not an allowed', message)
