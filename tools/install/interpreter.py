"""Which Python the environment is made with."""

import collections
import json
import os
import shutil
import sys
from pathlib import Path

from .checks import InstallError
from .process import ask, clean_environment

SUPPORTED = ((3, 10), (3, 11), (3, 12))
ANY_SUPPORTED = '>=3.10,<3.13'  # the same for uv
NAMES = '3.10, 3.11 or 3.12'

# Old Pythons run this too, so that a message can name their version.
QUESTION = """
import json, os, sys, sysconfig
path = os.path.realpath(sys.executable)
include = os.path.realpath(sysconfig.get_path('include'))
print(json.dumps([path, sys.version_info[:3], sysconfig.get_platform(), include]))
"""


class Interpreter(collections.namedtuple('Interpreter', 'path version platform include')):
    """A Python on this machine.

    Attributes:
        path (str): the program, with symbolic links resolved: the one in ``.venv`` is a link, and
            ``.venv`` may be removed.
        version (tuple of int): three numbers.
        platform (str): for example ``'linux-x86_64'``.
        include (str): the directory for its C headers.
    """

    @property
    def number(self):
        """The version as text, for example ``'3.11.7'``."""
        return '.'.join(str(part) for part in self.version)

    @property
    def minor(self):
        """The version without its last number, for example ``'3.11'``."""
        return '%d.%d' % self.version[:2]

    @property
    def supported(self):
        """Whether the pinned packages support this version."""
        return self.version[:2] in SUPPORTED

    @property
    def has_headers(self):
        """Whether C extensions can be compiled for it; Debian packages the headers separately."""
        return Path(self.include, 'Python.h').is_file()

    def check_headers(self, reason=''):
        """Raise InstallError if C extensions cannot be compiled for it."""
        if not self.has_headers:
            raise InstallError(
                'Python.h is missing from %s, and mmcv must be compiled%s: install the headers '
                '(Debian and Ubuntu: apt-get install python%s-dev) and run make install again'
                % (self.include, reason, self.minor)
            )


def inspect(program):
    """Return the Interpreter that ``program`` starts, or None if it does not start.

    A program on the PATH may not start: version managers put stand-ins there.
    """
    command = [program, '-E', '-s', '-c', QUESTION]
    status, output, _ = ask(command, clean_environment(os.environ))
    try:
        path, version, platform, include = json.loads(output)
    except (ValueError, TypeError):
        return None
    return None if status else Interpreter(path, tuple(version), platform, include)


def inspect_found(program):
    """Return the Interpreter of a program that uv named.

    Raises:
        InstallError: if it does not start.
    """
    interpreter = inspect(program)
    if interpreter is None:
        raise InstallError('Python at %s does not start' % program)
    return interpreter


def read_venv_config(venv):
    """Return the settings in ``pyvenv.cfg`` as a dict, empty if there is no environment."""
    try:
        lines = (venv / 'pyvenv.cfg').read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:
        return {}
    pairs = [line.split('=', 1) for line in lines if '=' in line]
    return {key.strip(): value.strip() for key, value in pairs}


def minor_of_venv(venv):
    """Return the version of the Python of ``venv`` as ``Interpreter.minor`` has it, or ''.

    uv writes down no more of it for a Python that it downloaded, and updates such a Python without
    making the environment again.
    """
    config = read_venv_config(venv)
    version = config.get('version_info') or config.get('version') or ''  # of uv, of venv
    return '.'.join(version.split('.')[:2])


def python_of_venv(venv):
    """Return the Interpreter that ``venv`` was made with, or None if it is gone."""
    home = read_venv_config(venv).get('home', '')
    program = os.path.join(home, 'python' + minor_of_venv(venv))
    return inspect(program) if home and os.access(program, os.X_OK) else None


def choose(request, venv, uv, say):
    """Return the Interpreter to install with.

    Args:
        request (str): a version such as ``'3.12'``, a program or its path, or None. Without a
            request an existing environment keeps its Python; a new one gets the running Python if
            it is supported, else one that uv finds or downloads.
        venv (Path): the environment.
        uv (Uv): finds and downloads Pythons.
        say (callable): prints a line.

    Raises:
        InstallError: if there is no supported Python, or the requested one is not supported.
    """
    if request:
        program = shutil.which(request)
        interpreter = inspect(program) if program else None
        if interpreter is None:
            try:
                interpreter = inspect_found(uv.find_python(request))
            except InstallError as error:
                raise InstallError(
                    'PYTHON=%s does not start any Python (%s); give another version or the path '
                    'of a Python %s' % (request, error, NAMES)
                ) from None
        if not interpreter.supported:
            raise InstallError(
                'mmslak needs Python %s, but PYTHON=%s is Python %s; run, for example: '
                'make install PYTHON=3.11' % (NAMES, request, interpreter.number)
            )
        return interpreter
    interpreter = python_of_venv(venv)
    if not (interpreter and interpreter.supported):
        interpreter = inspect(sys.executable)
    if interpreter.supported:
        return interpreter
    is_unsupported = '%s is Python %s' % (sys.executable, interpreter.number)
    try:
        interpreter = inspect_found(uv.find_python(ANY_SUPPORTED))
    except InstallError as error:
        raise InstallError(
            'mmslak needs Python %s, but %s, and no other was found (%s); install one of them and '
            'run, for example: make install PYTHON=python3.11' % (NAMES, is_unsupported, error)
        ) from None
    say('%s, which is not supported; using Python %s' % (is_unsupported, interpreter.number))
    return interpreter


def with_headers(interpreter, request, uv):
    """Return an Interpreter that C extensions can be compiled for.

    Without a request this may be another one of the same version, downloaded by uv.

    Raises:
        InstallError: if there is none.
    """
    reason = ''
    if not interpreter.has_headers and not request:
        try:
            interpreter = inspect_found(uv.install_python(interpreter.minor))
        except InstallError as error:
            reason = ' (%s)' % error
    interpreter.check_headers(reason)
    return interpreter
