"""Configs as data: ``--no-exec-config`` reads YAML and JSON, and runs no code from them."""

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

import mmengine.config.config
import mmengine.registry.registry
import yaml
from mmengine.config import Config
from mmengine.fileio import PickleHandler, YamlHandler
from mmengine.fileio.io import file_handlers

from ..toolboxes import EXTRAS

OPTION = '--no-exec-config'
_SUFFIXES = ('.yaml', '.yml', '.json')
#: Packages whose modules a config may import.
_PACKAGES = ('mmslak', 'mmengine', 'mmcv', *EXTRAS)
#: Keys with names for people, which may contain any character.
_NAMES = ('metainfo', 'classes')


class CodeInConfigError(ValueError):
    """A config contains code, or names code outside of the toolboxes."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with tuples, which ``Config.dump`` writes."""


_Loader.add_constructor(
    'tag:yaml.org,2002:python/tuple',
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


class _SafeYamlHandler(YamlHandler):
    """MMEngine's handler would call the functions that a YAML file names."""

    def load_from_fileobj(self, file, **kwargs):
        return yaml.load(file, _Loader)


class _WriteOnlyPickleHandler(PickleHandler):
    """Pickle files can run code when they are read."""

    def load_from_fileobj(self, file, **kwargs) -> NoReturn:
        raise CodeInConfigError(
            f'{OPTION}: a file in pickle format is not read, because it can run code; convert it '
            'to JSON'
        )


@contextlib.contextmanager
def configs_as_data() -> Iterator[None]:
    """Let MMEngine read configs as data, and use only registered classes.

    MMEngine itself resolves the bases of a config and the names in it, so the functions that would
    run code are replaced: those that read a Python file, that import modules, that look up any
    object by its dotted name, and that read YAML or pickle files.
    """
    handlers = {
        **dict.fromkeys(('yaml', 'yml'), _SafeYamlHandler()),
        **dict.fromkeys(('pickle', 'pkl'), _WriteOnlyPickleHandler()),
    }
    read = Config._file2dict

    def read_data(filename: str, *args, **kwargs):
        if not str(filename).endswith(_SUFFIXES):
            _refuse_python(filename)
        try:
            return read(filename, *args, **kwargs)
        except yaml.constructor.ConstructorError as error:
            raise CodeInConfigError(
                f'{OPTION}: {filename} is not only data: {error.problem}'
            ) from None

    registry, config = mmengine.registry.registry, mmengine.config.config
    with (
        patch.object(Config, '_file2dict', staticmethod(read_data)),
        patch.object(Config, '_parse_lazy_import', staticmethod(_refuse_python)),
        patch.object(config, 'import_modules_from_strings', _import_packages),
        patch.object(registry, 'import_module', _import_registry),
        patch.object(registry, 'get_object_from_string', lambda name: None),
        patch.dict(file_handlers, handlers),
    ):
        yield


def _refuse_python(filename: str | Path, *args) -> NoReturn:
    raise CodeInConfigError(
        f'{OPTION} accepts only {", ".join(_SUFFIXES)}, also for the files in _base_, but '
        f'{filename} would be run; convert a config that you have read with '
        "mmengine.Config.fromfile(FILE).dump('FILE.yaml')"
    )


def _import_packages(imports: str | Sequence[str], allow_failed_imports: bool = False) -> None:
    """Import the modules in ``custom_imports`` of a config."""
    for name in [imports] if isinstance(imports, str) else imports:
        if str(name).partition('.')[0] not in _PACKAGES:
            raise CodeInConfigError(
                f'{OPTION}: custom_imports of the config may name only modules of '
                f'{", ".join(_PACKAGES)}, got {name!r}'
            )
        try:
            importlib.import_module(name)
        except ImportError:
            if not allow_failed_imports:
                raise


def _import_registry(name: str):
    """Import the module of a scope, such as ``mmseg.registry``."""
    if name.partition('.')[0] not in _PACKAGES:
        raise ImportError(f'{OPTION}: {name} is not imported')
    return importlib.import_module(name)


def check_data(node, path: str = '') -> None:
    """Refuse values of a config that MMEngine or a toolbox would use as code.

    Some classes of the toolboxes evaluate a text, such as the type of the NMS in MMCV. Without
    parentheses it can call nothing.

    Args:
        node (dict, list or any value): The config, or a part of it.
        path (str): Its key, for messages.

    Raises:
        CodeInConfigError: Naming the key.
    """
    if isinstance(node, dict):
        for key, value in node.items():
            inner = f'{path}.{key}' if path else str(key)
            scope = key in ('default_scope', '_scope_') and value is not None
            if scope and value not in _PACKAGES:
                raise CodeInConfigError(
                    f'{OPTION}: {inner} must be one of {", ".join(_PACKAGES)}, got {value!r}'
                )
            if key not in _NAMES:
                check_data(value, inner)
    elif isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            check_data(item, f'{path}.{i}')
    elif isinstance(node, str) and '(' in node:
        raise CodeInConfigError(
            f'{OPTION}: {path} must not contain a parenthesis, because some classes evaluate a '
            f'text, got {node!r}'
        )
