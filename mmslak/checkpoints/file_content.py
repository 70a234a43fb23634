"""The content of a local checkpoint file, read without running code from it."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from .errors import CheckpointError, UnsafeCheckpointError
from .safetensors_file import SAFETENSORS, read_safetensors

_ZIP = b'PK\x03\x04'
#: Before the ZIP format, files of torch.save began with a pickled long integer.
_PICKLE = b'\x80\x02\x8a'


def read_file(file: Path, name: str, trust: bool = False) -> dict:
    """Read a local file, see :func:`mmslak.checkpoints.read_checkpoint`.

    Args:
        file (Path): File of ``torch.save`` or safetensors.
        name (str): Its name, for errors.
        trust (bool): Unpickle all objects in the file. This can run any code.

    Returns:
        dict: The content of the file.

    Raises:
        FileNotFoundError: If the file does not exist.
        UnsafeCheckpointError: If it contains other objects and ``trust`` is False.
        CheckpointError: If it is damaged, a directory, or not a checkpoint.
    """
    if file.is_dir():
        raise CheckpointError(f'{name} is a directory; name one of the checkpoints in it')
    if not file.is_file():
        raise FileNotFoundError(f'checkpoint {name} does not exist')
    if SAFETENSORS in (file.suffix, Path(name).suffix):
        return read_safetensors(file, name)
    with open(file, 'rb') as stream:
        start = stream.read(4)
    try:
        # The authors' files contain their command line, which is a plain container.
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(file, map_location='cpu', weights_only=not trust)
    # Unpickling damaged bytes can raise nearly anything.
    except Exception as error:
        if trust and isinstance(error, (ImportError, AttributeError)):
            # Unpickling an object needs the code of its type.
            raise CheckpointError(
                f'{name} contains objects whose code is not installed ({error}); install it, or '
                'save only the weights to another file on a machine that has it'
            ) from None
        foreign = _foreign_types(file, str(error))
        if foreign and not trust:
            raise UnsafeCheckpointError(
                f'{name} contains objects of type {", ".join(foreign)}, and reading them can run '
                'any code; if you trust the source of the file, convert it with: '
                'python tools/convert/official.py SRC DST --trust'
            ) from None
        if start == _ZIP or start.startswith(_PICKLE):
            raise CheckpointError(
                f'{name} is truncated or damaged ({file.stat().st_size:,} bytes); copy or '
                'download it again'
            ) from None
        raise CheckpointError(
            f'{name} is not a checkpoint; it does not begin like a file written by torch.save'
        ) from None
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f'{name} must contain a dict of weights, got a {type(checkpoint).__name__}'
        )
    checkpoint = dict(checkpoint)
    if isinstance(checkpoint.get('meta'), Mapping):
        checkpoint['meta'] = {k: v for k, v in checkpoint['meta'].items() if k != 'config'}
    return checkpoint


def _foreign_types(file: Path, message: str) -> list[str]:
    """Return the names of the types that safe loading refused."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:
        found = []
    return sorted(found) or re.findall(r'GLOBAL (\S+) was not an allowed', message)
