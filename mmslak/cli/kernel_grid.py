"""Studies of kernel sizes, modes and densities: their names, tables and figure."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from ..analysis.pages import markdown_table
from ..models import MODES
from .study import mean_and_spread, paired_differences

#: Scores by name of the network and seed.
Scores = Mapping[str, Mapping[int, float]]


@dataclass
class Grid:
    """The networks of a study: all combinations of its fields.

    Args:
        sets (dict[str, str]): Name of each dataset, and its title in the figure.
        kernels (list[int]): Kernel sizes of the first stage.
        modes (list[str]): Modes of the blocks.
        densities (dict[str, str]): ``dense`` and ``sparse``, or one of them, and how wide each is.
    """

    sets: dict[str, str]
    kernels: list[int]
    modes: list[str]
    densities: dict[str, str]

    @staticmethod
    def name(data: str, kernel: int, mode: str, density: str) -> str:
        """Return the name of a network."""
        return f'{data}-{kernel}-{mode}-{density}'

    def comparisons(self) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Yield the comparisons of the paper: a description, and pairs of networks without data.

        The pairs of a comparison differ in density, kernel or mode.
        """
        smallest, largest = min(self.kernels), max(self.kernels)
        if largest > smallest:
            for mode in self.modes:
                yield (
                    f'{mode}: {largest} x {largest} over {smallest} x {smallest}',
                    [
                        (f'{largest}-{mode}-{density}', f'{smallest}-{mode}-{density}')
                        for density in self.densities
                    ],
                )
        for mode in ('naive', 'reparam'):
            if {'decomposed', mode} <= set(self.modes):
                for kernel in self.kernels:
                    yield (
                        f'{kernel} x {kernel}: decomposed over {mode}',
                        [
                            (f'{kernel}-decomposed-{density}', f'{kernel}-{mode}-{density}')
                            for density in self.densities
                        ],
                    )
        if {'dense', 'sparse'} <= set(self.densities):
            yield (
                'sparse and wide over dense and narrow',
                [
                    (f'{kernel}-{mode}-sparse', f'{kernel}-{mode}-dense')
                    for kernel, mode in itertools.product(self.kernels, self.modes)
                ],
            )


#: The networks of ``tools/analysis/camvid_study.py``, and another one to compare them with.
CAMVID = Grid(
    sets=dict(camvid='CamVid at 240 x 180'),
    kernels=[7, 31, 51],
    modes=list(MODES),
    densities=dict(dense='narrow', sparse='wide'),
)
CAMVID_PEER = 'camvid-convnext'


def score_table(scores: Scores, grid: Grid, title: str) -> Table:
    """Make the table of mean scores."""
    table = Table(title=f'{title}; mean ± standard deviation (seeds)')
    for column in ('data', 'density', 'mode'):
        table.add_column(column)
    for kernel in grid.kernels:
        table.add_column(f'{kernel} x {kernel}', justify='right')
    for data, density, mode in itertools.product(grid.sets, grid.densities, grid.modes):
        cells = [
            summary(scores.get(grid.name(data, kernel, mode, density), {}))
            for kernel in grid.kernels
        ]
        table.add_row(data, f'{density}, {grid.densities[density]}', mode, *cells)
    return table


def summary(by_seed: Mapping[int, float]) -> str:
    """Return mean, standard deviation and number of the scores of a network, or a dash."""
    if not by_seed:
        return '-'
    mean, spread = mean_and_spread(by_seed.values())
    # A single score has no deviation.
    deviation = f' ± {spread:.2f}' if len(by_seed) > 1 else ''
    return f'{mean:.2f}{deviation} ({len(by_seed)})'


class Comparable(Protocol):
    """The networks of a study that can be compared."""

    sets: dict[str, str]

    def comparisons(self) -> Iterable[tuple[str, list[tuple[str, str]]]]:
        """Yield a description, and pairs of networks without data."""


