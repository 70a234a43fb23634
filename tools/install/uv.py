"""uv: found on the PATH, or else fetched with pip."""

import ast
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from . import REQUIREMENTS
from .checks import InstallError
from .process import ask, clean_environment, locked

OLDEST = (0, 9, 8)  # the first with `uv pip compile --excludes`
FILE = REQUIREMENTS / 'uv.txt'

# uv does not read pip's settings. These decide how the index is reached, so uv gets them too.
SAME_AS_PIP = {
    'index-url': 'UV_DEFAULT_INDEX',
    'trusted-host': 'UV_INSECURE_HOST',
    'cert': 'SSL_CERT_FILE',
    'proxy': 'ALL_PROXY',
}


def pinned_version():
    """Return the version of uv that ``requirements/uv.txt`` pins."""
    return re.search(r'^uv==([\d.]+)', FILE.read_text(encoding='utf-8'), re.MULTILINE).group(1)


def version_of(program, env):
    """Return the version of uv that ``program`` starts, as a tuple of int, or None."""
    status, output, _ = ask([program, '--version'], env)
    found = re.match(r'uv (\d+)\.(\d+)\.(\d+)', output)
    return tuple(map(int, found.groups())) if found and not status else None


def settings_of_pip(env, python):
    """Return the user's settings of pip as a dict, from its files and environment variables."""
    _, output, _ = ask([python, '-m', 'pip', 'config', 'list'], env)
    sections = ['global', 'install', ':env:']  # the later, the stronger
    found = re.findall(r"^(global|install|:env:)\.([\w-]+)=('.*'|\".*\")$", output, re.MULTILINE)
    found.sort(key=lambda setting: sections.index(setting[0]))
    return {name: ' '.join(ast.literal_eval(value).split()) for _, name, value in found}


def share_index(env, python):
    """Add to ``env`` what makes uv and pip reach the same index, whichever was configured.

    Args:
        env (dict): environment variables.
        python (str): a Python that may have pip.
    """
    for name, value in settings_of_pip(env, python).items():
        if name in SAME_AS_PIP:
            env.setdefault(SAME_AS_PIP[name], value)
    index = env.get('UV_DEFAULT_INDEX') or env.get('UV_INDEX_URL')
    if index:  # perhaps NAME=URL
        env.setdefault('PIP_INDEX_URL', re.sub(r'^[\w.-]+=', '', index))


