"""Checks of a config before any work starts: unknown keys, types and values, with suggestions."""

import ast
import difflib
import functools
import importlib
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator
from types import NoneType, UnionType

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, TestLoop, ValLoop
from mmengine.runner import Runner as MMEngineRunner
from torch import Tensor
from torch.utils.data import DataLoader

#: Keys at the top level that MMEngine, the toolboxes or this package read from a config.
TOP_LEVEL = {
    *inspect.signature(MMEngineRunner.__init__).parameters,
    'activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval',
    'find_unused_parameters', 'max_image_pixels', 'model_wrapper_cfg', 'runner_type',
    'skip_bad_images', 'strategy', 'sync_bn', 'tta_model', 'tta_pipeline',
} - {'self', 'cfg'}  # fmt: skip
#: Keys that each task needs.
_NEEDED = {
    'train': ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'),
    'test': ('model', 'test_dataloader', 'test_cfg', 'test_evaluator'),
}
#: Keys that MMEngine's and MMCV's builders remove before they call a class, by registry.
_READ_BY_BUILDERS = {
    'hook': {'priority'},
    'model': {'requires_grad', 'scale_factor', 'deformable_groups', 'fallback_on_stride'},
    'optim_wrapper': {'constructor', 'optimizer', 'paramwise_cfg'},
    'parameter scheduler': {'convert_to_iter_based'},
}
#: Keys of a data loader that MMEngine reads itself.
_LOADER = ('dataset', 'sampler', 'batch_sampler', 'collate_fn', 'num_batch_per_epoch')
#: Dicts without a type -> the classes that receive them, and other keys that are read.
_UNTYPED: dict[str, tuple[tuple, tuple[str, ...]]] = {
    **{f'{split}_dataloader': ((DataLoader,), _LOADER) for split in ('train', 'val', 'test')},
    'train_cfg': ((EpochBasedTrainLoop, IterBasedTrainLoop), ('by_epoch',)),
    'val_cfg': ((ValLoop,), ()),
    'test_cfg': ((TestLoop,), ()),
    'log_processor': ((LogProcessor,), ()),
    'randomness': ((MMEngineRunner.set_randomness,), ()),
    'auto_scale_lr': ((), ('enable', 'base_batch_size')),
    'env_cfg': ((), ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit')),
}
#: Dicts in which `type` is not a registered name (`targets` of LoRA are names of modules).
_FREE = ('metainfo', 'backend_args', 'targets')
_ROOTS = [item for item in vars(mmengine.registry).values() if isinstance(item, Registry)]


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return ``; did you mean NAME?`` with the nearest of ``names``, empty if none is near."""
    near = _nearest(name, names)
    return f'; did you mean {near}?' if near else ''


def _nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    by_lower = {str(item).lower(): str(item) for item in names}
    found = difflib.get_close_matches(name.lower(), by_lower, 1, cutoff)
    return by_lower[found[0]] if found else None


def check_options(cfg: Config, options: dict) -> None:
    """Check the keys of ``--cfg-options`` before they are merged into a config.

    MMEngine adds an unknown key to the config, where nothing reads it.

    Args:
        cfg (Config): The config.
        options (dict): Values by dotted key.

    Raises:
        ValueError: If a key is not in the config and nothing reads it, or nearly equals another
            key, naming the nearest one.
    """
    end = '._delete_'
    replaced = tuple(key.removesuffix(end) + '.' for key in options if key.endswith(end))
    for option in options:
        if option.startswith(replaced):
            continue
        node, path = cfg, ''
        for part in option.split('.'):
            if isinstance(node, (list, tuple)):
                if not part.isdigit() or int(part) >= len(node):
                    raise ValueError(
                        f'--cfg-options {option}: {path} is a list of {len(node)} entries, so the '
                        f'key after it must be a number from 0 to {len(node) - 1}, got {part!r}'
                    )
                node = node[int(part)]
            elif isinstance(node, (dict, Config)):
                if part not in node:
                    _check_new_key(node, part, path, option)
                    break
                node = node[part]
            elif node is not None:
                raise ValueError(
                    f'--cfg-options {option}: {path} is {node!r} in the config and has no key '
                    f'{part!r}'
                )
            path = f'{path}.{part}' if path else part


def _check_new_key(node, part: str, path: str, option: str) -> None:
    if not path:
        if part not in TOP_LEVEL:
            near = suggestion(part, {*node, *TOP_LEVEL})
            raise ValueError(f'--cfg-options {option}: the config has no key {part!r}{near}')
    elif 'type' not in node and (near := _nearest(part, node, cutoff=0.8)):
        raise ValueError(
            f'--cfg-options {option}: {path} has no key {part!r}; did you mean {near}?'
        )


def check_config(cfg: Config, task: str) -> None:
    """Compare the types and arguments in a config with the registered classes.

    The signature of a class lists its arguments. Those that it passes on to its base class by
    ``**kwargs`` are included; a class that uses ``**kwargs`` otherwise accepts all arguments.

    Args:
        cfg (Config): A config of any toolbox.
        task (str): ``train`` or ``test``.

    Raises:
        ValueError: If a key that the task needs is missing, or for the first type that is not
            registered, the first argument that its class does not have, and the first number that
            is a text, each with the nearest name.
    """
    missing = [key for key in _NEEDED[task] if not cfg.get(key)]
    # MMEngine's loops have defaults for all arguments.
    missing = [key for key in missing if key != 'test_cfg' or cfg.get(key) is None]
    if missing:
        raise ValueError(f'the config has no {", ".join(missing)}, which tools/{task}.py needs')
    for key in sorted(TOP_LEVEL.intersection(cfg)):
        if task == 'test' and key.startswith(('train_', 'val_', 'optim_', 'param_')):
            continue
        value = cfg[key]
        must_be_dict = key in _UNTYPED or key in ('model', 'optim_wrapper', 'default_hooks')
        if must_be_dict and not isinstance(value, (dict, NoneType)):
            raise ValueError(f'{key} must be a dict, got {value!r}')
        _Walk(cfg.get('default_scope') or 'mmengine').check(value, key)
    for name, hook in (cfg.get('default_hooks') or {}).items():
        if isinstance(hook, dict) and 'type' not in hook:
            others = [other for other in cfg.default_hooks if other != name]
            raise ValueError(f'default_hooks.{name} has no type{suggestion(name, others)}')


class _Walk:
    """Checks a value of a config and everything in it.

    Args:
        scope (str): Scope in which types are looked up.
        outer (tuple): Classes of the dicts around the value.
    """

    def __init__(self, scope: str, outer: tuple = ()):
        self.scope, self.outer = scope, outer

    def check(self, node, path: str) -> None:
        if isinstance(node, dict):
            self._check_dict(node, path)
        elif isinstance(node, (list, tuple)):
            for i, item in enumerate(node):
                self.check(item, f'{path}.{i}')

    def _check_dict(self, node: dict, path: str) -> None:
        inside = _Walk(node.get('_scope_') or self.scope, self.outer)
        kind = node.get('type')
        if path == 'optim_wrapper' and 'constructor' not in node:
            kind = kind or 'OptimWrapper'
        if isinstance(kind, str):
            found = _registered(kind, inside.scope)
            if not found and not self._read_by_outer(kind):
                self._fail_unregistered(kind, path, inside.scope)
        elif callable(kind):
            # The registry is unknown, so any of them may read more keys.
            found = dict.fromkeys(_READ_BY_BUILDERS, kind)
        else:
            found = {}
        classes, read = tuple(dict.fromkeys(found.values())), set()
        if kind is None and path in _UNTYPED:
            classes, read = _UNTYPED[path][0], set(_UNTYPED[path][1])
        if (classes or read) and '' not in found:
            read = read.union({'type', '_scope_'}, *(_READ_BY_BUILDERS.get(r, ()) for r in found))
            self._check_arguments(node, path, classes, read)
        inside.outer = (*self.outer, *classes)
        for key, value in node.items():
            if key not in _FREE:
                inside.check(value, f'{path}.{key}')

    def _check_arguments(self, node: dict, path: str, classes: tuple, read: set[str]) -> None:
        signatures = [arguments_of(item) for item in classes]
        if any(signature is None for signature in signatures):
            return
        known = dict.fromkeys(read)
        for signature in signatures:
            known.update(signature)
        for key, value in node.items():
            if key not in known and not self._read_by_outer(key):
                names = ' or '.join(dict.fromkeys(map(_name, classes))) or path
                near = suggestion(key, set(known) - {'type', '_scope_', 'self'})
                raise ValueError(f'{path}.{key}: {names} has no argument {key!r}{near}')
            kinds = known.get(key)
            if isinstance(value, str) and kinds and str not in kinds and {int, float} & {*kinds}:
                expected = ' or '.join(
                    'None' if item is NoneType else item.__name__ for item in kinds
                )
                raise ValueError(f'{path}.{key} must be of type {expected}, got {value!r}')

    def _read_by_outer(self, name: str) -> bool:
        """Return whether the code of a class around this dict contains the name as a string.

        Some classes remove arguments before they build a part of themselves. Albu contains the
        names of another library.
        """
        return any(_name(item) == 'Albu' or name in _strings(item) for item in self.outer)

    def _fail_unregistered(self, kind: str, path: str, scope: str) -> None:
        names = _names(scope)
        near = _nearest(kind.split('.')[-1], names)
        hint = f'; did you mean {names[near]!r}?' if near else ''
        raise ValueError(
            f'{path}.type: {kind!r} is not registered{hint or "; import it with custom_imports"}'
        )


def _name(kind: Callable) -> str:
    return getattr(kind, '__name__', str(kind))


def _registered(name: str, scope: str) -> dict[str, Callable]:
    """Return the classes and functions of this name: name of the root registry -> class."""
    found = {}
    for registry in _registries(scope):
        item = _find(registry, name)
        while registry.parent is not None:
            registry = registry.parent
        if item is not None:
            found[registry.name] = item
    if not found:
        # MMDetection and MMCV take these from the operators of MMCV instead of a registry.
        operator = getattr(importlib.import_module('mmcv.ops'), name, None)
        found = {'': operator} if callable(operator) else {}
    return found


def _find(registry: Registry, name: str) -> Callable | None:
    if '.' in name:
        try:
            return registry.get(name)
        except RuntimeError:
            return None
    # For a name that is not registered, Registry.get would try to import a module of this name.
    registry.import_from_location()
    while registry is not None and name not in registry.module_dict:
        registry = registry.parent
    return registry.module_dict[name] if registry else None


@functools.cache
def _registries(scope: str) -> tuple[Registry, ...]:
    """Return the registries of a scope, and those of MMEngine that the scope does not extend."""
    try:
        module = importlib.import_module(f'{scope}.registry')
    except ImportError:
        return tuple(_ROOTS)
    found = [root.children.get(scope, root) for root in _ROOTS]
    own = [r for r in vars(module).values() if isinstance(r, Registry) and r not in _ROOTS]
    return tuple(dict.fromkeys([*found, *own]))


@functools.cache
def _names(scope: str) -> dict[str, str]:
    """Return the registered names without scope -> the names to write in a config."""
    names = {}
    for registry in (*_registries('mmslak'), *_registries(scope)):
        prefix = 'mmslak.' if registry.scope == 'mmslak' != scope else ''
        while registry is not None:
            names.update({name: prefix + name for name in registry.module_dict})
            registry, prefix = registry.parent, ''
    return names


@functools.cache
def arguments_of(kind: Callable) -> dict[str, tuple[type, ...] | None] | None:
    """Return the arguments of a class or function, or None if it accepts any.

    Args:
        kind (Callable): Arguments that a class passes on to its base class with ``**kwargs`` are
            included.

    Returns:
        dict or None: Name -> the types that are allowed, if they are numbers, strings and None
        only; otherwise None.
    """
    if not inspect.isclass(kind):
        names, rest = _parameters(kind)
        return None if rest else names
    names = {}
    for item in kind.__mro__:
        if item is object or '__init__' not in vars(item):
            continue
        own, rest = _parameters(item.__init__)
        if own is None:
            return None
        names = own | names
        names.pop('self', None)
        if not rest:
            return names
        if not _passes_on(item.__init__, rest):
            return None
    return names


def _parameters(function: Callable) -> tuple[dict | None, str]:
    """Return the parameters of a function with their types, and the name of its ``**kwargs``."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None, ''
    try:
        hints = typing.get_type_hints(inspect.unwrap(function))
    except Exception:  # Annotations can be any text.
        hints = {}
    rest = next((p.name for p in parameters if p.kind == p.VAR_KEYWORD), '')
    fixed = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return {p.name: _scalars(hints.get(p.name)) for p in fixed}, rest


def _scalars(hint) -> tuple[type, ...] | None:
    """Return the types in an annotation if it allows no other values than numbers and texts."""
    kinds = typing.get_args(hint) if _is_union(hint) else (hint,)
    allowed = (int, float, bool, str, NoneType, Tensor)
    if not all(kind in allowed for kind in kinds) or kinds == (NoneType,):
        return None
    return tuple(kind for kind in kinds if kind is not Tensor)


def _is_union(hint) -> bool:
    return typing.get_origin(hint) in (typing.Union, UnionType)


def _passes_on(init: Callable, rest: str) -> bool:
    """Return whether ``__init__`` uses its ``**kwargs`` only to call that of the base class."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(init))))
    except (OSError, TypeError, SyntaxError):
        return False
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == rest]
    passed = [
        keyword.value
        for call in _super_calls(tree)
        for keyword in call.keywords
        if keyword.arg is None
    ]
    return len(passed) == 1 and uses == passed


def _super_calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls of ``super().__init__``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == 'super().__init__':
            yield node


@functools.cache
def _strings(kind: Callable) -> frozenset[str]:
    """Return the words in quotes in the modules of a class and its bases."""
    words = set()
    for name in {item.__module__ for item in getattr(kind, '__mro__', (kind,))}:
        try:
            source = inspect.getsource(importlib.import_module(name))
        except (ImportError, OSError, TypeError):
            continue
        words.update(re.findall(r"""['"](\w+)['"]""", source))
    return frozenset(words)
