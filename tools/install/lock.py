"""Renews the lock file of each stack and ``requirements/uv.txt``; ``make lock`` runs this."""

import subprocess

from . import REQUIREMENTS, ROOT, stacks
from .checks import InstallError

OPTIONS = (
    # One file for every supported Python; the lowest is what counts for uv.
    '--universal --python-version 3.10 --generate-hashes --no-python-downloads --quiet '
    '--custom-compile-command'
).split() + ['make lock']


def renew(uv, upgrade):
    """Write the pins for what ``setup.py`` and the ``lock.in`` of each stack ask for.

    Args:
        uv (Uv): does the work.
        upgrade (bool): take the newest versions, rather than keep those pinned already.
    """
    options = OPTIONS + ['--upgrade'] * upgrade
    targets = []
    for stack in map(stacks.get, stacks.NAMES):  # the default first: the others follow its versions
        sources = ['setup.py', '--all-extras', stack.folder / 'lock.in']
        for folder in dict.fromkeys([REQUIREMENTS, stack.folder]):
            sources += ['--excludes', folder / 'not-locked.txt']
        targets.append((sources, stack.lock_file))
    targets.append((['-'], REQUIREMENTS / 'uv.txt'))
    for sources, file in targets:
        compile_pins(uv, sources, file, options)
    written = [str(file.relative_to(ROOT)) for _, file in targets]
    uv.display.say('make lock: wrote %s and %s' % (', '.join(written[:-1]), written[-1]))


def compile_pins(uv, sources, file, options):
    """Run ``uv pip compile``; a source ``-`` stands for uv itself."""
    command = [uv.program, 'pip', 'compile'] + sources + options + ['-o', file]
    status = subprocess.run(
        [str(part) for part in command], input=b'uv', env=uv.env, cwd=str(ROOT)
    ).returncode
    if status:
        raise InstallError('uv cannot renew %s: its message is above' % file.relative_to(ROOT))
