"""What a work directory tells about its training."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..analysis.curves import Scalars, read_scalars
from ..checkpoints import (
    SPARSITY_STATE,
    has_checkpoint,
    latest_checkpoint,
    read_checkpoint,
    weights_of,
)
from ..sparsity import unpack_masks

#: Parts of a config that are compared. The others are variables of the file, or paths.
_COMPARED = (
    *('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'default_hooks', 'custom_hooks'),
    *('train_dataloader', 'val_dataloader', 'randomness', 'load_from'),
)
#: Buffers of batch norms.
_STATISTICS = ('.running_mean', '.running_var')


@dataclass
class Run:
    """One training.

    Args:
        path (Path): Its work directory.
        name (str): Name in the report.
        scalars (Scalars): What it logged.
        config (Config or None): Its config, with all bases and options.
        checkpoint (Path or None): The best checkpoint, or else the last one.
        environment (dict[str, str]): Versions and device, from the log.
    """

    path: Path
    name: str
    scalars: Scalars
    config: Config | None
    checkpoint: Path | None
    environment: dict[str, str]

    @property
    def seconds(self) -> float:
        """Time of all iterations, without validations."""
        times, last, total = self.scalars.training.get('time', []), 0, 0.0
        for step, value in times:
            # The logged time is the mean of the iterations since the last line.
            total, last = total + (step - last) * value, step
        return total

    def weights(self) -> dict[str, int]:
        """Return the numbers of ``stored`` and ``active`` weights in the checkpoint."""
        stored = read_checkpoint(self.checkpoint)
        state = weights_of(stored)
        masks = unpack_masks(stored[SPARSITY_STATE]) if stored.get(SPARSITY_STATE) else {}
        # Statistics of batch norms are no weights.
        count = sum(
            value.numel()
            for name, value in state.items()
            if value.is_floating_point() and not name.endswith(_STATISTICS)
        )
        masked = sum(int((~mask).sum()) for mask in masks.values())
        return dict(stored=count, active=count - masked)


def read_run(path: Path, name: str | None = None) -> Run:
    """Read a work directory.

    Args:
        path (Path): Directory that ``tools/train.py`` wrote.
        name (str, optional): Name in the report. Default: that of the directory.

    Raises:
        FileNotFoundError: If the directory contains no run that logged anything.
    """
    scalars = read_scalars(path)
    configs = sorted(path.glob('*/vis_data/config.py'))
    best = sorted(path.glob('best_*.pth'), key=lambda file: file.stat().st_mtime)
    checkpoint = best[-1] if best else None
    if checkpoint is None and has_checkpoint(path):
        checkpoint = Path(latest_checkpoint(path)[0])
    return Run(
        path,
        name or path.resolve().name,
        scalars,
        Config.fromfile(configs[-1]) if configs else None,
        checkpoint,
        _environment(path),
    )


def _environment(path: Path) -> dict[str, str]:
    """Read versions and device from the last log."""
    logs = sorted(path.glob('*/*.log'))
    if not logs:
        return {}
    text = logs[-1].read_text(encoding='utf-8', errors='replace')[:20000]
    names = ('Python', 'PyTorch', 'MMEngine', 'OpenCV', 'GPU 0', 'CUDA available', 'seed')
    found = {name: re.search(rf'^ +{name}: (.+)$', text, re.MULTILINE) for name in names}
    return {name: match[1].split('(')[0].strip() for name, match in found.items() if match}


def flat(node, prefix: str = '') -> dict[str, str]:
    """Return the settings of a config by dotted key, as text."""
    if isinstance(node, Mapping) and node:
        items = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, (list, tuple)) and any(isinstance(item, Mapping) for item in node):
        items = [(str(i), value) for i, value in enumerate(node)]
    else:
        return {prefix: repr(node)}
    found = {}
    for key, value in items:
        found.update(flat(value, f'{prefix}.{key}' if prefix else key))
    return found


def differences(first: Config, second: Config) -> list[tuple[str, str, str]]:
    """Return the keys whose values differ, with both values; ``-`` if a config lacks the key.

    Variables of the files and paths are left out.
    """
    a, b = (flat(_read_settings(cfg)) for cfg in (first, second))
    return [
        (key, a.get(key, '-'), b.get(key, '-'))
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key)
    ]


def _read_settings(cfg: Config) -> dict:
    plain = cfg.to_dict()
    return {name: plain[name] for name in _COMPARED if plain.get(name) is not None}
