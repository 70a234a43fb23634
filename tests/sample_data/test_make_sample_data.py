"""The command line that makes sample data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sample_helpers import tree_hash

from mmslak.sample_data import LAYOUTS, write_sample_data

REPO = Path(__file__).parents[2]


def command(*arguments):
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(REPO), *sys.path])}
    return subprocess.run(
        [sys.executable, str(REPO / 'tools/make_sample_data.py'), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )


@pytest.fixture(scope='module')
def main(load_tool):
    """The tool's `main` in this process, because a new one would import PyTorch each time."""
    return load_tool('make_sample_data.py').main


def test_command_line_writes_and_reports(tmp_path):
    done = command(tmp_path / 'data', '--images', 4, '--size', 48, '--seed', 2, '--context')
    assert done.returncode == 0, done.stderr
    for layout in LAYOUTS:
        assert layout in done.stdout
    write_sample_data(tmp_path / 'other', images=4, size=48, seed=2, context=True)
    assert tree_hash(tmp_path / 'data') == tree_hash(tmp_path / 'other')


def test_command_line_error_exits_with_2(tmp_path):
    done = command(tmp_path / 'data', '--images', 0)
    assert done.returncode == 2
    assert done.stderr.strip().count('\n') == 0 and 'images must be at least 2' in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'arguments, named',
    [
        (['--images', '-3'], 'images'),
        (['--size', '20'], 'at least 48 pixels, got 20'),
        (['--seed', '-1'], 'seed'),
    ],
)
def test_command_line_refuses(main, tmp_path, capsys, arguments, named):
    assert main([str(tmp_path / 'data'), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert named in error and '\n' not in error and 'Traceback' not in error
    assert list(tmp_path.iterdir()) == []


def test_command_line_on_existing_data(main, tmp_path, capsys):
    root = str(tmp_path / 'data')
    arguments = [root, '--images', '2', '--size', '48']
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 0
    assert 'nothing to do' in capsys.readouterr().out
    assert main([*arguments, '--seed', '1']) == 2
    assert '--overwrite' in capsys.readouterr().err
    assert main([*arguments, '--seed', '1', '--overwrite']) == 0
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/file').write_text('x')
    assert main([str(tmp_path / 'mine'), '--overwrite']) == 2
    assert 'is not sample data' in capsys.readouterr().err
