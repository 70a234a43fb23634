"""The command line, and the order in which things are installed."""

import argparse
import os
import re
import signal
import sys
import time

from . import ROOT, lock, matrix, stacks, stamp, wheelhouse
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


def install_pins(uv, stack, environment):
    """Install exactly the packages of the lock file of a stack."""
    command = uv.pip('sync', environment)
    command += ['--require-hashes'] + stack.build_options + ['--compile-bytecode', stack.lock_file]
    environment.run(command, SyncProgress())


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


def install_packages(uv, stack, interpreter, complete, display):
    """Carry out the numbered steps.

    Args:
        uv (Uv): makes the environment and installs the packages.
        stack (Stack): what to install, and where.
        interpreter (Interpreter): the Python of the environment.
        complete (bool): whether an environment of this Python is there, with other pins.
        display (Display): shows the steps.
    """
    if complete:
        display.step('environment: updating the one that is there', '1 s')
    else:
        display.step('environment', '5 s')
        remove(stack.venv)
        uv.make_venv(stack.venv, interpreter)
    display.done()
    with Environment(stack.venv, uv.env, display) as environment:
        torch, others = stack.pinned_version('torch'), len(stack.pinned_names) - 1
        display.step(
            'torch %s and %d other packages, 3 GB to download unless uv has them' % (torch, others),
            '10 s to 2 min' if complete else '1 to 2 min',
        )
        install_pins(uv, stack, environment)
        display.done()
        wheel = install_mmcv(uv, stack, interpreter, environment)
        display.step('mmslak itself', '5 s')
        install_project(uv, environment)
        display.done()
        display.step('trying it out', '20 s')
        check_installation(environment, wheel)
        display.done()


def install(stack, request):
    """Bring the environment of a stack up to date.

    Args:
        stack (Stack): what to install, and where.
        request (str): the Python to use, as for ``interpreter.choose``, or None.
    """
    display = Display()
    uv = Uv(os.environ, display)
    with locked(ROOT / '.install.lock', display, str(ROOT)):
        up_to_date = stamp.is_up_to_date(stack, minor_of_venv(stack.venv))
        if request or not up_to_date:
            interpreter = choose(request, stack.venv, uv, display.say)
            up_to_date = up_to_date and interpreter == python_of_venv(stack.venv)
        if up_to_date:
            display.say('make install: %s is up to date' % stack.venv.name)
            return
        uv.python = interpreter.path
        house = wheelhouse.directory_for(interpreter, os.environ, stack)
        compiled = wheelhouse.has_wheel(house, stack.mmcv_archive)
        if not compiled:
            find_compiler(os.environ)
            interpreter = with_headers(interpreter, request, uv)
        complete = stamp.is_complete(stack.venv) and interpreter == python_of_venv(stack.venv)
        if not complete:
            check_disk(ROOT)
            check_disk(uv.cache_directory())

        display.say(
            'Installing mmslak into %s with Python %s: about %s'
            % (stack.venv, interpreter.number, '2 to 3 min' if compiled else '6 to 8 min')
        )
        stamp.remove(stack)
        install_packages(uv, stack, interpreter, complete, display)
        stamp.write(stack, interpreter.minor)
        display.say('Installed in %s.' % as_time(time.monotonic() - display.began))


def stop(signum, frame):
    """End as Ctrl-C does, so that child processes are ended too."""
    raise KeyboardInterrupt


def environment_name(text):
    """Return the name of an environment, which is removed if it is replaced.

    Raises:
        argparse.ArgumentTypeError: if the name could be that of something else.
    """
    if not re.match(r'\.venv(-[\w.-]+)?$', text):
        raise argparse.ArgumentTypeError(
            '%r is not .venv, nor a name such as .venv-other: environments are directories in the '
            'checkout' % text
        )
    return text


def make_parser():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='python3 tools/install',
        description='Install mmslak and everything it needs, pinned (make install).',
        epilog='MMSLAK_WHEELHOUSE=DIR moves the directory for compiled mmcv wheels from '
        '~/.cache/mmslak/wheelhouse.',
    )
    parser.add_argument(
        '--python',
        metavar='PYTHON',
        help='the Python to use: a version such as 3.12, which uv downloads if needed, a program '
        'or its path; default: that of the environment, else the running one',
    )
    parser.add_argument(
        '--stack',
        choices=stacks.NAMES,
        default=stacks.NAMES[0],
        help='the toolboxes: those of OpenMMLab (default), or onedl, their maintained fork',
    )
    parser.add_argument(
        '--venv',
        metavar='NAME',
        type=environment_name,
        help='the environment, a directory in the checkout; default: .venv, or .venv-onedl for '
        '--stack onedl',
    )
    parser.add_argument(
        '--lock',
        action='store_true',
        help='renew the lock files instead of installing (make lock)',
    )
    parser.add_argument(
        '--test-matrix',
        nargs='*',
        metavar='TEST',
        help='run these tests, or all that are not slow, on every stack and Python and on the '
        'lowest torch, instead of installing (make test-matrix)',
    )
    parser.add_argument(
        '--only',
        nargs='+',
        default=[],
        metavar='NAME',
        help='with --test-matrix: only these combinations, such as onedl-3.12 or lowest',
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
    if options.only and options.test_matrix is None:
        parser.error('--only needs --test-matrix')
    target = 'make install'
    if options.lock or options.test_matrix is not None:
        target = 'make lock' if options.lock else 'make test-matrix'
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    try:
        if options.lock:
            lock.renew(Uv(os.environ, Display()), options.upgrade)
        elif options.test_matrix is not None:
            uv = Uv(os.environ, Display())
            return matrix.run(uv, os.environ, options.test_matrix, options.only)
        else:
            install(stacks.get(options.stack, venv=options.venv), options.python)
    except InstallError as error:
        print('%s: %s' % (target, error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\n%s: interrupted; run it again to continue' % target, file=sys.stderr)
        return 130
    return 0
