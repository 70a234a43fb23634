"""The tests on every combination of stack and Python, with a stand-in for make."""

import re
import sys
from pathlib import Path

import pytest
from install import matrix
from stand_ins import fake_python, run, uv_text, write_program

REPORT = """\
<testsuites><testsuite tests="{}" failures="{}" errors="{}" skipped="{}"/></testsuites>
"""

# Writes the report that pytest would write: one test fails on the fork with Python 3.10, and the
# installation fails on the other stack with Python 3.12.
MAKE = f"""\
#!{sys.executable}
import os, pathlib, shlex, sys
with open(os.environ['MAKE_CALLS'], 'a') as file:
    print(*sys.argv[1:], file=file)
if 'VENV=.venv-openmmlab-3.12' in sys.argv:
    sys.exit(2)
(option,) = [o for o in shlex.split(os.environ['PYTEST_ADDOPTS']) if o.startswith('--junitxml=')]
failures = int('VENV=.venv-onedl-3.10' in sys.argv)
report = {REPORT!r}.format(9, failures, 0, 2)
pathlib.Path(option.split('=', 1)[1]).write_text(report)
sys.exit(2 * failures)
"""


@pytest.fixture
def pythons(machine, tmp_path):
    """A machine with make, uv, and Pythons 3.10 and 3.12 of pyenv."""
    for name, minor in [('3.10.13', 10), ('3.12.1', 12)]:
        folder = tmp_path / 'pyenv' / 'versions' / name / 'bin'
        folder.mkdir(parents=True)
        fake_python(folder / 'python', (3, minor, 1))
    programs = Path(machine['PATH'])
    write_program(programs / 'uv', uv_text())
    write_program(programs / 'make', MAKE)
    return {
        **machine,
        'PYENV_ROOT': str(tmp_path / 'pyenv'),
        'MAKE_CALLS': str(tmp_path / 'make-calls'),
    }


def test_goes_on_after_failures_and_prints_a_table(checkout, pythons, tmp_path):
    status, output, errors = run(checkout, pythons, '--test-matrix', 'tests/ops', 'tests/models')
    assert status == 1, errors
    table = output.split('\n\n')[-1].splitlines()
    rows = [re.split(r'\s{2,}', line) for line in table]
    assert rows[0][:6] == ['stack', 'Python', 'torch', 'passed', 'failed', 'skipped']
    found = {tuple(row[:2]): row for row in rows[1:]}
    assert len(found) == 7
    assert found['openmmlab', '3.10'][2:6] == ['2.11.0', '7', '0', '2']
    assert found['onedl', '3.10'][2:6] == ['2.11.0', '6', '1', '2']
    assert found['onedl', '3.10'][-1] == 'failed'
    for stack in ('openmmlab', 'onedl'):
        assert found[stack, '3.11'][3:6] == ['-', '-', '-']
        assert 'not run: uv cannot provide Python 3.11' in found[stack, '3.11'][-1]
    assert found['openmmlab', '3.12'][3:6] == ['-', '-', '-']
    assert 'make ended with status 2' in found['openmmlab', '3.12'][-1]
    asked = Path(pythons['MAKE_CALLS']).read_text().splitlines()
    assert len(asked) == 5
    python = tmp_path / 'pyenv' / 'versions' / '3.12.1' / 'bin' / 'python'
    assert asked[3].endswith(
        f'test STACK=onedl VENV=.venv-onedl-3.12 PYTHON={python} TESTS=tests/ops tests/models'
    )
    assert asked[4].endswith('test-lowest')
    assert not (checkout / '.venv').exists()


def test_some_combinations(checkout, pythons):
    status, output, errors = run(
        checkout, pythons, '--test-matrix', 'tests/ops', '--only', 'lowest', 'openmmlab-3.10'
    )
    assert status == 0, errors
    rows = [re.split(r'\s{2,}', line) for line in output.split('\n\n')[-1].splitlines()]
    assert [row[0] for row in rows[1:]] == ['openmmlab', 'torch alone']
    status, _, errors = run(checkout, pythons, '--test-matrix', '--only', 'onedl-3.9')
    assert status == 1
    assert "make test-matrix: 'onedl-3.9' is not one of openmmlab-3.10, " in errors
    assert len(Path(pythons['MAKE_CALLS']).read_text().splitlines()) == 2


def test_counts_of_a_report(tmp_path):
    report = tmp_path / 'report.xml'
    assert matrix.read_counts(report) is None
    report.write_text('<testsuites><testsuite tests="9"')  # of a killed run
    assert matrix.read_counts(report) is None
    report.write_text(REPORT.format(10, 1, 2, 3))
    assert matrix.read_counts(report) == (4, 3, 3)
