"""Renews ``requirements/lock.txt`` and ``requirements/uv.txt``; ``make lock`` runs this."""

import subprocess

from . import REQUIREMENTS, ROOT
from .checks import InstallError

OPTIONS = (
    # One file for every supported Python; the lowest is what counts for uv.
    '--universal --python-version 3.10 --generate-hashes --no-python-downloads --quiet '
    '--custom-compile-command'
).split() + ['make lock']


def renew(uv, upgrade):
    """Write the pins for what ``setup.py`` and ``requirements/lock.in`` ask for.

    Args:
        uv (Uv): does the work.
        upgrade (bool): take the newest versions, rather than keep those pinned already.
    """
    options = OPTIONS + ['--upgrade'] * upgrade
    sources = ['setup.py', '--all-extras', REQUIREMENTS / 'lock.in']
    sources += ['--excludes', REQUIREMENTS / 'not-locked.txt']
    compile_pins(uv, sources, 'lock.txt', options)
    compile_pins(uv, ['-'], 'uv.txt', options)
    uv.display.say('make lock: wrote requirements/lock.txt and requirements/uv.txt')


def compile_pins(uv, sources, name, options):
    """Run ``uv pip compile``; a source ``-`` stands for uv itself."""
    command = [uv.program, 'pip', 'compile'] + sources + options + ['-o', REQUIREMENTS / name]
    status = subprocess.run(
        [str(part) for part in command], input=b'uv', env=uv.env, cwd=str(ROOT)
    ).returncode
    if status:
        raise InstallError('uv cannot renew requirements/%s: its message is above' % name)
