"""Where uv comes from, and what it is told."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from install import uv
from install.checks import InstallError
from install.display import Display
from stand_ins import calls, run, start, uv_text, write_program, write_uv_wheel

VERSION = uv.pinned_version()


@pytest.fixture
def with_wheel_of_uv(checkout, machine_with_wheel, tmp_path):
    """A checkout, and a machine where pip finds the pinned uv in a directory, but no network."""
    digest = write_uv_wheel(tmp_path / 'wheels', VERSION)
    pin = checkout / 'requirements' / 'uv.txt'
    pin.write_text(f'uv=={VERSION} --hash=sha256:{digest}\n')
    links = {'PIP_FIND_LINKS': str(tmp_path / 'wheels'), 'INSTALLER_PYTHON': sys.executable}
    return checkout, {**machine_with_wheel, **links}


def cache(env):
    return Path(env['HOME']) / '.cache' / 'mmslak'


class TestFound:
    def test_on_the_path(self, checkout, machine_with_uv):
        status, output, errors = run(checkout, machine_with_uv)
        assert status == 0, errors
        assert 'downloading' not in output
        assert not cache(machine_with_uv).exists()

    @pytest.mark.parametrize('text', [uv_text('0.9.7'), '#!/bin/sh\nexit 127\n'])
    def test_too_old_or_broken(self, with_wheel_of_uv, text):
        checkout, env = with_wheel_of_uv
        write_program(Path(env['PATH']) / 'uv', text)
        status, output, errors = run(checkout, env)
        assert status == 0, errors
        assert f'downloading uv {VERSION}' in output

    def test_oldest_that_is_used(self, machine):
        write_program(Path(machine['PATH']) / 'uv', uv_text('.'.join(map(str, uv.OLDEST))))
        assert uv.Uv(machine, Display()).find() == str(Path(machine['PATH']) / 'uv')


class TestFetched:
    def test_once(self, with_wheel_of_uv):
        checkout, env = with_wheel_of_uv
        status, output, errors = run(checkout, env)
        assert status == 0, errors
        assert f'downloading uv {VERSION}' in output
        assert os.access(cache(env) / f'uv-{VERSION}' / 'bin' / 'uv', os.X_OK)
        assert any(call.startswith('pip sync') for call in calls(env))
        (checkout / '.venv' / 'mmslak-stamp').unlink()
        status, output, errors = run(checkout, env)
        assert status == 0, errors
        assert 'downloading' not in output

    def test_leaves_nothing_else(self, with_wheel_of_uv):
        checkout, env = with_wheel_of_uv
        run(checkout, env)
        assert {path.name for path in cache(env).iterdir()} == {f'uv-{VERSION}', '.uv.lock'}

    def test_another_hash_is_refused(self, with_wheel_of_uv):
        checkout, env = with_wheel_of_uv
        pin = checkout / 'requirements' / 'uv.txt'
        pin.write_text(f'uv=={VERSION} --hash=sha256:{"0" * 64}\n')
        status, _, errors = run(checkout, env)
        assert status == 1
        assert len(errors.splitlines()) == 1
        assert 'pip' in errors
        assert not (cache(env) / f'uv-{VERSION}').exists()
        assert not (checkout / '.venv').exists()

    def test_no_network(self, checkout, machine_with_wheel):
        env = {**machine_with_wheel, 'INSTALLER_PYTHON': sys.executable}
        status, _, errors = run(checkout, env)
        assert status == 1
        assert len(errors.splitlines()) == 1
        assert 'uv is not on the PATH' in errors

    def test_what_a_killed_run_left_is_removed(self, with_wheel_of_uv):
        checkout, env = with_wheel_of_uv
        half = cache(env) / f'uv-{VERSION}-abc' / 'uv'
        half.mkdir(parents=True)
        (cache(env) / f'uv-{VERSION}' / 'bin').mkdir(parents=True)
        status, _, errors = run(checkout, env)
        assert status == 0, errors
        assert not half.exists()

    def test_twice_at_once(self, with_wheel_of_uv, tmp_path):
        """Two checkouts share a home directory."""
        checkout, env = with_wheel_of_uv
        other = tmp_path / 'other'
        subprocess.check_call(['/bin/cp', '-r', checkout, other])
        processes = [start(root, env) for root in (checkout, other)]
        results = [(*process.communicate(timeout=60), process.returncode) for process in processes]
        assert [result[2] for result in results] == [0, 0], results
        assert sum('downloading uv' in result[0] for result in results) == 1

    @pytest.mark.slow
    def test_without_pip_an_environment_brings_it(self, machine, tmp_path, monkeypatch):
        digest = write_uv_wheel(tmp_path / 'wheels', VERSION)
        (tmp_path / 'uv.txt').write_text(f'uv=={VERSION} --hash=sha256:{digest}\n')
        monkeypatch.setattr(uv, 'FILE', tmp_path / 'uv.txt')
        without_pip = tmp_path / 'python'
        script = f'#!/bin/sh\n[ "$2" = pip ] && exit 1\nexec {sys.executable} "$@"\n'
        write_program(without_pip, script)
        monkeypatch.setattr(sys, 'executable', str(without_pip))
        env = {**machine, 'PIP_FIND_LINKS': str(tmp_path / 'wheels')}
        uv.Uv(env, Display()).install_with_pip(tmp_path / 'target', tmp_path / 'venv')
        assert os.access(tmp_path / 'target' / 'bin' / 'uv', os.X_OK)

    def test_neither_pip_nor_venv(self, machine, tmp_path, monkeypatch):
        bare = tmp_path / 'python'
        write_program(bare, '#!/bin/sh\nexit 1\n')
        monkeypatch.setattr(sys, 'executable', str(bare))
        with pytest.raises(InstallError, match='apt-get install python3-pip') as caught:
            uv.Uv(machine, Display()).install_with_pip(tmp_path / 'target', tmp_path / 'venv')
        assert str(bare) in str(caught.value)


class TestIndex:
    """pip and uv do not read each other's settings, and both are used."""

    def test_settings_of_pip_are_for_uv_too(self, machine, tmp_path):
        config = tmp_path / 'pip.conf'
        config.write_text(
            '[global]\nindex-url = https://mirror.example/simple\ntrusted-host = a\n    b\n'
        )
        env = {**machine, 'PIP_CONFIG_FILE': str(config), 'PIP_CERT': '/some/ca.pem'}
        env.pop('SSL_CERT_FILE', None)
        uv.share_index(env, sys.executable)
        assert env['UV_DEFAULT_INDEX'] == 'https://mirror.example/simple'
        assert env['UV_INSECURE_HOST'] == 'a b'
        assert env['SSL_CERT_FILE'] == '/some/ca.pem'

    def test_those_of_uv_come_first(self, machine):
        env = {**machine, 'PIP_INDEX_URL': 'https://a/', 'UV_DEFAULT_INDEX': 'https://b/'}
        uv.share_index(env, sys.executable)
        assert env['UV_DEFAULT_INDEX'] == 'https://b/'
        assert env['PIP_INDEX_URL'] == 'https://a/'

    @pytest.mark.parametrize('index', ['https://b/?c=d', 'mirror=https://b/?c=d'])
    def test_the_index_of_uv_is_for_pip_too(self, machine, index):
        env = {**machine, 'UV_DEFAULT_INDEX': index}
        uv.share_index(env, sys.executable)
        assert env['PIP_INDEX_URL'] == 'https://b/?c=d'

    def test_nothing_configured(self, machine):
        env = dict(machine)
        uv.share_index(env, sys.executable)
        assert env == machine


