"""Loading configs, and adapting them to the command line and to the machine."""

import importlib.util
import os
from datetime import timedelta
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config

from ..engine.hooks.configured import (
    add_default_hooks,
    configured_hooks,
    remove_disabled_hooks,
    remove_replaced_hooks,
)
from ..engine.packaged_configs import PREFIX, config_names, packaged_config
from ..toolboxes import EXTRAS, ToolboxMissingError
from .config_check import check_options, suggestion
from .data_config import CodeInConfigError
from .processes import TIMEOUT


def load_config(path: str | Path, options: dict | None = None) -> Config:
    """Load a config of any toolbox, and merge the options of the command line into it.

    The option ``data_root`` applies to the whole dataset: it replaces the top-level ``data_root``
    of the config at the beginning of every path in the config.

    Args:
        path (str or Path): A config file, in text or pure Python style, a config of this package
            such as ``upernet_slak_t_ade20k`` or ``mmslak::upernet_slak_t_ade20k``, or one of an
            installed toolbox such as ``mmpretrain::resnet/resnet50_8xb32_in1k.py``.
        options (dict, optional): Values by dotted key, as from ``--cfg-options``.

    Returns:
        Config: The config.

    Raises:
        FileNotFoundError: If the file, or one that it inherits from, does not exist.
        ToolboxMissingError: If the config needs a toolbox that is not installed.
        ValueError: If the name before ``::`` is not mmslak or a toolbox, if the file cannot be
            read, or if nothing reads the key of an option.
    """
    path = _find_config(path)
    toolbox, of_toolbox, _ = path.partition('::')
    if of_toolbox and toolbox not in EXTRAS:
        raise ValueError(
            f'config {path}: the name before :: must be one of {", ".join(["mmslak", *EXTRAS])}, '
            f'got {toolbox!r}'
        )
    if of_toolbox and importlib.util.find_spec(toolbox) is None:
        raise ToolboxMissingError(toolbox)
    try:
        cfg = get_config(path) if of_toolbox else Config.fromfile(path)
    except CodeInConfigError:
        raise
    except Exception as error:  # A config can run any code.
        raise _reading_error(path, error) from error
    scope = cfg.get('default_scope')
    if scope in EXTRAS and importlib.util.find_spec(scope) is None:
        raise ToolboxMissingError(scope)
    old_root = cfg.get('data_root')
    if options:
        check_options(cfg, options)
        cfg.merge_from_dict(options)
    new_root = cfg.get('data_root')
    if old_root and new_root and new_root != old_root:
        cfg.update(_moved(cfg.to_dict(), old_root, new_root))
    return cfg


def innermost_dataset(cfg: Config, split: str) -> dict:
    """Return the settings of the dataset of a split, without wrappers that repeat or mix images.

    Args:
        cfg (Config): A config of any toolbox.
        split (str): ``train``, ``val`` or ``test``.

    Returns:
        dict: The settings; empty if the config has none.
    """
    dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}
    while isinstance(dataset.get('dataset'), dict):
        dataset = dataset['dataset']
    return dataset


def is_config(name: str) -> bool:
    """Return whether a text names a config, by its suffix, a name before ``::``, or its name."""
    return (
        Path(name).suffix in ('.py', '.yaml', '.yml', '.json')
        or '::' in name
        or packaged_config(name) is not None
    )


def _find_config(path: str | Path) -> str:
    """Return the file of a config. The name of a config of a toolbox is returned as it is."""
    path = str(path)
    own = path.startswith(PREFIX)
    if not own and ('::' in path or Path(path).is_file()):
        return path
    if file := packaged_config(path):
        return str(file)
    near = suggestion(Path(path.removeprefix(PREFIX)).stem, config_names())
    raise FileNotFoundError(f'config {path} does not exist{near}')


