"""Checks of the machine, made before anything is downloaded."""

import shutil
import subprocess
from pathlib import Path

MIN_FREE_GB = 7  # .venv takes 6.2 GB, and uv's cache shares its files with it


class InstallError(Exception):
    """Something the user can fix; the message says what, in one sentence."""


def find_compiler(environ, which=shutil.which):
    """Return the path of the C++ compiler: $CXX if set, else c++, g++ or clang++.

    Args:
        environ (mapping): the environment variables.
        which (callable): finds a program on the PATH.

    Raises:
        InstallError: if there is none, or it cannot compile an empty program.
    """
    remedy = 'install one (Debian and Ubuntu: apt-get install g++) and run make install again'
    wanted = environ.get('CXX')
    paths = [which(name) for name in ([wanted] if wanted else ['c++', 'g++', 'clang++'])]
    path = next((path for path in paths if path), None)
    if path is None and wanted:
        raise InstallError(
            'CXX is %r, which is not a program: set it to a C++ compiler or unset it' % wanted
        )
    if path is None:
        raise InstallError(
            'no C++ compiler (c++, g++ or clang++) is on the PATH, and mmcv must be compiled: '
            + remedy
        )
    trial = subprocess.run(
        [path, '-std=c++17', '-fsyntax-only', '-x', 'c++', '-'],
        input=b'#include <vector>\nint main() { return 0; }\n',
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if trial.returncode:
        raise InstallError(
            'the C++ compiler %s cannot compile an empty C++17 program: %s' % (path, remedy)
        )
    return path


def check_disk(directory, free_bytes=None):
    """Raise InstallError unless the disk that holds ``directory`` has room for the environment."""
    directory = Path(directory)
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(str(directory)).free if free_bytes is None else free_bytes
    if free < MIN_FREE_GB * 2**30:
        raise InstallError(
            'installing needs %d GB of free disk space, but %s has %.1f GB: free some space, or '
            'move the checkout (or the cache of uv, with UV_CACHE_DIR) to a larger disk'
            % (MIN_FREE_GB, directory, free / 2**30)
        )