@pytest.mark.parametrize(
    ('errors', 'reason'),
    [
        ('error: No such thing\n', 'No such thing'),
        ('error: Request failed\n  cause: dns error\n  cause: not known\n', 'not known'),
        ('error: x\n  Caused by: y\n\nhint: z\n', 'y'),
        ("[Errno 13] Permission denied: 'uv'", "[Errno 13] Permission denied: 'uv'"),
        ('', 'no output'),
    ],
)
def test_reasons_are_short(errors, reason):
    assert uv.last_reason(errors) == reason


def test_the_pin_has_hashes():
    text = uv.FILE.read_text(encoding='utf-8')
    assert re.search(r'^uv==[\d.]+ \\$', text, re.MULTILINE)
    assert len(re.findall(r'--hash=sha256:[0-9a-f]{64}', text)) > 3
    assert tuple(map(int, VERSION.split('.'))) >= uv.OLDEST


class TestPyenv:
    @pytest.fixture
    def environ(self, tmp_path):
        for name in ['3.1.9', '3.12.1', '3.12.10', '3.12-dev', 'pypy3.12', '3.11.7']:
            program = tmp_path / 'versions' / name / 'bin' / 'python'
            program.parent.mkdir(parents=True)
            program.touch()
        (tmp_path / 'versions' / '3.10.13').mkdir()  # left by an installation that failed
        return {'PYENV_ROOT': str(tmp_path)}

    @pytest.mark.parametrize(
        ('version', 'found'),
        [('3.12', '3.12.10'), ('3.12.1', '3.12.1'), ('3.1', '3.1.9'), ('3', '3.12.10')],
    )
    def test_newest_of_a_version(self, environ, version, found):
        path = uv.python_of_pyenv(version, environ)
        assert path == str(Path(environ['PYENV_ROOT']) / 'versions' / found / 'bin' / 'python')

    @pytest.mark.parametrize('version', ['3.10', '3.13', '>=3.10,<3.13', 'pypy3.12'])
    def test_nothing_found(self, environ, version):
        assert uv.python_of_pyenv(version, environ) is None

    def test_is_asked_before_a_download(self, environ, machine):
        write_program(Path(machine['PATH']) / 'uv', uv_text())
        tool = uv.Uv({**machine, **environ}, Display())
        assert tool.find_python('3.11').endswith('3.11.7/bin/python')
        assert not [call for call in calls(machine) if call.startswith('python install')]
