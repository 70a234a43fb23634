"""The metadata of the package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


def ask(*arguments):
    """Return what ``setup.py`` answers."""
    command = [sys.executable, '-W', 'ignore', 'setup.py', *arguments]
    return subprocess.check_output(command, cwd=ROOT, text=True).split()[-1]


def test_name_and_version():
    init = (ROOT / 'mmslak' / '__init__.py').read_text(encoding='utf-8')
    version = re.search(r"^__version__ = '(.+)'$", init, re.MULTILINE).group(1)
    assert ask('--name') == 'mmslak'
    assert ask('--version') == version
    assert ask('--license') == 'Apache-2.0'


def test_citation_and_changelog_name_this_version():
    version = ask('--version')
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
    assert citation['version'] == version
    assert citation['preferred-citation']['url'] == ask('--url')
    assert f'\n## {version}' in (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')


def test_type_checkers_read_the_annotations():
    assert (ROOT / 'mmslak' / 'py.typed').is_file()


def arguments_of_setup(monkeypatch):
    """Return the arguments with which ``setup.py`` calls ``setup``."""
    setuptools = pytest.importorskip('setuptools')
    given = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **keywords: given.update(keywords))
    monkeypatch.chdir(ROOT)
    code = compile((ROOT / 'setup.py').read_text(encoding='utf-8'), 'setup.py', 'exec')
    exec(code, {'__file__': str(ROOT / 'setup.py'), '__name__': '__main__'})
    return given


def test_extras_and_python(monkeypatch):
    given = arguments_of_setup(monkeypatch)
    extras = given['extras_require']
    assert set(extras) == {'seg', 'det', 'pretrain', 'timm', 'weights', 'web', 'all', 'dev'}
    assert set(extras['all']) == {*extras['seg'], *extras['det'], *extras['pretrain']}
    assert given['python_requires'] == '>=3.10,<3.13'
    assert 'mmslak' in given['packages']
    assert not [name for name in given['packages'] if name.split('.')[0] != 'mmslak']


def test_the_lowest_torch_is_the_tested_one(monkeypatch):
    (bound,) = [n for n in arguments_of_setup(monkeypatch)['install_requires'] if 'torch>' in n]
    tested = re.search(r'^torch==(\d+\.\d+)', (ROOT / 'requirements/lowest.txt').read_text(), re.M)
    assert bound == f'torch>={tested.group(1)}'


def test_trained_models_are_package_data(monkeypatch):
    given = arguments_of_setup(monkeypatch)
    assert 'mmslak.pretrained' in given['packages']
    folder = ROOT / 'mmslak' / 'pretrained'
    patterns = given['package_data']['mmslak.pretrained']
    packed = {path.name for pattern in patterns for path in folder.glob(pattern)}
    others = {path.name for path in folder.iterdir() if path.suffix not in ('.py', '')}
    assert packed == others >= {'slak_nano_camvid.safetensors', 'slak_nano_camvid.md'}
    assert any(wanted.startswith('safetensors>=') for wanted in given['install_requires'])


def dockerfile():
    """Return the instructions of the Dockerfile, each in one line."""
    text = (ROOT / 'Dockerfile').read_text(encoding='utf-8').replace('\\\n', ' ')
    return [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != '#']


def test_dockerfile_runs_targets_of_the_makefile():
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    commands = [text for name, text in dockerfile() if name in ('RUN', 'CMD')]
    targets = [re.search(r'\bmake\W+([a-z-]+)', command) for command in commands[1:]]
    assert [target[1] for target in targets] == ['install', 'demo']
    for target in targets:
        assert re.search(rf'^{target[1]}: ', makefile, re.MULTILINE)


def test_dockerfile_has_a_supported_python_and_a_compiler(monkeypatch):
    instructions = dockerfile()
    assert instructions[0][0] == 'FROM'
    minor = int(re.fullmatch(r'python:3\.(\d+)-slim', instructions[0][1])[1])
    low, high = map(
        int, re.findall(r'3\.(\d+)', arguments_of_setup(monkeypatch)['python_requires'])
    )
    assert low <= minor < high
    # One of the compilers that `make install` looks for.
    assert 'g++' in instructions[1][1].split()


def test_image_has_what_an_installation_reads():
    ignored = {
        line for line in (ROOT / '.dockerignore').read_text().splitlines() if line[:1] != '#'
    }
    tracked = subprocess.check_output(['git', 'ls-files'], cwd=ROOT, text=True).splitlines()
    assert not ignored & {path.split('/')[0] for path in tracked}
