"""What the command lines share: clear errors, progress with the time left, tables."""

import functools
import os
import sys
import warnings
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table


def guarded(main: Callable) -> Callable:
    """Turn errors that the user can correct into one message without a traceback.

    ``ValueError``, ``FileNotFoundError`` and ``ImportError`` end the process with exit code 2, an
    interruption by the keyboard with 130. ``MMSLAK_TRACEBACK=1`` shows the traceback.

    Args:
        main (Callable): The main function of a command line.

    Returns:
        Callable: The same function with this handling of errors.
    """

    @functools.wraps(main)
    def run_guarded(*args):
        warnings.filterwarnings('ignore', category=UserWarning)
        warnings.filterwarnings('ignore', category=FutureWarning)
        warnings.filterwarnings('ignore', category=DeprecationWarning)
        try:
            main(*args)
        except (ValueError, FileNotFoundError, ImportError) as error:
            if os.environ.get('MMSLAK_TRACEBACK'):
                raise
            print(f'error: {error}', file=sys.stderr)
            print('(MMSLAK_TRACEBACK=1 shows where)', file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print(
                '\ninterrupted; run the same command again, with --resume to continue a training',
                file=sys.stderr,
            )
            sys.exit(130)

    return run_guarded


def progress_bar(count: bool = True) -> Progress:
    """Make a bar with the time left, on standard error because results may go into a file.

    Args:
        count (bool): Show the number of finished items. Otherwise the percentage is shown, which
            suits items of different durations.
    """
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn() if count else TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def print_table(table: Table) -> None:
    """Print a table, in its full width where the output is not a terminal."""
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def table_text(table: Table, width: int = 120) -> str:
    """Render a table as plain text for a log, without empty lines and trailing blanks.

    Args:
        table (Table): The table.
        width (int): Largest number of characters of a line.

    Returns:
        str: One line for each row.
    """
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(table)
    return '\n'.join(line.rstrip() for line in capture.get().split('\n') if line.strip())
