"""The study of structures of the zeros: its networks and tables."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from ..models import build_model
from ..sparsity import DynamicSparsity, select_model_targets
from .kernel_grid import Scores, difference_table, summary


@dataclass
class StructureGrid:
    """The networks of a study of structures: all combinations of its fields.

    Args:
        sets (dict[str, str]): Name of each dataset, and its title.
        structures (list[str]): Structures of the zeros; the first one is compared with the others.
        moments (list[str]): Rules for the moments of grown weights.
    """

    sets: dict[str, str]
    structures: list[str]
    moments: list[str]

    @staticmethod
    def name(data: str, structure: str, moments: str) -> str:
        """Return the name of a network, which is also the name of a directory."""
        return f'{data}-{structure.replace(":", "of")}-{moments}'

    def comparisons(self) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Yield a description, and pairs of networks without data that differ in one field."""

        def short(structure: str, moments: str) -> str:
            return self.name('', structure, moments)[1:]

        first, *others = self.structures
        for other in others:
            pairs = [(short(other, rule), short(first, rule)) for rule in self.moments]
            yield f'{other} over {first}', pairs
        zero, layer = self.moments
        pairs = [(short(one, layer), short(one, zero)) for one in self.structures]
        yield f'moments {layer} over {zero}', pairs


#: The networks of ``tools/analysis/camvid_study.py --structures``.
STRUCTURES = StructureGrid(
    sets=dict(camvid='CamVid at 240 x 180'),
    structures=['unstructured', 'neuron', 'tap', '2:4'],
    moments=['zero', 'layer'],
)
#: File with the results of the study.
RESULTS = 'structures.json'


def active_weights(cfg: Config) -> int:
    """Count the active weights of a config's model with the settings of its sparsity hook."""
    settings = dict(cfg.default_hooks.sparsity)
    model = build_model(cfg)
    sparsity = DynamicSparsity(
        select_model_targets(model), settings['sparsity'], settings['allocation'],
        mode='fixed', structure=settings['structure'], model=model,
    )  # fmt: skip
    return sparsity.masks.active


def structure_table(scores: Scores, active: Mapping[str, int], grid: StructureGrid) -> Table:
    """Make the table of mean scores."""
    table = Table('structure', title='mIoU, %: mean ± standard deviation (seeds)')
    table.add_column('active weights', justify='right')
    for moments in grid.moments:
        table.add_column(f'moments {moments}', justify='right')
    for data, structure in itertools.product(grid.sets, grid.structures):
        names = [grid.name(data, structure, moments) for moments in grid.moments]
        cells = [summary(scores.get(name, {})) for name in names]
        table.add_row(structure, f'{active[names[0]]:,}', *cells)
    return table


def structure_tables(results: Mapping) -> dict[str, Table]:
    """Make both tables from the content of :data:`RESULTS`, by their names in the docs."""
    scores, active = results['scores'], results['active']
    return {
        'structures': structure_table(scores, active, STRUCTURES),
        'structure differences': difference_table(scores, STRUCTURES),
    }


def report_structures(
    scores: Scores, active: Mapping[str, int], folder: Path, console: Console, iters: int
) -> None:
    """Print both tables and write the results.

    Args:
        scores (dict): Scores by name and seed.
        active (dict[str, int]): Number of active weights by name.
        folder (Path): Directory of :data:`RESULTS`.
        console (Console): Where to print.
        iters (int): Iterations of each training.
    """
    results = dict(scores=scores, active=active, iters=iters)
    for table in structure_tables(results).values():
        console.print(table)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).write_text(json.dumps(results, indent=2) + '\n')
    console.print(f'written to {folder / RESULTS}')