def last_reason(errors):
    """Return the innermost cause in what uv or pip printed, or its last line."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    causes = re.findall(r'^ *(?:cause|Caused by|error|ERROR): (.*)$', errors, re.MULTILINE)
    return (causes or lines or ['no output'])[-1]


def python_of_pyenv(version, environ):
    """Return the path of the newest Python of a version that pyenv has installed, or None.

    The programs that pyenv puts on the PATH start only the versions that the user has activated.

    Args:
        version (str): for example ``'3.12'``.
        environ (mapping): the environment variables.
    """
    versions = Path(environ.get('PYENV_ROOT') or '~/.pyenv').expanduser() / 'versions'
    found = []
    for program in versions.glob('*/bin/python'):
        number = program.parent.parent.name
        if re.match(r'\d+(\.\d+)*$', number) and (number + '.').startswith(version + '.'):
            found.append(([int(part) for part in number.split('.')], str(program)))
    return max(found)[1] if found else None


class Uv:
    """Runs uv, and fetches it first if it is needed and not there.

    Args:
        environ (mapping): the caller's environment variables.
        display (Display): shows what is being fetched.
    """

    def __init__(self, environ, display):
        self.environ = environ
        self.display = display
        self.python = sys.executable  # whose pip is used
        self._env = None
        self._program = None

    @property
    def env(self):
        """The environment variables for uv and pip."""
        if self._env is None:
            self._env = clean_environment(self.environ)
            share_index(self._env, self.python)
        return self._env

    @property
    def program(self):
        """The path of uv."""
        if self._program is None:
            self._program = self.find() or self.fetch()
        return self._program

    def find(self):
        """Return uv from the PATH if it is new enough, else None."""
        program = shutil.which('uv', path=self.environ.get('PATH', os.defpath))
        version = version_of(program, self.env) if program else None
        return program if version and version >= OLDEST else None

    def fetch(self):
        """Return the pinned uv, installed with pip into a directory of its own in ~/.cache."""
        if self.python == sys.executable and sys.version_info < (3, 8):
            raise InstallError('uv is not on the PATH, and this Python is too old to download it')
        directory = Path('~/.cache/mmslak').expanduser() / ('uv-' + pinned_version())
        program = directory / 'bin' / 'uv'
        with locked(directory.parent / '.uv.lock', self.display, str(directory)):
            if not os.access(str(program), os.X_OK):
                stale = list(directory.parent.glob(directory.name + '-*'))  # of killed runs
                for each in [directory] + stale:
                    shutil.rmtree(str(each), ignore_errors=True)
                self.display.say(
                    'downloading uv %s into %s (18 MB)' % (pinned_version(), directory)
                )
                with tempfile.TemporaryDirectory(
                    prefix=directory.name + '-', dir=str(directory.parent)
                ) as work:
                    self.install_with_pip(Path(work) / 'uv', Path(work) / 'venv')
                    os.replace(str(Path(work) / 'uv'), str(directory))
        return str(program)

    def install_with_pip(self, target, venv):
        """Install the pinned uv into the directory ``target``.

        Args:
            target (Path): a directory that does not exist.
            venv (Path): where an environment may be made if this Python has no pip.
        """
        python = self.python
        if ask([python, '-m', 'pip', '--version'], self.env)[0]:
            python = str(venv / 'bin' / 'python')
            if ask([self.python, '-m', 'venv', venv], self.env)[0]:
                raise InstallError(
                    'uv is not on the PATH, and Python at %s has neither pip nor venv to fetch it: '
                    'install pip or uv (Debian and Ubuntu: apt-get install python3-pip) and run '
                    'make install again' % self.python
                )
        options = '--no-deps --only-binary :all: --require-hashes --progress-bar off'.split()
        command = [python, '-m', 'pip', 'install', '--target', target, '-r', FILE] + options
        status, _, errors = ask(command, self.env)
        if status:
            raise InstallError(
                'uv is not on the PATH, and pip of Python at %s cannot fetch it (%s): check the '
                'network and pip, or install uv, and run make install again'
                % (self.python, last_reason(errors))
            )

    def find_python(self, request):
        """Return the path of a Python; uv downloads it if it is not on this machine.

        Args:
            request (str): what uv accepts, for example ``'3.12'`` or ``'>=3.10,<3.13'``.
        """
        status, output, _ = ask([self.program, 'python', 'find', request], self.env)
        if not status:
            return output.strip()
        return python_of_pyenv(request, self.environ) or self.install_python(request)

    def install_python(self, request):
        """Return the path of a Python that uv downloads, unless it did so before."""
        self.display.say('downloading Python %s with uv' % request)
        install = [self.program, 'python', 'install', '--no-bin', request]
        find = [self.program, 'python', 'find', '--managed-python', request]
        for command in install, find:
            status, output, errors = ask(command, self.env)
            if status:
                raise InstallError(
                    'uv cannot provide Python %s: %s' % (request, last_reason(errors))
                )
        return output.strip()

    def make_venv(self, venv, interpreter):
        """Make an empty environment."""
        command = [self.program, 'venv', '--python', interpreter.path, venv]
        status, _, errors = ask(command, self.env)
        if status:
            raise InstallError('uv cannot make %s: %s' % (venv, last_reason(errors)))

    def pip(self, command, environment):
        """Return the words that run ``uv pip COMMAND`` on an Environment."""
        return [self.program, 'pip', command, '--python', environment.python]

    def cache_directory(self):
        """Return the directory where uv keeps what it downloads."""
        return Path(ask([self.program, 'cache', 'dir'], self.env)[1].strip())
