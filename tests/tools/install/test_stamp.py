"""Whether there is something to do."""

import sys
import time

import pytest
from install import stacks, stamp
from stand_ins import MINOR, PYTHON, calls, fake_python, run


def is_up_to_date(root, python_version, stack='openmmlab'):
    """Return whether the environment of a stack is up to date."""
    return stamp.is_up_to_date(stacks.get(stack, root), python_version)


@pytest.mark.parametrize('version', [PYTHON, MINOR])
def test_nothing_to_do_is_quick_and_changes_nothing(installed, machine_with_uv, version):
    """uv writes no more than the minor version of a Python that it downloaded."""
    config = installed / '.venv' / 'pyvenv.cfg'
    text = config.read_text()
    config.write_text(text.replace(f'version_info = {PYTHON}', f'version_info = {version}'))

    def files():
        ignored = ('.install.lock', '__pycache__')
        return sorted(path for path in installed.rglob('*') if not set(ignored) & set(path.parts))

    before = files()
    began = time.monotonic()
    status, output, errors = run(installed, machine_with_uv)
    assert time.monotonic() - began < 1
    assert status == 0, errors
    assert 'up to date' in output
    assert files() == before
    assert calls(machine_with_uv) == []


@pytest.mark.parametrize('version', [PYTHON, MINOR])
def test_the_same_python_asked_for_again(installed, machine_with_uv, version):
    config = installed / '.venv' / 'pyvenv.cfg'
    text = config.read_text()
    config.write_text(text.replace(f'version_info = {PYTHON}', f'version_info = {version}'))
    status, output, errors = run(installed, machine_with_uv, '--python', sys.executable)
    assert status == 0, errors
    assert 'up to date' in output


def test_another_python_asked_for(installed, machine_with_uv, tmp_path):
    minor = 10 if MINOR != '3.10' else 12
    other = fake_python(tmp_path / 'python', (3, minor, 99))
    status, output, errors = run(installed, machine_with_uv, '--python', str(other))
    assert 'up to date' not in output
    assert status == 1
    assert 'C++ compiler' in errors  # there is no wheel for that Python
    assert is_up_to_date(installed, MINOR)


def test_another_python_of_the_same_version_asked_for(installed, machine_with_uv, tmp_path):
    other = fake_python(tmp_path / 'python', sys.version_info[:3])
    status, _, errors = run(installed, machine_with_uv, '--python', str(other))
    assert status == 0, errors
    assert any(call.startswith(f'venv --python {other}') for call in calls(machine_with_uv))


@pytest.mark.parametrize(
    'name',
    [
        'requirements/lock.txt',
        'requirements/mmcv.txt',
        'tools/install/operators.py',
        'tools/install/__init__.py',
        'setup.py',
    ],
)
def test_a_changed_file_counts(installed, name):
    assert is_up_to_date(installed, MINOR)
    with (installed / name).open('a') as file:
        file.write('# changed\n')
    assert not is_up_to_date(installed, MINOR)


def test_only_the_pins_of_the_stack_count(installed):
    with (installed / 'requirements' / 'onedl' / 'lock.txt').open('a') as file:
        file.write('# changed\n')
    assert is_up_to_date(installed, MINOR)


def test_another_stack_counts(installed):
    (installed / '.venv').rename(installed / '.venv-onedl')
    assert not is_up_to_date(installed, MINOR)
    assert not is_up_to_date(installed, MINOR, 'onedl')


def test_another_python_counts(installed):
    assert not is_up_to_date(installed, '3.9')


def test_only_the_version_of_the_package_counts(installed):
    init = installed / 'mmslak' / '__init__.py'
    init.write_text("import os\n\n__version__ = '0.1.0'\n")
    assert is_up_to_date(installed, MINOR)
    init.write_text("__version__ = '0.2.0'\n")
    assert not is_up_to_date(installed, MINOR)


def test_an_interrupted_run_counts(installed):
    stamp.remove(stacks.get(root=installed))
    assert not stamp.is_complete(installed / '.venv')
    assert not is_up_to_date(installed, MINOR)


def test_a_python_that_is_gone_counts(installed):
    python = installed / '.venv' / 'bin' / 'python'
    python.unlink()
    python.symlink_to('/nowhere/python')
    assert not is_up_to_date(installed, MINOR)


def test_a_moved_checkout_counts(installed):
    moved = installed.rename(installed.with_name('elsewhere'))
    assert not is_up_to_date(moved, MINOR)
