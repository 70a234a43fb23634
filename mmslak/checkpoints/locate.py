"""Finding the file of a checkpoint, or of a model in the package by its name."""

from pathlib import Path

#: Suffix of files with weights and masks, see :mod:`mmslak.checkpoints.safetensors_file`.
SAFETENSORS = '.safetensors'
_DIRECTORY = Path(__file__).parents[1] / 'pretrained'


def pretrained_names() -> list[str]:
    """Return the names of the trained models in the package."""
    return sorted(path.stem for path in _DIRECTORY.glob(f'*{SAFETENSORS}'))


def resolve_name(path: str | Path) -> str:
    """Return the file of a model in the package if ``path`` is its name, else ``path``.

    The name always means the model in the package; a file of this name is ``./NAME``.
    """
    path = str(path)
    return str(_DIRECTORY / f'{path}{SAFETENSORS}') if path in pretrained_names() else path


def find_checkpoint(path: str | Path) -> str:
    """Return the path of a checkpoint, and check that it exists.

    Args:
        path (str or Path): A file, a URL, or the name of a model in the package.

    Returns:
        str: The path of the file. A URL is returned as it is.

    Raises:
        FileNotFoundError: If there is no such file, or if it is a directory.
    """
    found = resolve_name(path)
    if found and Path(found).is_dir():
        raise FileNotFoundError(
            f'checkpoint {path} is a directory; name one of the checkpoints in it'
        )
    if '://' not in found and not Path(found).is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    return found
