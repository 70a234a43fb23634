"""The installer as a package, and the checkouts and machines that its tests run on."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stand_ins import BASE_PYTHON, MINOR, PYTHON, uv_text, write_program

ROOT = Path(__file__).resolve().parents[3]


def load_package():
    """Import ``tools/install``, which is on no path."""
    directory = ROOT / 'tools' / 'install'
    spec = importlib.util.spec_from_file_location(
        'install', directory / '__init__.py', submodule_search_locations=[str(directory)]
    )
    sys.modules['install'] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules['install'])


load_package()


@pytest.fixture
def checkout(tmp_path):
    """The files that the installer reads, in a directory with a space and an accent in its name."""
    root = tmp_path / 'my chéckout'
    (root / 'mmslak').mkdir(parents=True)
    shutil.copytree(
        ROOT / 'tools' / 'install',
        root / 'tools' / 'install',
        ignore=shutil.ignore_patterns('__pycache__'),
    )
    shutil.copytree(ROOT / 'requirements', root / 'requirements')
    shutil.copy(ROOT / 'setup.py', root)
    shutil.copy(ROOT / 'Makefile', root)
    (root / 'mmslak' / '__init__.py').write_text("__version__ = '0.1.0'\n")
    return root


@pytest.fixture
def installed(checkout):
    """The same with an environment that looks complete."""
    from install import stacks, stamp

    (checkout / '.venv' / 'bin').mkdir(parents=True)
    (checkout / '.venv' / 'bin' / 'python').symlink_to(sys.executable)
    config = f'home = {Path(BASE_PYTHON).parent}\nversion_info = {PYTHON}\n'
    (checkout / '.venv' / 'pyvenv.cfg').write_text(config)
    stamp.write(stacks.get(root=checkout), MINOR)
    return checkout


@pytest.fixture(scope='session')
def python_without_pip(tmp_path_factory):
    """A Python that runs the installer quickly, because it has no pip to ask for its settings."""
    venv = tmp_path_factory.mktemp('venv')
    subprocess.check_call([sys.executable, '-m', 'venv', '--without-pip', venv])
    return str(venv / 'bin' / 'python')


@pytest.fixture
def machine(tmp_path, python_without_pip):
    """Environment variables of a machine with an empty home, without uv, compiler and network."""
    home, programs = tmp_path / 'home', tmp_path / 'bin'
    home.mkdir()
    programs.mkdir()
    unwanted = ('PIP_', 'UV_', 'XDG_', 'PYTHON', 'CXX')
    env = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {
        **env,
        'INSTALLER_PYTHON': python_without_pip,
        'HOME': str(home),
        'PATH': str(programs),
        'PIP_CONFIG_FILE': os.devnull,
        'PIP_NO_INDEX': '1',
        'UV_CALLS': str(tmp_path / 'uv-calls'),
        'MMSLAK_WHEELHOUSE': str(tmp_path / 'wheelhouse'),
    }


@pytest.fixture
def machine_with_wheel(machine):
    """The same with compiled operators in its wheelhouse, so that no compiler is needed."""
    from install import interpreter, stacks, wheelhouse

    python = interpreter.inspect(sys.executable)
    for stack in map(stacks.get, stacks.NAMES):
        house = wheelhouse.directory_for(python, machine, stack)
        house.mkdir(parents=True, exist_ok=True)
        (house / (stack.mmcv_archive + '-py3-none-any.whl')).touch()
    return machine


@pytest.fixture
def machine_with_uv(machine_with_wheel):
    """The same with uv on the PATH as well."""
    write_program(Path(machine_with_wheel['PATH']) / 'uv', uv_text())
    return machine_with_wheel