def _reading_error(path: str | Path, error: Exception) -> Exception:
    """Return the error to raise if a config cannot be read."""
    for toolbox in EXTRAS:
        missing = isinstance(error, (ImportError, KeyError)) and toolbox in str(error)
        if missing and importlib.util.find_spec(toolbox) is None:
            return ToolboxMissingError(toolbox)
    if isinstance(error, RecursionError):
        return ValueError(
            f'config {path} inherits from itself: follow _base_ through its base configs, and '
            'remove the one that leads back'
        )
    if isinstance(error, FileNotFoundError):
        missing = error.filename or error
        return FileNotFoundError(
            f'config {path}: a file that it needs does not exist (see _base_): {missing}'
        )
    if isinstance(error, ImportError):
        # MMEngine adds the whole sys.path to the message.
        return ImportError(f'config {path} cannot import a module: {error.__cause__ or error}')
    text = ' '.join(str(error).split())
    return ValueError(f'config {path} cannot be read: {type(error).__name__}: {text}')


def _moved(value, old_root: str, new_root: str):
    """Copy ``value``, with ``old_root`` replaced by ``new_root`` at the beginning of paths."""
    if isinstance(value, dict):
        return {key: _moved(item, old_root, new_root) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, old_root, new_root) for item in value)
    if isinstance(value, str):
        old = old_root.rstrip('/')
        if value.rstrip('/') == old or value.startswith(old + '/'):
            return new_root.rstrip('/') + value[len(old) :]
    return value


def default_work_dir(cfg: Config, path: str | Path) -> str:
    """Return the work directory of a config: its ``work_dir``, or one named after the file."""
    return cfg.get('work_dir') or str(Path('work_dirs') / Path(str(path).rpartition('::')[2]).stem)


def enable_amp(cfg: Config) -> None:
    """Set up mixed-precision training.

    Args:
        cfg (Config): Changed in place.

    Raises:
        ValueError: If the type of ``optim_wrapper`` does not support it.
    """
    if not isinstance(cfg.get('optim_wrapper'), dict):
        return  # The check of the config names it.
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind in ('OptimWrapper', 'AmpOptimWrapper', 'mmslak.AmpOptimWrapper'):
        cfg.optim_wrapper.type = 'mmslak.AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        raise ValueError(f"--amp needs optim_wrapper.type='OptimWrapper', got {kind!r}")


def enable_lr_scaling(cfg: Config) -> None:
    """Scale the learning rate linearly with the batch size of an optimiser step.

    This batch size is the product of the images per process, the number of processes and
    ``optim_wrapper.accumulative_counts``.

    Args:
        cfg (Config): Changed in place.

    Raises:
        ValueError: If ``auto_scale_lr.base_batch_size`` is missing: the batch size for which the
            learning rate of the config was chosen.
    """
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if not isinstance(base, int) or base < 1:
        raise ValueError(
            '--auto-scale-lr needs a positive integer auto_scale_lr.base_batch_size in the config, '
            'the batch size over all processes for which optim_wrapper.optimizer.lr was chosen; '
            f'got {base!r}'
        )
    # MMEngine considers images and processes, but not the accumulation of gradients.
    steps = cfg.optim_wrapper.get('accumulative_counts', 1)
    cfg.auto_scale_lr = ConfigDict(enable=True, base_batch_size=base / steps)


def enable_tta(cfg: Config) -> None:
    """Set up the test-time augmentation of the config, such as several scales and flips.

    Args:
        cfg (Config): Changed in place.

    Raises:
        ValueError: If the config has no test-time augmentation.
    """
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise ValueError(
                f'--tta needs {key} in the config, which has none; define tta_model, such as '
                "dict(type='SegTTAModel'), and tta_pipeline, which ends with TestTimeAug"
            )
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def process_count(launcher: str) -> int:
    """Return the number of processes that ``launcher`` started, from the environment."""
    key = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
    return int(os.environ.get(key.get(launcher, ''), 1))


def process_rank(launcher: str) -> int:
    """Return the rank of this process among those of ``launcher``, from the environment."""
    key = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')
    return int(os.environ.get(key.get(launcher, ''), 0))


