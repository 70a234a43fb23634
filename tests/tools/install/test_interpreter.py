"""Which Python is used, and what is said where none will do."""

import ast
import sys
from pathlib import Path

import pytest
from install import ROOT, interpreter
from install.checks import InstallError
from stand_ins import BASE_PYTHON, PYTHON, calls, fake_python, run, write_program


class Uv:
    """Provides one Python, or none."""

    def __init__(self, path=None):
        self.path = path
        self.requests = []

    def find_python(self, request):
        self.requests.append(request)
        if self.path is None:
            raise InstallError('no network')
        return str(self.path)

    install_python = find_python


def choose(request, venv, uv=None, said=None):
    return interpreter.choose(request, venv, uv or Uv(), [].append if said is None else said.append)


class TestSupported:
    @pytest.mark.parametrize('version', [(3, 10, 0), (3, 11, 7), (3, 12, 1)])
    def test_yes(self, version):
        assert interpreter.Interpreter('python', version, 'linux-x86_64', '').supported

    @pytest.mark.parametrize('version', [(2, 7, 18), (3, 9, 18), (3, 13, 0), (4, 0, 0)])
    def test_no(self, version):
        assert not interpreter.Interpreter('python', version, 'linux-x86_64', '').supported

    def test_uv_is_asked_for_the_same(self):
        specifiers = pytest.importorskip('packaging.specifiers')
        accepted = specifiers.SpecifierSet(interpreter.ANY_SUPPORTED)
        minors = [(3, minor) for minor in range(20) if f'3.{minor}.5' in accepted]
        assert tuple(minors) == interpreter.SUPPORTED

    def test_setup_accepts_the_same(self):
        text = (ROOT / 'setup.py').read_text(encoding='utf-8')
        assert f"python_requires='{interpreter.ANY_SUPPORTED}'" in text

    def test_syntax_is_old_enough_to_say_so(self):
        for file in (ROOT / 'tools' / 'install').glob('*.py'):
            ast.parse(file.read_text(encoding='utf-8'), feature_version=(3, 6))


class TestInspect:
    def test_the_running_python(self):
        found = interpreter.inspect(sys.executable)
        assert found.number == PYTHON
        assert found.path == BASE_PYTHON
        assert found.supported

    @pytest.mark.parametrize('script', ['exit 127', 'echo hello', 'echo 1; exit 1'])
    def test_a_program_that_is_no_python(self, tmp_path, script):
        write_program(tmp_path / 'python3.11', f'#!/bin/sh\n{script}\n')
        assert interpreter.inspect(str(tmp_path / 'python3.11')) is None

    def test_no_program(self, tmp_path):
        assert interpreter.inspect(str(tmp_path / 'nothing')) is None


class TestWithoutRequest:
    def test_the_running_python(self, tmp_path):
        assert choose(None, tmp_path / '.venv').path == BASE_PYTHON

    @pytest.mark.parametrize(
        'line', ['version = 3.12.1', 'version_info = 3.12.1', 'version_info = 3.12']
    )
    def test_an_environment_keeps_its_python(self, tmp_path, line):
        other = fake_python(tmp_path / 'python3.12', (3, 12, 1))
        venv = tmp_path / '.venv'
        venv.mkdir()
        (venv / 'pyvenv.cfg').write_text(f'home = {tmp_path}\n{line}\n')
        assert choose(None, venv).path == str(other)

    def test_unless_it_is_gone(self, tmp_path):
        venv = tmp_path / '.venv'
        venv.mkdir()
        (venv / 'pyvenv.cfg').write_text(f'home = {tmp_path}\nversion_info = 3.12.1\n')
        assert choose(None, venv).path == BASE_PYTHON

    def test_uv_provides_one_if_the_running_python_is_not_supported(self, tmp_path, monkeypatch):
        old = fake_python(tmp_path / 'python3', (3, 9, 18))
        new = fake_python(tmp_path / 'python3.12', (3, 12, 1))
        monkeypatch.setattr(sys, 'executable', str(old))
        said = []
        assert choose(None, tmp_path / '.venv', Uv(new), said).path == str(new)
        assert '3.9.18' in said[0]
        assert '3.12.1' in said[0]

    def test_unsupported_is_named(self, tmp_path, monkeypatch):
        old = fake_python(tmp_path / 'python3', (3, 13, 0))
        monkeypatch.setattr(sys, 'executable', str(old))
        with pytest.raises(InstallError) as caught:
            choose(None, tmp_path / '.venv')
        message = str(caught.value)
        assert str(old) in message
        assert '3.13.0' in message
        assert 'no network' in message
        assert 'make install PYTHON=' in message
        assert '\n' not in message


