"""The pins: exact, with hashes, complete, one version for each Python."""

import re
from pathlib import Path

import pytest
from install import REQUIREMENTS, ROOT
from stand_ins import calls, run, uv_text, write_program

requirements = pytest.importorskip('packaging.requirements')
utils = pytest.importorskip('packaging.utils')

PYTHONS = ['3.10', '3.11', '3.12']


def entries():
    """Return the (requirement, hashes) of ``requirements/lock.txt``."""
    text = (REQUIREMENTS / 'lock.txt').read_text(encoding='utf-8')
    lines = re.sub(r' *\\\n *', ' ', text).splitlines()
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith('#')]
    return [(line.split(' --hash=')[0].strip(), line.split(' --hash=')[1:]) for line in lines]


def pins(python, platform='linux'):
    """Return the pinned versions by name for one version of Python."""
    environment = {
        'python_version': python,
        'python_full_version': python + '.5',
        'sys_platform': platform,
    }
    found = [requirements.Requirement(text) for text, _ in entries()]
    found = [pin for pin in found if not pin.marker or pin.marker.evaluate(environment)]
    assert len({pin.name for pin in found}) == len(found)
    return {pin.name: str(pin.specifier)[2:] for pin in found}


def names_of(file):
    """Return the requirements in a file of ``requirements/``."""
    lines = (REQUIREMENTS / file).read_text(encoding='utf-8').splitlines()
    return [requirements.Requirement(line) for line in lines if line and line[0] != '#']


def asked_for(monkeypatch):
    """Return all that ``setup.py`` asks for, extras included."""
    setuptools = pytest.importorskip('setuptools')
    given = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **keywords: given.update(keywords))
    monkeypatch.chdir(ROOT)
    code = compile((ROOT / 'setup.py').read_text(encoding='utf-8'), 'setup.py', 'exec')
    exec(code, {'__file__': str(ROOT / 'setup.py'), '__name__': '__main__'})
    groups = [given['install_requires'], *given['extras_require'].values()]
    return [requirements.Requirement(text) for group in groups for text in group]


def test_every_pin_is_exact():
    for text, _ in entries():
        assert re.match(r'^[a-z0-9-]+==[^*<>,\s]+( ; .+)?$', text), text


def test_every_pin_has_hashes():
    for text, hashes in entries():
        assert hashes, text
        for value in hashes:
            assert re.match(r'^sha256:[0-9a-f]{64}$', value), (text, value)


@pytest.mark.parametrize('python', PYTHONS)
def test_one_version_a_python(python):
    names = pins(python)
    for name in (
        'torch',
        'torchvision',
        'numpy',
        'mmengine',
        'mmdet',
        'mmsegmentation',
        'lmdb',
    ):
        assert name in names


@pytest.mark.parametrize('python', PYTHONS)
def test_everything_asked_for_is_pinned(python, monkeypatch):
    pinned, elsewhere = pins(python), {'mmcv'}
    for wanted in asked_for(monkeypatch) + names_of('lock.in'):
        name = utils.canonicalize_name(wanted.name)
        if name not in elsewhere:
            assert wanted.specifier.contains(pinned[name]), wanted


def test_mmcv_is_what_setup_asks_for(monkeypatch):
    text = (REQUIREMENTS / 'mmcv.txt').read_text(encoding='utf-8')
    version = re.search(r'^mmcv==(\S+)', text, re.MULTILINE).group(1)
    wanted = [each for each in asked_for(monkeypatch) if each.name == 'mmcv']
    assert wanted
    assert all(each.specifier.contains(version) for each in wanted)


@pytest.mark.parametrize('python', PYTHONS)
def test_what_is_left_out_is_left_out(python):
    left_out = {wanted.name for wanted in names_of('not-locked.txt')}
    assert {'mmcv', 'opencv-python', 'huggingface-hub'} <= left_out
    assert not left_out & set(pins(python))


class TestRenewing:
    def test_keeps_the_pinned_versions(self, checkout, machine):
        write_program(Path(machine['PATH']) / 'uv', uv_text())
        status, output, errors = run(checkout, machine, '--lock')
        assert status == 0, errors
        assert 'requirements/lock.txt' in output
        asked = calls(machine)
        assert len(asked) == 2
        for call in asked:
            assert call.startswith('pip compile ')
            assert '--universal' in call
            assert '--python-version 3.10' in call
            assert '--generate-hashes' in call
            assert '--upgrade' not in call
        assert 'setup.py --all-extras' in asked[0]
        assert 'lock.in' in asked[0]
        assert 'not-locked.txt' in asked[0]
        assert not (checkout / '.venv').exists()

    def test_upgrade(self, checkout, machine):
        write_program(Path(machine['PATH']) / 'uv', uv_text())
        status, _, errors = run(checkout, machine, '--lock', '--upgrade')
        assert status == 0, errors
        assert all('--upgrade' in call for call in calls(machine))

    def test_failure(self, checkout, machine):
        script = '#!/bin/sh\n[ "$1" = --version ] && echo uv 99.0.0 && exit\nexit 1\n'
        write_program(Path(machine['PATH']) / 'uv', script)
        status, _, errors = run(checkout, machine, '--lock')
        assert status == 1
        assert errors.startswith('make lock: ')
