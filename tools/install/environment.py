"""``.venv``: removed, and used to run commands in."""

import os
import shutil
import tempfile
from pathlib import Path

from .process import ask, clean_environment, run


def remove(venv):
    """Remove an environment; renamed first, so that no half of one keeps its name."""
    if venv.is_symlink():
        venv.unlink()
    elif venv.exists():
        doomed = Path(tempfile.mkdtemp(prefix='.venv-old-', dir=str(venv.parent)))
        os.replace(str(venv), str(doomed / 'venv'))
    for doomed in venv.parent.glob('.venv-old-*'):
        shutil.rmtree(str(doomed), ignore_errors=True)


class Environment:
    """Runs commands in ``.venv``; their output is in ``.venv/install.log``.

    Args:
        venv (Path): the environment.
        environ (mapping): the caller's environment variables.
        display (Display): shows the progress.
    """

    def __init__(self, venv, environ, display):
        self.display = display
        self.bin = venv / 'bin'
        self.python = self.bin / 'python'
        self.log = venv / 'install.log'
        # /tmp is often small, and what a killed run leaves here is removed together with .venv.
        self.tmp = venv / 'tmp'
        self.variables = clean_environment(environ)
        self.variables['PATH'] = '%s%s%s' % (
            self.bin,
            os.pathsep,
            environ.get('PATH', os.defpath),
        )
        self.variables['TMPDIR'] = str(self.tmp)

    def __enter__(self):
        shutil.rmtree(str(self.tmp), ignore_errors=True)
        self.tmp.mkdir()
        return self

    def __exit__(self, *exception):
        shutil.rmtree(str(self.tmp), ignore_errors=True)

    def run(self, command, progress, variables=None, cwd=None):
        """Run a command to its end and show its progress, as ``process.run`` does."""
        run(command, self.log, self.display, progress, variables or self.variables, cwd)

    def ask(self, command):
        """Run a short command; return (status, output, errors), as ``process.ask`` does."""
        return ask(command, self.variables)