class TestRequest:
    def test_a_path(self, tmp_path):
        other = fake_python(tmp_path / 'python3.12', (3, 12, 1))
        assert choose(str(other), tmp_path / '.venv').number == '3.12.1'

    def test_it_wins_over_the_environment(self, tmp_path):
        venv = tmp_path / '.venv'
        venv.mkdir()
        home = Path(BASE_PYTHON).parent
        (venv / 'pyvenv.cfg').write_text(f'home = {home}\nversion_info = {PYTHON}\n')
        other = fake_python(tmp_path / 'python3.12', (3, 12, 99))
        assert choose(str(other), venv).number == '3.12.99'

    def test_a_version_is_for_uv(self, tmp_path):
        other = fake_python(tmp_path / 'python3.12', (3, 12, 1))
        uv = Uv(other)
        assert choose('3.12', tmp_path / '.venv', uv).path == str(other)
        assert uv.requests == ['3.12']

    def test_a_program_that_does_not_start_is_for_uv(self, tmp_path, monkeypatch):
        """Version managers put such programs on the PATH."""
        write_program(tmp_path / 'python3.12', '#!/bin/sh\nexit 127\n')
        monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
        other = fake_python(tmp_path / 'other', (3, 12, 1))
        assert choose('python3.12', tmp_path / '.venv', Uv(other)).path == str(other)

    def test_unsupported_is_named(self, tmp_path):
        other = fake_python(tmp_path / 'python3.9', (3, 9, 18))
        with pytest.raises(InstallError, match=r'3\.9\.18; run, .*make install PYTHON=') as caught:
            choose(str(other), tmp_path / '.venv')
        assert str(other) in str(caught.value)

    def test_not_to_be_had(self, checkout, machine_with_uv):
        status, _, errors = run(checkout, machine_with_uv, '--python', '3.12.99')
        assert status == 1
        assert len(errors.splitlines()) == 1
        assert '3.12.99' in errors
        assert 'no network' in errors
        assert not (checkout / '.venv').exists()

    def test_uv_looks_before_it_downloads(self, checkout, machine_with_uv):
        env = {**machine_with_uv, 'UV_FINDS': sys.executable}
        status, _, errors = run(checkout, env, '--python', '.'.join(PYTHON.split('.')[:2]))
        assert status == 0, errors
        assert not [call for call in calls(env) if call.startswith('python install')]


class TestHeaders:
    def python(self, include):
        return interpreter.Interpreter('python', (3, 11, 7), 'linux-x86_64', str(include))

    def test_there(self, tmp_path):
        (tmp_path / 'Python.h').touch()
        python = self.python(tmp_path)
        assert interpreter.with_headers(python, None, Uv()) is python

    def test_uv_provides_a_python_that_has_them(self, tmp_path):
        (tmp_path / 'Python.h').touch()
        other = fake_python(tmp_path / 'python3.11', (3, 11, 18), include=tmp_path)
        uv = Uv(other)
        assert interpreter.with_headers(self.python('/nowhere'), None, uv).path == str(other)
        assert uv.requests == ['3.11']

    @pytest.mark.parametrize('request_', [None, '/usr/bin/python3'])
    def test_missing(self, request_):
        with pytest.raises(InstallError, match=r'Python\.h .*apt-get install python3\.11-dev'):
            interpreter.with_headers(self.python('/nowhere'), request_, Uv())

    def test_a_requested_python_is_not_replaced(self):
        uv = Uv('/some/python')
        with pytest.raises(InstallError):
            interpreter.with_headers(self.python('/nowhere'), 'python3', uv)
        assert uv.requests == []
