"""The command ``mmslak``."""

import os
import subprocess
import sys

import pytest

from mmslak import __main__ as main
from mmslak import __version__


@pytest.fixture
def mmslak(monkeypatch):
    """Return a function that runs the command and returns its exit code."""

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['mmslak', *arguments])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        return stopped.value.code

    return call


def test_help_lists_the_commands(mmslak, capsys):
    assert mmslak('--help') == 0
    out = capsys.readouterr().out
    for name, (_, text) in main.COMMANDS.items():
        assert f'mmslak {name}' in out and text in out
    assert 'mmslak::upernet_slak_nano_camvid' in out


def test_version(mmslak, capsys):
    assert mmslak('--version') == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(('arguments', 'message'), [([], 'required: COMMAND'), (['no'], "'no'")])
def test_other_commands_are_refused(mmslak, capsys, arguments, message):
    assert mmslak(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('name', ['train', 'test'])
def test_arguments_of_a_command(mmslak, capsys, name):
    assert mmslak(name, '--help') == 0
    out = ' '.join(capsys.readouterr().out.split())
    assert out.startswith(f'usage: mmslak {name} ') and '--cfg-options' in out
    assert 'name of a config of this package' in out


def test_error_is_one_sentence(mmslak, capsys):
    assert mmslak('train', 'mmslak::slak_t_in1') == 2
    error = capsys.readouterr().err.splitlines()[0]
    assert error == ('error: config mmslak::slak_t_in1 does not exist; did you mean slak_t_in1k?')


@pytest.mark.parametrize(
    ('before', 'variables', 'spins'),
    [
        ('', {}, '10000'),
        ('', dict(GOMP_SPINCOUNT='5'), '5'),
        ('', dict(OMP_WAIT_POLICY='passive'), 'None'),
        # Too late: OpenMP has read it.
        ('import torch; ', {}, 'None'),
    ],
)
def test_waiting_threads_spin_for_a_short_time(before, variables, spins):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(('GOMP_', 'OMP_WAIT'))}
    code = before + 'import os, mmslak; print(os.environ.get("GOMP_SPINCOUNT"))'
    run = subprocess.run(
        [sys.executable, '-c', code], env={**kept, **variables}, capture_output=True, text=True
    )
    assert run.stdout.split()[-1] == spins, run.stderr
