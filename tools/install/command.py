"""The command line, and the order in which things are installed."""

import argparse
import os
import signal
import sys
import time

from . import REQUIREMENTS, ROOT, VENV, lock, stamp, wheelhouse
from .checks import InstallError, check_disk, find_compiler
from .display import Display, FixedProgress, SyncProgress, as_time
from .environment import Environment, remove
from .interpreter import choose, minor_of_venv, python_of_venv, with_headers
from .ninja import run_as_ninja
from .operators import install_mmcv
from .process import locked
from .uv import Uv

SMOKE = """
import importlib.util, pkg_resources
import mmdet, mmpretrain, mmseg, torch, torchvision
assert importlib.util.find_spec('mmslak'), 'mmslak is not found'
from mmcv import ops
box, score = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]]), torch.tensor([0.9, 0.8])
assert ops.nms(box, score, 0.5)[1].tolist() == [0], 'mmcv.ops.nms is wrong'
assert torchvision.ops.nms(box, score, 0.5).tolist() == [0], 'torchvision::nms is wrong'
"""


def install_pins(uv, environment):
    """Install exactly the packages of ``requirements/lock.txt``."""
    command = uv.pip('sync', environment)
    command += '--require-hashes --only-binary :all: --compile-bytecode'.split()
    environment.run(command + [REQUIREMENTS / 'lock.txt'], SyncProgress())


def install_project(uv, environment):
    """Install mmslak itself, editable."""
    command = uv.pip('install', environment)
    command += ['--no-deps', '--no-build-isolation', '--no-index', '--editable', ROOT]
    environment.run(command, FixedProgress('installing it'))


def check_installation(environment, wheel):
    """Import everything and run one compiled operator of mmcv and of torchvision."""
    command = [environment.python, '-W', 'ignore', '-c', SMOKE]
    try:
        environment.run(command, FixedProgress('importing everything'), cwd='/')
    except InstallError:
        raise InstallError(
            'the installed packages do not work together (the last lines are above): remove %s and '
            'run make install again, which starts from scratch' % wheel
        ) from None


def install_packages(uv, interpreter, complete, display):
    """Carry out the numbered steps.

    Args:
        uv (Uv): makes the environment and installs the packages.
        interpreter (Interpreter): the Python of the environment.
        complete (bool): whether an environment of this Python is there, with other pins.
        display (Display): shows the steps.
    """
    if complete:
        display.step('environment: updating the one that is there', '1 s')
    else:
        display.step('environment', '5 s')
        remove(VENV)
        uv.make_venv(VENV, interpreter)
    display.done()
    with Environment(VENV, uv.env, display) as environment:
        torch, others = stamp.pinned_version('torch', ROOT), stamp.count_pins(ROOT) - 1
        display.step(
            'torch %s and %d other packages, 3 GB to download unless uv has them' % (torch, others),
            '10 s to 2 min' if complete else '1 to 2 min',
        )
        install_pins(uv, environment)
        display.done()
        wheel = install_mmcv(uv, interpreter, environment)
        display.step('mmslak itself', '5 s')
        install_project(uv, environment)
        display.done()
        display.step('trying it out', '20 s')
        check_installation(environment, wheel)
        display.done()


def install(request):
    """Bring ``.venv`` up to date.

    Args:
        request (str): the Python to use, as for ``interpreter.choose``, or None.
    """
    display = Display()
    uv = Uv(os.environ, display)
    with locked(ROOT / '.install.lock', display, str(ROOT)):
        up_to_date = stamp.is_up_to_date(ROOT, minor_of_venv(VENV))
        if request or not up_to_date:
            interpreter = choose(request, VENV, uv, display.say)
            up_to_date = up_to_date and interpreter == python_of_venv(VENV)
        if up_to_date:
            display.say('make install: .venv is up to date')
            return
        uv.python = interpreter.path
        torch_version = stamp.pinned_version('torch', ROOT)
        house = wheelhouse.directory_for(interpreter, os.environ, torch_version)
        compiled = wheelhouse.has_wheel(house)
        if not compiled:
            find_compiler(os.environ)
            interpreter = with_headers(interpreter, request, uv)
        complete = stamp.is_complete(VENV) and interpreter == python_of_venv(VENV)
        if not complete:
            check_disk(ROOT)
            check_disk(uv.cache_directory())

        display.say(
            'Installing mmslak into %s with Python %s: about %s'
            % (VENV, interpreter.number, '2 to 3 min' if compiled else '6 to 8 min')
        )
        stamp.remove(ROOT)
        install_packages(uv, interpreter, complete, display)
        stamp.write(ROOT, interpreter.minor)
        display.say('Installed in %s.' % as_time(time.monotonic() - display.began))


def stop(signum, frame):
    """End as Ctrl-C does, so that child processes are ended too."""
    raise KeyboardInterrupt


def make_parser():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='python3 tools/install',
        description='Install mmslak and everything it needs, pinned, into .venv (make install).',
        epilog='MMSLAK_WHEELHOUSE=DIR moves the directory for compiled mmcv wheels from '
        '~/.cache/mmslak/wheelhouse.',
    )
    parser.add_argument(
        '--python',
        metavar='PYTHON',
        help='the Python to use: a version such as 3.12, which uv downloads if needed, a program '
        'or its path; default: that of .venv, else the running one',
    )
    parser.add_argument(
        '--lock',
        action='store_true',
        help='renew requirements/lock.txt instead of installing (make lock)',
    )
    parser.add_argument(
        '--upgrade', action='store_true', help='with --lock: take the newest versions'
    )
    return parser


def main(arguments):
    """Run the command line; return the exit status."""
    if arguments[:1] == ['--ninja']:  # only called while mmcv is built
        run_as_ninja(arguments[1:])
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.upgrade and not options.lock:
        parser.error('--upgrade needs --lock')
    target = 'make lock' if options.lock else 'make install'
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    try:
        if options.lock:
            lock.renew(Uv(os.environ, Display()), options.upgrade)
        else:
            install(options.python)
    except InstallError as error:
        print('%s: %s' % (target, error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\n%s: interrupted; run it again to continue' % target, file=sys.stderr)
        return 130
    return 0
