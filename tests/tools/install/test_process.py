"""How commands are run."""

import io
import os
import sys

import pytest
from install import process
from install.checks import InstallError
from install.display import Display, FixedProgress


def test_a_failure_shows_the_end_of_the_output(tmp_path):
    stream = io.StringIO()
    command = [sys.executable, '-c', 'print("early\\n" * 50 + "the cause"); raise SystemExit(3)']
    log = tmp_path / 'install.log'
    with pytest.raises(InstallError, match='status 3') as caught:
        process.run(command, log, Display(stream), FixedProgress('trying'), dict(os.environ))
    assert str(log) in str(caught.value)
    assert '| the cause' in stream.getvalue()
    assert len(stream.getvalue().splitlines()) < 20
    assert log.read_text().count('early') == 50


@pytest.mark.parametrize(
    ('program', 'status'), [(sys.executable, 0), ('/nowhere/program', 127), ('/bin/false', 1)]
)
def test_ask(program, status):
    assert process.ask([program, '-c', 'print("hello")'], {})[0] == status
