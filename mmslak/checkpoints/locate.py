"""Finding the file of a checkpoint by its path or by the name of a model."""

from pathlib import Path

from .safetensors_file import SAFETENSORS
from .weights_cache import SCHEME, fetch

#: Files in a directory of :meth:`mmslak.models.SLaK.save_pretrained`.
WEIGHTS_FILE, CONFIG_FILE = f'model{SAFETENSORS}', 'config.json'
_DIRECTORY = Path(__file__).parents[1] / 'pretrained'


def pretrained_names() -> list[str]:
    """Return the names of the trained models in the package."""
    return sorted(path.stem for path in _DIRECTORY.glob(f'*{SAFETENSORS}'))


def resolve_name(path: str | Path) -> str:
    """Return the file that a name means, or ``path`` if it is no name.

    Args:
        path (str or Path): Name of a model in the package (a file of this name is ``./NAME``);
            ``slak://NAME`` for weights that the authors published, which are downloaded at their
            first use; or a directory of ``SLaK.save_pretrained``.

    Raises:
        DownloadError: If published weights are unknown or cannot be downloaded.
        CheckpointError: If published weights are damaged or have changed.
    """
    path = str(path)
    if path.startswith(SCHEME):
        return str(fetch(path.removeprefix(SCHEME)))
    if path in pretrained_names():
        return str(_DIRECTORY / f'{path}{SAFETENSORS}')
    saved = Path(path, WEIGHTS_FILE)
    return str(saved) if path and saved.is_file() else path


def find_checkpoint(path: str | Path) -> str:
    """Return the path of a checkpoint, and check that it exists.

    Args:
        path (str or Path): A file, a URL, or a name as in :func:`resolve_name`.

    Returns:
        str: The path of the file. A URL is returned as it is.

    Raises:
        FileNotFoundError: If there is no such file, if it is a directory, or if published weights
            cannot be downloaded.
        CheckpointError: If published weights are damaged or have changed.
    """
    found = resolve_name(path)
    if found and Path(found).is_dir():
        raise FileNotFoundError(
            f'checkpoint {path} is a directory; name one of the checkpoints in it'
        )
    if '://' not in found and not Path(found).is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    return found
