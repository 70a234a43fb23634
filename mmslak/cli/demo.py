"""What the demos share: sample data, training, testing, the choice of pictures, and tables."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ..sample_data import write_sample_data
from .run import run

#: Number of validation images on a sheet of pictures.
PICTURES = 8
#: Columns of a sheet of pictures.
CAPTIONS = ('image', 'truth', 'prediction')


def parse_args(description: str, work_dir: str) -> argparse.Namespace:
    """Parse the command line of a demo.

    Args:
        description (str): Description for ``--help``.
        work_dir (str): Default of ``--work-dir``.

    Returns:
        Namespace: Paths ``data`` and ``work_dir``.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        '--data', type=Path, default=Path('data/sample'), help='directory of the sample data'
    )
    parser.add_argument(
        '--work-dir', type=Path, default=Path(work_dir), help='directory of the results'
    )
    return parser.parse_args()


def make_scenes(root: Path, console: Console) -> None:
    """Write the sample data unless it is there already, and print the number of scenes."""
    data = write_sample_data(root)
    scenes = sum(data.counts['ADE20K'].values())
    console.print(f'{scenes} scenes {"made" if data.written else "already there"} in {root}')


def train(config: str, data_root: Path, work_dir: Path) -> str:
    """Train a config, and return its best checkpoint."""
    options = ['--cfg-options', f'data_root={data_root}']
    return run('train', [config, '--work-dir', str(work_dir), *options])['best_ckpt']


def test(
    config: str, checkpoint: str, data_root: Path, work_dir: Path, out: Path | None = None
) -> dict[str, float]:
    """Test a checkpoint, and return its scores.

    Args:
        config (str): Config file.
        checkpoint (str): Checkpoint, or ``none`` for the untrained network.
        data_root (Path): Directory of the data.
        work_dir (Path): Directory for logs.
        out (Path, optional): Where predictions are written, as in ``tools/test.py --out``.
    """
    arguments = [config, checkpoint, '--work-dir', str(work_dir)]
    if out is not None:
        arguments += ['--out', str(out)]
    return run('test', [*arguments, '--cfg-options', f'data_root={data_root}'])


def choose_pictures(items: Sequence) -> list:
    """Choose ``PICTURES`` items at equal distances, so that good ones cannot be picked by hand."""
    return list(items[:: max(1, len(items) // PICTURES)][:PICTURES])


def number_table(
    title: str, first: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]
) -> Table:
    """Make a table of numbers.

    Args:
        title (str): Title.
        first (str): Head of the first column.
        columns (Sequence[str]): Heads of the columns of numbers.
        rows (Mapping[str, Sequence[str]]): Name of each row and its formatted numbers.

    Returns:
        Table: The table, with numbers aligned on the right.
    """
    table = Table(first, box=SIMPLE, title=title)
    for column in columns:
        table.add_column(column, justify='right')
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def print_files(console: Console, sheet: Path, checkpoints: Sequence[str]) -> None:
    """Print where the sheet of pictures and the checkpoints are."""
    console.print(f'Image, truth and prediction of {PICTURES} scenes: {sheet}')
    for checkpoint in checkpoints:
        console.print(f'Checkpoint: {checkpoint}')
