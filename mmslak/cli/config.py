"""Loading configs, and adapting them to the command line and the machine."""

import importlib.util
import os
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config

from ..engine.hooks.configured import configured_hooks, remove_replaced_hooks

#: toolbox (import name and default scope) -> the extra of this package that installs it.
EXTRAS = {'mmseg': 'seg', 'mmdet': 'det', 'mmpretrain': 'pretrain'}


class ToolboxMissingError(ImportError):
    """A config needs a toolbox that is not installed."""

    def __init__(self, toolbox: str):
        super().__init__(
            f'this config needs {toolbox}, which is not installed: '
            f"pip install 'mmslak[{EXTRAS[toolbox]}]' installs it"
        )


def load_config(path: str | Path, options: dict | None = None) -> Config:
    """Load a config of any toolbox, and merge command-line options into it.

    The option ``data_root`` moves the whole dataset: it replaces the old top-level ``data_root``
    at the beginning of every path in the config.

    Args:
        path (str or Path): A config file, of the old or the pure Python style, or a config of an
            installed toolbox such as ``mmpretrain::resnet/resnet50_8xb32_in1k.py``.
        options (dict, optional): Dotted keys and values, as from ``--cfg-options``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ToolboxMissingError: If the config needs a toolbox that is not installed.
        ValueError: If ``::`` does not follow the name of a toolbox.
    """
    toolbox, of_toolbox, _ = str(path).partition('::')
    if of_toolbox and toolbox not in EXTRAS:
        raise ValueError(f'config {path}: the name before :: must be one of {", ".join(EXTRAS)}')
    if of_toolbox and importlib.util.find_spec(toolbox) is None:
        raise ToolboxMissingError(toolbox)
    if not of_toolbox and not Path(path).is_file():
        raise FileNotFoundError(f'config {path} does not exist')
    try:
        cfg = get_config(str(path)) if of_toolbox else Config.fromfile(str(path))
    except (ImportError, KeyError) as error:
        for toolbox in EXTRAS:
            if toolbox in str(error) and importlib.util.find_spec(toolbox) is None:
                raise ToolboxMissingError(toolbox) from None
        raise
    scope = cfg.get('default_scope')
    if scope in EXTRAS and importlib.util.find_spec(scope) is None:
        raise ToolboxMissingError(scope)
    old_root = cfg.get('data_root')
    if options:
        cfg.merge_from_dict(options)
    new_root = cfg.get('data_root')
    if old_root and new_root and new_root != old_root:
        cfg.update(_moved(cfg.to_dict(), old_root, new_root))
    return cfg


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
    """Return the work directory of a config: its own ``work_dir``, or one named after the file."""
    return cfg.get('work_dir') or str(Path('work_dirs') / Path(path).stem)


def enable_amp(cfg: Config) -> None:
    """Set up mixed precision training.

    Raises:
        ValueError: If the type of the config's ``optim_wrapper`` does not support it.
    """
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind in ('OptimWrapper', 'AmpOptimWrapper', 'mmslak.AmpOptimWrapper'):
        cfg.optim_wrapper.type = 'mmslak.AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        raise ValueError(f"--amp needs optim_wrapper.type='OptimWrapper', got {kind!r}")


def enable_lr_scaling(cfg: Config) -> None:
    """Scale the learning rate linearly with the batch size.

    The batch size of an optimiser step is the product of the images per process, the number of
    processes and ``optim_wrapper.accumulative_counts``.

    Raises:
        ValueError: If the config does not have the batch size that its learning rate is for.
    """
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if not isinstance(base, int) or base < 1:
        raise ValueError(
            '--auto-scale-lr needs auto_scale_lr.base_batch_size in the config: the batch size, '
            f'over all processes, that optim_wrapper.optimizer.lr is for; got {base!r}'
        )
    # MMEngine takes images and processes into account, but not accumulation.
    steps = cfg.optim_wrapper.get('accumulative_counts', 1)
    cfg.auto_scale_lr = ConfigDict(enable=True, base_batch_size=base / steps)


def enable_tta(cfg: Config) -> None:
    """Set up the test-time augmentation of the config, such as scales and flips.

    Raises:
        ValueError: If the config has no test-time augmentation.
    """
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise ValueError(f'--tta needs {key} in the config')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def process_count(launcher: str) -> int:
    """Return how many processes ``launcher`` has started, from the environment."""
    key = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
    return int(os.environ.get(key.get(launcher, ''), 1))


def set_effective_batch(cfg: Config, effective: int, processes: int) -> None:
    """Accumulate gradients so that a step of the optimiser uses ``effective`` images.

    An average of weights (``EMAHook``) is then updated after steps of the optimiser only.

    Args:
        cfg (Config): Changed in place.
        effective (int): Images per step of the optimiser, over all processes.
        processes (int): Number of processes.

    Raises:
        ValueError: If ``effective`` is not a multiple of the images of all processes.
    """
    images = cfg.train_dataloader.batch_size
    if effective < 1 or effective % (images * processes):
        raise ValueError(
            f'--effective-batch {effective} is not a multiple of {processes} process(es) x '
            f'train_dataloader.batch_size={images}; change the batch size with '
            '--cfg-options train_dataloader.batch_size=N'
        )
    steps = effective // (images * processes)
    cfg.optim_wrapper.accumulative_counts = steps
    for hook in configured_hooks(cfg, 'EMAHook'):
        hook.interval = steps


def prepare(cfg: Config, launcher: str = 'none') -> None:
    """Adapt a config to the launcher and the machine, before a runner is built from it.

    Several processes on CPUs need gloo, a wrapper without device ids, and ordinary batch norms
    because PyTorch's synchronised ones need accelerators. MMEngine does not set these up itself.

    Args:
        cfg (Config): Changed in place.
        launcher (str): ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        ValueError: If the launcher cannot be used here.
    """
    cfg.launcher = launcher
    remove_replaced_hooks(cfg)
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hooks.setdefault('plain_checkpoint', dict(type='mmslak.PlainCheckpointHook'))
    hooks.setdefault('random_state', dict(type='mmslak.RandomStateHook'))
    speed = dict(type='mmslak.ThroughputHook')
    # Options may have changed some of its settings; None switches it off.
    if hooks.setdefault('throughput', speed) is not None:
        hooks.throughput = dict(speed, **hooks.throughput)
    if launcher == 'none':
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise ValueError(
            '--launcher pytorch must be started by torchrun: use tools/dist_train.sh or '
            'tools/dist_test.sh'
        )
    if torch.cuda.is_available():
        return
    if launcher != 'pytorch':
        raise ValueError(f'--launcher {launcher} needs GPUs; on CPUs use --launcher pytorch')
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    cfg.model_wrapper_cfg = ConfigDict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    _replace_sync_bn(cfg.model)


def _replace_sync_bn(node) -> None:
    if isinstance(node, dict):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
        for value in node.values():
            _replace_sync_bn(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _replace_sync_bn(value)
