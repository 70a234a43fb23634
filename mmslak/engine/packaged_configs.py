"""Configs of this package by name, also in ``_base_``: ``mmslak::upernet_slak_t_ade20k.py``.

MMEngine finds configs of an installed package in its directory ``.mim``. Its own lookup accepts
only names with a directory and only OpenMMLab's packages, and does not find an editable
installation. It would look up every type of the config in the scope ``mmslak``.
"""

from pathlib import Path

from mmengine.config import Config

PREFIX = 'mmslak::'
_PACKAGE = Path(__file__).parents[1]


def config_directory() -> Path:
    """Return the directory of the configs: in an installed package, or else in the checkout."""
    packaged = _PACKAGE / '.mim' / 'configs'
    return packaged if packaged.is_dir() else _PACKAGE.parent / 'configs'


def config_names() -> list[str]:
    """Return the names of the configs of this package, without prefix and suffix."""
    root = config_directory()
    names = (path.relative_to(root).with_suffix('').as_posix() for path in root.rglob('*.py'))
    return sorted(name for name in names if not name.startswith('_base_/'))


def packaged_config(name: str) -> Path | None:
    """Return the file of a config of this package, or None if there is none of this name.

    Args:
        name (str): Such as ``upernet_slak_t_ade20k``, with or without ``mmslak::`` and ``.py``.
    """
    file = config_directory() / f'{name.removeprefix(PREFIX).removesuffix(".py")}.py'
    return file if file.is_file() else None


_find_base = Config._get_cfg_path


def _find_own_base(cfg_path: str, filename: str) -> tuple[str, str | None]:
    if not cfg_path.startswith(PREFIX):
        return _find_base(cfg_path, filename)
    file = packaged_config(cfg_path)
    if file is None:
        raise FileNotFoundError(f'mmslak has no config {cfg_path}')
    return str(file), None


Config._get_cfg_path = staticmethod(_find_own_base)
