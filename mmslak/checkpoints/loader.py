"""MMEngine's loader of local checkpoints, replaced by one that runs no code of the file.

With it, runners, initialisers and ``init_model`` of the toolboxes also accept safetensors files and
the names of models in the package.
"""

from mmengine.runner import CheckpointLoader

from .reading import read_checkpoint


# MMEngine chooses the loader by the beginning of the path. The empty one is that of local files.
@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_file(filename: str, map_location=None) -> dict:
    """Read a file with :func:`read_checkpoint`, onto the CPU whatever ``map_location`` is."""
    return read_checkpoint(filename)
