"""The pins: exact, with hashes, complete, one version for each Python."""

import re
from pathlib import Path

import pytest
from install import REQUIREMENTS, ROOT, stacks
from stand_ins import calls, run, uv_text, write_program

requirements = pytest.importorskip('packaging.requirements')
utils = pytest.importorskip('packaging.utils')

PYTHONS = ['3.10', '3.11', '3.12']


#: Name of a toolbox in setup.py -> its name in the stack "onedl".
ONEDL = {
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmsegmentation': 'onedl-mmsegmentation',
    'mmpretrain': 'onedl-mmpretrain',
}
in_every_stack = pytest.mark.parametrize('stack', stacks.NAMES)


def entries(stack):
    """Return the (requirement, hashes) of the lock file of a stack."""
    text = stacks.get(stack).lock_file.read_text(encoding='utf-8')
    lines = re.sub(r' *\\\n *', ' ', text).splitlines()
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith('#')]
    return [(line.split(' --hash=')[0].strip(), line.split(' --hash=')[1:]) for line in lines]


def pins(stack, python, platform='linux'):
    """Return the pinned versions by name for one version of Python."""
    environment = {
        'python_version': python,
        'python_full_version': python + '.5',
        'sys_platform': platform,
    }
    found = [requirements.Requirement(text) for text, _ in entries(stack)]
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


@in_every_stack
def test_every_pin_is_exact(stack):
    for text, _ in entries(stack):
        assert re.match(r'^[a-z0-9-]+==[^*<>,\s]+( ; .+)?$', text), text


@in_every_stack
def test_every_pin_has_hashes(stack):
    for text, hashes in entries(stack):
        assert hashes, text
        for value in hashes:
            assert re.match(r'^sha256:[0-9a-f]{64}$', value), (text, value)


@in_every_stack
@pytest.mark.parametrize('python', PYTHONS)
def test_one_version_a_python(python, stack):
    names = pins(stack, python)
    for name in (
        'torch',
        'torchvision',
        'numpy',
        'mmengine',
        'mmdet',
        'mmsegmentation',
        'lmdb',
    ):
        assert (ONEDL.get(name, name) if stack == 'onedl' else name) in names


@pytest.mark.parametrize('python', PYTHONS)
def test_the_stacks_differ_in_the_toolboxes_and_share_all_other_versions(python):
    default, other = pins('openmmlab', python), pins('onedl', python)
    toolboxes = set(ONEDL) - {'mmcv'}
    assert set(default) - set(other) == toolboxes
    assert {ONEDL[name] for name in toolboxes} <= set(other)
    shared = set(default) - toolboxes
    assert {name: default[name] for name in shared} == {name: other[name] for name in shared}


@pytest.mark.parametrize('python', PYTHONS)
def test_everything_asked_for_is_pinned(python, monkeypatch):
    pinned, elsewhere = pins('openmmlab', python), {'mmcv'}
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
    assert {'mmcv', 'opencv-python'} <= left_out
    assert not left_out & set(pins('openmmlab', python))
    left_out |= {wanted.name for wanted in names_of('onedl/not-locked.txt')}
    assert {'mmengine', 'onedl-mmcv'} <= left_out
    assert not left_out & set(pins('onedl', python))


def test_only_the_toolboxes_of_the_fork_are_built_from_source():
    assert stacks.get('openmmlab').build_options == ['--only-binary', ':all:']
    stack = stacks.get('onedl')
    assert stack.built_names == ['onedl-mmdetection', 'onedl-mmpretrain', 'onedl-mmsegmentation']
    allowed = set(stack.pinned_names) - set(stack.build_options)
    assert allowed == set(stack.built_names)


class TestRenewing:
    def test_keeps_the_pinned_versions(self, checkout, machine):
        write_program(Path(machine['PATH']) / 'uv', uv_text())
        status, output, errors = run(checkout, machine, '--lock')
        assert status == 0, errors
        assert 'requirements/lock.txt' in output
        asked = calls(machine)
        assert len(asked) == 3
        for call in asked:
            assert call.startswith('pip compile ')
            assert '--universal' in call
            assert '--python-version 3.10' in call
            assert '--generate-hashes' in call
            assert '--upgrade' not in call
        assert 'setup.py --all-extras' in asked[0]
        assert 'lock.in' in asked[0]
        assert 'not-locked.txt' in asked[0]
        assert 'onedl' not in asked[0]
        assert 'requirements/onedl/lock.in' in asked[1]
        assert asked[1].count('--excludes') == 2
        assert asked[1].endswith('requirements/onedl/lock.txt')
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
