"""Figures and tables of what trainings logged."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from rich.table import Table

from .curves import Scalars, Series, moving_average, read_scalars


def draw_series(
    panel,
    series: dict[str, Series],
    colours: dict[str, str],
    window: int | None,
) -> None:
    """Draw the values of every run as a thin line, and their moving average as a thick line."""
    for name, points in series.items():
        colour = colours[name]
        steps, values = zip(*points, strict=True)
        width = window or 2 * (len(values) // 20) + 1
        average = moving_average(values, width)
        raw = dict(alpha=0.35, linewidth=0.8) if width > 1 else dict(alpha=0, linewidth=0)
        panel.plot(steps, values, color=colour, marker='.', markersize=2, **raw)
        mark = 'o' if len(values) < 12 else ''
        panel.plot(
            steps, average, color=colour, linewidth=1.8, marker=mark, markersize=3.5, label=name
        )
    panel.grid(alpha=0.3)


def draw_runs(runs: dict[str, Scalars], loss: str, score: str | None, window: int | None) -> Figure:
    """Draw the loss of all runs, and in a second panel their score if there is one.

    Args:
        runs (dict[str, Scalars]): What each run logged, by name.
        loss (str): Name of a training scalar.
        score (str, optional): Name of a validation scalar.
        window (int, optional): Number of values in a moving average. Default: a tenth of them.

    Raises:
        ValueError: If no run has logged ``loss``, naming the scalars that the runs have.
    """
    losses = {name: run.training[loss] for name, run in runs.items() if loss in run.training}
    if not losses:
        found = sorted({key for run in runs.values() for key in run.training})
        raise ValueError(f'--loss {loss} is in none of the runs, which have: {", ".join(found)}')
    scores = {name: run.validation[score] for name, run in runs.items() if score in run.validation}
    # A run has the same colour in both panels, even if others appear in only one of them.
    colours = {name: f'C{number}' for number, name in enumerate(runs)}

    panels = 1 if score is None else 2
    figure, axes = plt.subplots(
        1, panels, figsize=(5.4 * panels, 4), squeeze=False, layout='constrained'
    )
    draw_series(axes[0, 0], losses, colours, window)
    axes[0, 0].set(xlabel='iteration', ylabel=loss, title='Training loss')
    if score is not None:
        draw_series(axes[0, 1], scores, colours, window)
        axes[0, 1].set(xlabel=_unit(runs, score), ylabel=score, title='Validation')
    # The legend is in the first panel, so it shows the lines of that panel where a run has one.
    lines = {line.get_label(): line for panel in axes[0, ::-1] for line in panel.get_lines()}
    drawn = [name for name in runs if name in lines]
    axes[0, 0].legend([lines[name] for name in drawn], drawn, fontsize=8)
    return figure


def _unit(runs: dict[str, Scalars], score: str) -> str:
    """Return what the steps of validations count: epochs if training logs epochs."""
    units = {
        'epoch' if 'epoch' in run.training else 'iteration'
        for run in runs.values()
        if score in run.validation
    }
    return ' or '.join(sorted(units))


def last_values(runs: dict[str, Scalars], loss_name: str, score: str | None) -> Table:
    """Make a table of the last loss of each run, and its last and best score."""
    headings = ['run', 'iterations', f'last {loss_name}']
    if score is not None:
        headings += [f'last {score}', f'best {score}']
    table = Table(*headings)
    for name, run in runs.items():
        loss = run.training.get(loss_name, [])
        cells = [str(loss[-1][0]), f'{loss[-1][1]:.4g}'] if loss else ['-', '-']
        if score is not None:
            values = [value for _, value in run.validation.get(score, [])]
            cells += [f'{values[-1]:.4g}', f'{max(values):.4g}'] if values else ['-', '-']
        table.add_row(name, *cells)
    return table


def sparsity_of(run: Scalars) -> dict[str, Series]:
    """Return what DynamicSparsityHook logged; empty for a dense training."""
    return {k: v for k, v in run.hooks.items() if k.startswith(('sparsity/', 'density/'))}


def read_sparsity(work_dir: Path) -> dict[str, Series]:
    """Read what DynamicSparsityHook logged in the runs of a work directory.

    Raises:
        FileNotFoundError: If no run has logged its sparsity.
    """
    series = sparsity_of(read_scalars(work_dir))
    if not series:
        raise FileNotFoundError(
            f'{work_dir} contains no run with DynamicSparsityHook (no sparsity in '
            '*/vis_data/scalars.json)'
        )
    return series


def draw_sparsity(series: dict[str, Series]) -> Figure:
    """Draw the updates of a training, the share of active weights, and the density of each layer.

    Args:
        series (dict[str, Series]): From :func:`read_sparsity`.
    """
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(15, 4.5), width_ratios=(1, 1, 1.4), layout='constrained'
    )
    if 'sparsity/rate' in series:
        left.plot(*zip(*series['sparsity/rate'], strict=True), color='tab:blue', label='rate')
        left.set(xlabel='iteration', ylabel='adaptation rate', title='Updates', ylim=(0, None))
        left.yaxis.label.set_color('tab:blue')
        moves = left.twinx()
        moves.plot(*zip(*series['sparsity/moves'], strict=True), color='tab:orange')
        moves.set(ylim=(0, None))
        moves.set_ylabel('weights moved', color='tab:orange')
        middle.plot(*zip(*series['sparsity/explored'], strict=True), label='ever active')
        middle.plot(*zip(*series['sparsity/density'], strict=True), label='active')
        middle.set(xlabel='iteration', title='Share of the weights', ylim=(0, 1.02))
        middle.legend()
    else:
        for panel in (left, middle):
            panel.text(0.5, 0.5, 'no updates: the masks are fixed', ha='center', va='center')
            panel.set_axis_off()
    densities = {
        name.removeprefix('density/'): points[-1][1]
        for name, points in series.items()
        if name.startswith('density/')
    }
    names = [name.removeprefix('backbone.').removesuffix('.weight') for name in densities]
    right.barh(range(len(names)), list(densities.values()), color='tab:green')
    right.invert_yaxis()
    right.set_yticks(range(len(names)), names, fontsize=max(2, min(7, 260 / len(names))))
    right.set(xlabel='density', title='Density of each layer', xlim=(0, 1))
    return figure
