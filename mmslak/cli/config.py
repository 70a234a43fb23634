"""Configs as the tools use them: loaded, checked and adapted to the machine."""

import importlib.util
import os
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config

#: toolbox (import name and default scope) -> the extra of this package that brings it.
EXTRAS = {'mmseg': 'seg', 'mmdet': 'det', 'mmpretrain': 'pretrain'}


class ToolboxMissingError(ImportError):
    """A config needs a toolbox that is not installed."""

    def __init__(self, toolbox: str):
        super().__init__(
            f'this config needs {toolbox}, which is not installed: '
            f"pip install 'mmslak[{EXTRAS[toolbox]}]' brings it"
        )


def load_config(path: str | Path, options: dict | None = None) -> Config:
    """Load a config of any toolbox, with command-line options merged in.

    An option ``data_root`` moves the whole data set: every path in the config that lies
    under the old top-level ``data_root`` then lies under the new one.

    Args:
        path (str or Path): A config file, old style or pure Python, or one that a toolbox brings
            along, as ``mmpretrain::resnet/resnet50_8xb32_in1k.py``.
        options (dict, optional): Dotted keys and values, as of ``--cfg-options``.

    Raises:
        FileNotFoundError: If there is no such file.
        ToolboxMissingError: If the config needs a toolbox that is not installed.
        ValueError: If something else than a toolbox stands before ``::``.
    """
    toolbox, of_toolbox, _ = str(path).partition('::')
    if of_toolbox and toolbox not in EXTRAS:
        raise ValueError(f'config {path}: before the :: belongs one of {", ".join(EXTRAS)}')
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
    """Copy ``value`` with every path under ``old_root`` put under ``new_root``."""
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
    """Where a run of the config at ``path`` goes: its own ``work_dir``, or one by its name."""
    return cfg.get('work_dir') or str(Path('work_dirs') / Path(path).stem)


def enable_amp(cfg: Config) -> None:
    """Train in mixed precision.

    Raises:
        ValueError: If the config's ``optim_wrapper`` is of a type that cannot.
    """
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind in ('OptimWrapper', 'AmpOptimWrapper', 'mmslak.AmpOptimWrapper'):
        cfg.optim_wrapper.type = 'mmslak.AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        raise ValueError(f"--amp needs optim_wrapper.type='OptimWrapper', got {kind!r}")


def enable_lr_scaling(cfg: Config) -> None:
    """Scale the learning rate linearly with the batch size.

    The batch of an optimiser step is the images of a process, times the processes, times
    ``optim_wrapper.accumulative_counts``.

    Raises:
        ValueError: If the config does not tell the batch size that its rate is for.
    """
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if not isinstance(base, int) or base < 1:
        raise ValueError(
            '--auto-scale-lr needs auto_scale_lr.base_batch_size in the config: the batch size, '
            f'over all processes, that optim_wrapper.optimizer.lr is for; got {base!r}'
        )
    # MMEngine knows images and processes, not accumulation.
    steps = cfg.optim_wrapper.get('accumulative_counts', 1)
    cfg.auto_scale_lr = ConfigDict(enable=True, base_batch_size=base / steps)


def enable_tta(cfg: Config) -> None:
    """Test with the config's test-time augmentation (for segmentation: scales and flips).

    Raises:
        ValueError: If the config has none.
    """
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise ValueError(f'--tta needs {key} in the config')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def process_count(launcher: str) -> int:
    """Tell how many processes ``launcher`` has started, from their environment."""
    key = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
    return int(os.environ.get(key.get(launcher, ''), 1))


def set_effective_batch(cfg: Config, effective: int, processes: int) -> None:
    """Accumulate gradients so that a step of the optimiser sees ``effective`` images.

    An average of weights (``EMAHook``) then counts steps of the optimiser too.

    Args:
        cfg (Config): Changed in place.
        effective (int): Images a step of the optimiser, over all processes.
        processes (int): Number of processes.

    Raises:
        ValueError: If processes times images does not divide ``effective``.
    """
    images = cfg.train_dataloader.batch_size
    if effective < 1 or effective % (images * processes):
        raise ValueError(
            f'--effective-batch {effective} is no multiple of {processes} process(es) x '
            f'train_dataloader.batch_size={images}; change the batch size with '
            '--cfg-options train_dataloader.batch_size=N'
        )
    steps = effective // (images * processes)
    cfg.optim_wrapper.accumulative_counts = steps
    for hook in cfg.get('custom_hooks') or []:
        if str(hook.get('type')).split('.')[-1] == 'EMAHook':
            hook.interval = steps


def prepare(cfg: Config, launcher: str = 'none') -> None:
    """Adapt a config to how and where it runs, before a runner is built from it.

    Several processes on CPUs need gloo, a wrapper without device numbers and ordinary batch
    norms (PyTorch's synchronised ones exist only for accelerators); MMEngine sets up none of
    these by itself.

    Args:
        cfg (Config): Changed in place.
        launcher (str): ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        ValueError: If the launcher cannot work here.
    """
    cfg.launcher = launcher
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hooks.setdefault('plain_checkpoint', dict(type='mmslak.PlainCheckpointHook'))
    hooks.setdefault('random_state', dict(type='mmslak.RandomStateHook'))
    speed = dict(type='mmslak.ThroughputHook')
    # Options may have given some of its settings; None switches it off.
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