def set_effective_batch(cfg: Config, effective: int, processes: int) -> None:
    """Accumulate gradients so that an optimiser step uses ``effective`` images.

    The average of weights (``EMAHook``) is then updated only after optimiser steps.

    Args:
        cfg (Config): Changed in place.
        effective (int): Images per optimiser step, over all processes.
        processes (int): Number of processes.

    Raises:
        ValueError: If ``effective`` is not a multiple of the images per iteration.
    """
    images = cfg.train_dataloader.batch_size
    if effective < 1 or effective % (images * processes):
        raise ValueError(
            f'--effective-batch must be a positive multiple of {processes} process(es) x '
            f'train_dataloader.batch_size={images}, got {effective}; change the batch size with '
            '--cfg-options train_dataloader.batch_size=N'
        )
    steps = effective // (images * processes)
    cfg.optim_wrapper.accumulative_counts = steps
    for hook in configured_hooks(cfg, 'EMAHook'):
        hook.interval = steps * hook.get('interval', 1)


def prepare(cfg: Config, launcher: str = 'none') -> None:
    """Adapt a config to the launcher and the machine, before a runner is built from it.

    Several processes on CPUs need gloo, a distributed wrapper without device ids, and ordinary
    batch norms, because PyTorch's synchronised batch norms need accelerators. MMEngine does not
    set these up itself.

    Args:
        cfg (Config): Changed in place.
        launcher (str): ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        ValueError: If the launcher was not started or needs GPUs, or the config needs a runner or
            an optimiser that is not supported.
    """
    cfg.launcher = launcher
    _refuse_sharding(cfg)
    remove_replaced_hooks(cfg)
    add_default_hooks(cfg)
    remove_disabled_hooks(cfg)
    if launcher == 'none':
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise ValueError(
            '--launcher pytorch needs torchrun; start it with tools/dist_train.sh or '
            'tools/dist_test.sh'
        )
    timeout = _timeout(cfg)
    if torch.cuda.is_available():
        return
    if launcher != 'pytorch':
        raise ValueError(f'--launcher {launcher} needs GPUs; use --launcher pytorch on CPUs')
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=timeout))
    cfg.model_wrapper_cfg = ConfigDict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    _replace_sync_bn(cfg.model)


def _timeout(cfg: Config) -> float:
    """Return the time in seconds after which a process that waits for others fails."""
    settings = cfg.setdefault('env_cfg', ConfigDict()).setdefault('dist_cfg', ConfigDict())
    timeout = settings.setdefault('timeout', TIMEOUT)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout <= 0:
        raise ValueError(
            f'env_cfg.dist_cfg.timeout must be a positive number of seconds, got {timeout!r}'
        )
    return timeout


def _refuse_sharding(cfg: Config) -> None:
    """Refuse runners and optimisers that distribute the weights or the state over processes.

    Raises:
        ValueError: Naming the key and what to use instead.
    """
    instead = (
        'to save memory use --amp, model.backbone.with_cp=True or --effective-batch with a small '
        'train_dataloader.batch_size'
    )
    runner = cfg.get('runner_type', 'Runner')
    if runner != 'Runner':
        raise ValueError(
            f'runner_type={runner!r} is not supported, because the strategies of MMEngine split '
            f'weights and optimiser over processes, but masks need whole weights; remove '
            f'runner_type and strategy from the config, and {instead}'
        )
    wrapper = cfg.get('model_wrapper_cfg') or {}
    if 'FullyShardedDataParallel' in str(wrapper.get('type')):
        raise ValueError(
            f'model_wrapper_cfg.type={wrapper["type"]!r} is not supported, because masks need '
            f'whole weights; remove model_wrapper_cfg, and {instead}'
        )
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if 'ZeroRedundancyOptimizer' in str(optimizer.get('type')):
        raise ValueError(
            'optim_wrapper.optimizer.type=ZeroRedundancyOptimizer is not supported, because its '
            'state would be collected from all processes while only the first one saves a '
            f'checkpoint; use type={optimizer.get("optimizer_type", "AdamW")!r}, and {instead}'
        )


def _replace_sync_bn(node) -> None:
    if isinstance(node, dict):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
        for value in node.values():
            _replace_sync_bn(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _replace_sync_bn(value)
