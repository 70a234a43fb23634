"""Commands that run in ``.venv``."""

import os

from install.environment import Environment


def test_the_callers_settings_do_not_leak_in(tmp_path):
    leaks = {
        'PYTHONPATH': '/x',
        'VIRTUAL_ENV': '/x',
        'PIP_TARGET': '/x',
        'FORCE_CUDA': '1',
        'UV_CONSTRAINT': '/x',
        'UV_TORCH_BACKEND': 'cpu',
        'UV_SYSTEM_PYTHON': '1',
    }
    kept = {
        'PIP_INDEX_URL': 'https://example.org/simple',
        'UV_DEFAULT_INDEX': 'https://example.org/simple',
        'UV_CACHE_DIR': '/cache',
        'PATH': '/usr/bin',
    }
    env = Environment(tmp_path / '.venv', {**leaks, **kept}, None).variables
    assert not set(leaks) & set(env)
    assert env['PIP_INDEX_URL'] == kept['PIP_INDEX_URL']
    assert env['UV_DEFAULT_INDEX'] == kept['UV_DEFAULT_INDEX']
    assert env['UV_CACHE_DIR'] == '/cache'
    assert env['PATH'].split(os.pathsep) == [str(tmp_path / '.venv' / 'bin'), '/usr/bin']


def test_temporary_files_go_with_the_environment(tmp_path):
    (tmp_path / 'tmp').mkdir()
    (tmp_path / 'tmp' / 'left by a killed run').touch()
    with Environment(tmp_path, {}, None) as environment:
        assert environment.variables['TMPDIR'] == str(tmp_path / 'tmp')
        assert not list((tmp_path / 'tmp').iterdir())
    assert not (tmp_path / 'tmp').exists()
