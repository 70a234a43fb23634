"""MMEngine's loader for safetensors files and for the names of models in the package.

MMEngine chooses the loader of a checkpoint by regular expressions. With this one, runners,
initialisers and ``init_model`` of the toolboxes accept these files and names.
"""

import re

from mmengine.runner import CheckpointLoader

from .locate import SAFETENSORS, pretrained_names
from .reading import read_checkpoint

_NAMES = [f'{re.escape(name)}$' for name in pretrained_names()]


@CheckpointLoader.register_scheme(prefixes=[rf'.*{re.escape(SAFETENSORS)}$', *_NAMES], force=True)
def load_from_safetensors(filename: str, map_location=None) -> dict:
    """Read a file with :func:`read_checkpoint`, onto the CPU whatever ``map_location`` is."""
    return read_checkpoint(filename)
