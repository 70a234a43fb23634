"""The command ``mmslak`` with its subcommands; ``python -m mmslak`` runs it, too."""

import argparse
import functools
import sys

from . import __version__
from .cli.browse import main as browse
from .cli.processes import ending_at_once
from .cli.run import run
from .console import guarded
from .predict.predict_command import main as predict
from .report.report_command import main as report
from .web.web_command import main as web

_run = ending_at_once(guarded(run, debug='add --debug'))

#: Subcommand -> a function that reads its arguments from ``sys.argv``, and what it does.
COMMANDS = {
    'train': (functools.partial(_run, 'train'), 'train a config'),
    'test': (functools.partial(_run, 'test'), 'evaluate a checkpoint'),
    'browse': (browse, 'draw samples of the data of a config with their labels'),
    'predict': (predict, 'predict for images and videos'),
    'report': (report, 'write a report of a training as one HTML file'),
    'web': (web, 'show predictions and effective receptive fields in the browser'),
}
_DESCRIPTION = """SLaK for OpenMMLab.

{commands}

CONFIG is a file, a config of this package such as upernet_slak_nano_camvid or
mmslak::upernet_slak_nano_camvid, or one of a toolbox such as
mmpretrain::resnet/resnet50_8xb32_in1k.py.
"""


def main() -> None:
    """Run the subcommand that the command line names."""
    commands = '\n'.join(f'  mmslak {name:<8} {text}' for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog='mmslak',
        description=_DESCRIPTION.format(commands=commands),
        epilog='mmslak COMMAND --help lists the arguments of a command.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=__version__)
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND', help=', '.join(COMMANDS))
    command = parser.parse_args(sys.argv[1:2]).command
    # Each command has a parser of its own, which shows this name.
    sys.argv = [f'mmslak {command}', *sys.argv[2:]]
    COMMANDS[command][0]()


if __name__ == '__main__':
    main()
