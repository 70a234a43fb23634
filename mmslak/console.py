"""Error messages, progress bars and tables of the command lines."""

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

#: Environment variable that shows the traceback of an error.
TRACEBACK = 'MMSLAK_TRACEBACK'


def guarded(main: Callable, debug: str = f'set {TRACEBACK}=1') -> Callable:
    """Show errors that the user can correct as one message without a traceback.

    ``ValueError``, ``OSError`` and ``ImportError`` end the process with exit code 2, and
    a keyboard interrupt ends it with 130. With ``MMSLAK_TRACEBACK=1`` the traceback is shown.
    Warnings that the user cannot act on are hidden.

    Args:
        main (Callable): The main function of a command line.
        debug (str): How the user can see the traceback, for the message.

    Returns:
        Callable: The function with this error handling.
    """

    @functools.wraps(main)
    def run_guarded(*args):
        warnings.filterwarnings('ignore', category=UserWarning)
        warnings.filterwarnings('ignore', category=FutureWarning)
        warnings.filterwarnings('ignore', category=DeprecationWarning)
        try:
            main(*args)
        except (ValueError, OSError, ImportError) as error:
            if os.environ.get(TRACEBACK):
                raise
            print(f'error: {_message(error)}', file=sys.stderr)
            print(f'({debug} to see the traceback)', file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print(
                '\ninterrupted; to continue a training, run the same command with --resume',
                file=sys.stderr,
            )
            sys.exit(130)

    return run_guarded


def _message(error: Exception) -> str:
    """Return the message of an error, without the traceback that a worker process adds."""
    _, in_worker, text = str(error).partition('Original Traceback (most recent call last):\n')
    if not in_worker:
        return str(error)
    # The frames are indented. The name of the error and its message follow.
    lines = text.rstrip().splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith('  ')) + 1
    return '\n'.join(lines[last:]).partition(': ')[2] or lines[-1]


def progress_bar(count: bool = True) -> Progress:
    """Return a progress bar with the time left, on standard error to keep standard output clean.

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
    """Print a table. If the output is not a terminal, lines have up to 200 characters."""
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def table_text(table: Table, width: int = 120) -> str:
    """Render a table as plain text for a log, without empty lines and trailing spaces.

    Args:
        table (Table): The table.
        width (int): Largest number of characters in a line.

    Returns:
        str: The lines of the table.
    """
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(table)
    return '\n'.join(line.rstrip() for line in capture.get().split('\n') if line.strip())