def difference_table(scores: Scores, grid: Comparable) -> Table:
    """Make the table of differences between two networks of the same seed."""
    table = Table(
        'compared with the same seed',
        title='Difference in mIoU: mean ± standard error (pairs in favour)',
    )
    for data in grid.sets:
        table.add_column(data, justify='right')
    for what, pairs in grid.comparisons():
        cells = []
        for data in grid.sets:
            named = [(f'{data}-{first}', f'{data}-{second}') for first, second in pairs]
            values = paired_differences(scores, named)
            if values:
                mean, spread = mean_and_spread(values)
                error = spread / len(values) ** 0.5
                better = sum(value > 0 for value in values)
                cells.append(f'{mean:+.2f} ± {error:.2f} ({better} of {len(values)})')
            else:
                cells.append('-')
        table.add_row(what, *cells)
    return table


def draw(
    scores: Scores, grid: Grid, path: Path, title: str, lines_at: Mapping[str, float] | None = None
) -> None:
    """Draw the means over kernel sizes, with a panel for each dataset and density.

    Args:
        scores (dict): Scores by name and seed.
        grid (Grid): The networks.
        path (Path): PNG file to write.
        title (str): Title of the figure.
        lines_at (dict[str, float], optional): Names and mean scores of other networks, drawn as
            horizontal lines in the panels of dense networks.
    """
    figure, panels = plt.subplots(
        len(grid.sets),
        len(grid.densities),
        figsize=(1 + 3.8 * len(grid.densities), 1.2 + 2.6 * len(grid.sets)),
        sharex=True,
        sharey='row',
        squeeze=False,
        layout='constrained',
    )
    lines = {}
    positions = itertools.product(enumerate(grid.sets), enumerate(grid.densities))
    for (row, data), (column, density) in positions:
        panel = panels[row, column]
        lines |= _draw_panel(panel, scores, grid, data, density)
        if density == 'dense':
            for name, score in (lines_at or {}).items():
                lines[name] = panel.axhline(score, color='0.4', linestyle='--', linewidth=1)
        if column == 0:
            panel.set_ylabel('mIoU, %')
    figure.legend(lines.values(), lines.keys(), loc='outside lower center', ncols=len(lines))
    for panel in panels[-1]:
        panel.set_xlabel('kernel of the first stage')
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _draw_panel(panel, scores: Scores, grid: Grid, data: str, density: str) -> dict:
    """Draw mean, standard deviation and values of each mode, and return the lines by mode."""
    lines = {}
    for shift, (mode, marker) in enumerate(zip(MODES, 'osD', strict=True)):
        found = [
            (i, scores.get(grid.name(data, k, mode, density))) for i, k in enumerate(grid.kernels)
        ]
        # Modes are drawn next to each other.
        found = [(i + 0.06 * (shift - 1), list(by.values())) for i, by in found if by]
        if not found:
            continue
        summaries = [mean_and_spread(values) for _, values in found]
        colour = f'C{shift}'
        lines[mode] = panel.errorbar(
            [x for x, _ in found],
            [mean for mean, _ in summaries],
            [spread for _, spread in summaries],
            marker=marker,
            capsize=3,
            color=colour,
        )
        for x, values in found:
            panel.plot([x] * len(values), values, '.', color=colour, alpha=0.4, markersize=5)
    panel.set_title(f'{grid.sets[data]}, {density}, {grid.densities[density]}', fontsize=10)
    panel.set_xticks(range(len(grid.kernels)), [f'{k} x {k}' for k in grid.kernels])
    panel.set_xlim(-0.3, len(grid.kernels) - 0.7)
    panel.grid(alpha=0.3)
    return lines


def report(
    scores: Scores, grid: Grid, folder: Path, console: Console, table_title: str, title: str
) -> None:
    """Print both tables, and write them with the scores and the figure.

    Args:
        scores (dict): Scores by name and seed.
        grid (Grid): The networks.
        folder (Path): Directory of ``scores.md``, ``scores.json`` and ``kernel_study.png``.
        console (Console): Where to print.
        table_title (str): Title of the table of scores.
        title (str): Title of the figure.
    """
    tables = [score_table(scores, grid, table_title), difference_table(scores, grid)]
    for table in tables:
        console.print(table)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'scores.json').write_text(json.dumps(scores, indent=2) + '\n')
    (folder / 'scores.md').write_text('\n'.join(map(markdown_table, tables)))
    draw(scores, grid, folder / 'kernel_study.png', title)
    console.print(f'written to {folder}: scores.md, scores.json, kernel_study.png')
