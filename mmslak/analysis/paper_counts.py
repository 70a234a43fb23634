"""Parameters and multiply-adds of the networks in the paper's tables, counted from real models."""

import hashlib
import importlib.util
import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.hub import get_config
from torch import Tensor, nn

from ..registry import MODELS
from .complexity import SHAPES, config_costs
from .paper import TABLES, Network, Row
from .snip_allocation import allocate_by_images


@MODELS.register_module()
class PoolLastFeatureMap(nn.Module):
    """Global average pooling before MMPretrain's heads, for backbones that return a list."""

    def forward(self, features: list[Tensor]) -> tuple[Tensor]:
        """Pool the last feature map, (N, C, H, W), to (N, C)."""
        return (features[-1].mean((-2, -1)),)


@dataclass(frozen=True)
class Count:
    """The size of one network, for one allocation of its sparsity.

    Args:
        params (float): Parameters in millions.
        gmacs (float): Multiply-adds in G, averaged over the initialisations.
        lowest (float): The smallest of these multiply-adds in G.
        highest (float): The largest of them.
    """

    params: float
    gmacs: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, costs: list[dict], which: str) -> 'Count':
        """Summarise what :func:`config_costs` returned, ``dense`` or ``sparse``."""
        gmacs = [cost[f'macs_{which}'] / 1e9 for cost in costs]
        params = statistics.mean(cost[f'params_{which}'] / 1e6 for cost in costs)
        return cls(params, statistics.mean(gmacs), min(gmacs), max(gmacs))


#: Number of a table -> for each of its rows the counts by allocation: ``dense``, or ``uniform``
#: and ``SNIP``.
Counts = dict[int, list[dict[str, Count]]]


def load_network(network: Network, configs: Path) -> Config:
    """Load the config of a network, with its options.

    Args:
        network (Network): Of a row of the paper.
        configs (Path): Directory of this package's configs.
    """
    if network.config.startswith('mmpretrain::'):
        cfg = get_config(network.config)
        cfg.setdefault('default_scope', 'mmpretrain')
    elif network.config:
        cfg = Config.fromfile(configs / f'{network.config}.py')
    else:
        cfg = Config(dict(default_scope='mmpretrain'))
    cfg.merge_from_dict(network.options)
    return cfg


def missing_packages(network: Network) -> list[str]:
    """Return the packages that a network needs and that are not installed."""
    return [name for name in network.packages if importlib.util.find_spec(name) is None]


class SnipCache:
    """SNIP allocations of classifiers, which are computed once and kept in a file.

    Args:
        images (list): From :func:`mmslak.analysis.snip_allocation.labelled_images`.
        seeds (int): Number of initialisations to score.
        path (Path): JSON file; it is created if it does not exist.
    """

    def __init__(self, images: list[tuple[Path, int]], seeds: int, path: Path):
        self.images, self.seeds, self.path = images, seeds, path
        self.known = json.loads(path.read_text()) if path.is_file() else {}

    def __call__(self, cfg: Config, sparsity: float) -> list[dict[str, int]]:
        """Return the number of active weights of each layer, for each initialisation."""
        return [self._allocation(cfg, sparsity, seed) for seed in range(self.seeds)]

    def _allocation(self, cfg: Config, sparsity: float, seed: int) -> dict[str, int]:
        names = [(path.parent.name, path.name) for path, _ in self.images]
        parts = [cfg.model.to_dict(), sparsity, names, seed]
        text = json.dumps(parts, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        if key not in self.known:
            self.known[key] = allocate_by_images(cfg, self.images, sparsity, seed=seed)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Replaced in one step, so that an interruption leaves a complete file.
            partial = self.path.with_suffix('.partial')
            partial.write_text(json.dumps(self.known))
            partial.replace(self.path)
        return self.known[key]


def count_row(row: Row, configs: Path, snip: SnipCache | None = None) -> dict[str, Count]:
    """Build the network of a row and count its parameters and multiply-adds.

    Args:
        row (Row): A row of the paper.
        configs (Path): Directory of this package's configs.
        snip (SnipCache, optional): Default: sparse networks have the uniform allocation only.

    Returns:
        dict[str, Count]: By allocation: ``dense``, or ``uniform`` and ``SNIP``. Empty if no
        library has the network or the library is not installed.
    """
    if row.network is None or missing_packages(row.network):
        return {}
    cfg = load_network(row.network, configs)
    shape = (row.size, row.size) if row.size else SHAPES[cfg.default_scope]
    if not row.sparsity:
        return {'dense': Count.of([config_costs(cfg, shape, 0.0)], 'dense')}
    counts = {'uniform': Count.of([config_costs(cfg, shape, row.sparsity)], 'sparse')}
    if snip:
        allocations = snip(load_network(row.classifier or row.network, configs), row.sparsity)
        costs = [config_costs(cfg, shape, row.sparsity, kept) for kept in allocations]
        counts['SNIP'] = Count.of(costs, 'sparse')
    return counts


def count_tables(
    tables: Iterable[int],
    configs: Path,
    snip: SnipCache | None = None,
    progress: Callable[[str], object] = lambda name: None,
) -> Counts:
    """Count every row of some tables, each network once.

    Args:
        tables (Iterable[int]): Numbers of tables, keys of :data:`mmslak.analysis.paper.TABLES`.
        configs (Path): Directory of this package's configs.
        snip (SnipCache, optional): See :func:`count_row`.
        progress (Callable): Called with the name of each row before it is counted.

    Returns:
        dict: Number of a table -> a dict for each row, as :func:`count_row` returns it.
    """
    known: dict[str, dict[str, Count]] = {}
    counts: Counts = {}
    for number in tables:
        counts[number] = []
        for row in TABLES[number].rows:
            progress(f'table {number}, {row.label}')
            key = repr((row.network, row.sparsity, row.size))
            if key not in known:
                known[key] = count_row(row, configs, snip)
            counts[number].append(known[key])
    return counts
