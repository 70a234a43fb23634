"""``make install``: what it refuses, what it reuses, and what the package says of itself."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load_install():
    """Import ``tools/install.py``, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location('mmslak_install', ROOT / 'tools' / 'install.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install = load_install()


def nothing_found(name):
    return None


@pytest.fixture
def checkout(tmp_path):
    """The files that installing looks at, in a folder with a space and an accent in its name."""
    root = tmp_path / 'my chéckout'
    (root / 'tools').mkdir(parents=True)
    (root / 'mmslak').mkdir()
    shutil.copy(ROOT / 'tools' / 'install.py', root / 'tools')
    shutil.copy(ROOT / 'setup.py', root)
    shutil.copy(ROOT / 'Makefile', root)
    shutil.copytree(ROOT / 'requirements', root / 'requirements')
    (root / 'mmslak' / '__init__.py').write_text("__version__ = '0.1.0'\n")
    return root


@pytest.fixture
def installed(checkout):
    """The same with an environment that looks complete."""
    python_version = '{}.{}.{}'.format(*sys.version_info[:3])
    (checkout / '.venv' / 'bin').mkdir(parents=True)
    (checkout / '.venv' / 'bin' / 'python').symlink_to(sys.executable)
    stamp = install.fingerprint(checkout, python_version)
    (checkout / '.venv' / install.STAMP).write_text(stamp + '\n')
    return checkout


def run_install(root, **env):
    """Run the script on ``root`` where it can reach no index; return the process and the time."""
    env = {**os.environ, 'PIP_NO_INDEX': '1', 'PIP_FIND_LINKS': '', **env}
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, str(root / 'tools' / 'install.py'), '--this-python'],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return result, time.monotonic() - began


class TestPython:
    @pytest.mark.parametrize('version', [(3, 10, 0), (3, 11, 7), (3, 12, 1)])
    def test_supported(self, version):
        install.check_python(version, 'python3')

    @pytest.mark.parametrize('version', [(2, 7, 18), (3, 9, 18), (3, 13, 0), (4, 0, 0)])
    def test_unsupported_is_named(self, version):
        with pytest.raises(install.InstallError) as caught:
            install.check_python(version, '/usr/bin/python3', runs=nothing_found)
        message = str(caught.value)
        assert '/usr/bin/python3' in message
        assert '.'.join(map(str, version)) in message
        assert 'make install PYTHON=' in message
        assert '\n' not in message

    def test_suggests_one_that_is_there(self):
        with pytest.raises(install.InstallError, match=r'PYTHON=python3\.10$'):
            install.check_python((3, 9, 1), 'python3', runs=lambda name: name == 'python3.10')

    def test_syntax_is_old_enough_to_say_so(self):
        import ast

        source = (ROOT / 'tools' / 'install.py').read_text(encoding='utf-8')
        ast.parse(source, feature_version=(3, 7))


class TestCompiler:
    def test_missing(self):
        with pytest.raises(install.InstallError, match=r'apt-get install g\+\+') as caught:
            install.find_compiler({}, which=nothing_found)
        assert '\n' not in str(caught.value)

    def test_wrong_cxx_is_named(self):
        with pytest.raises(install.InstallError, match='no-such-compiler'):
            install.find_compiler({'CXX': 'no-such-compiler'})

    def test_broken(self, tmp_path):
        broken = tmp_path / 'c++'
        broken.write_text('#!/bin/sh\nexit 1\n')
        broken.chmod(0o755)
        with pytest.raises(install.InstallError, match='cannot compile'):
            install.find_compiler({}, which=lambda name: str(broken))

    def test_noticed_before_anything_is_made(self, checkout, tmp_path):
        empty = tmp_path / 'bin'
        empty.mkdir()
        env = {'PATH': str(empty), 'CXX': '', 'MMSLAK_WHEELHOUSE': str(tmp_path / 'wheelhouse')}
        result, seconds = run_install(checkout, **env)
        assert result.returncode == 1
        assert result.stdout == ''
        assert len(result.stderr.splitlines()) == 1
        assert 'C++ compiler' in result.stderr
        assert not (checkout / '.venv').exists()
        assert seconds < 5

    def test_not_needed_with_a_wheel(self, checkout, tmp_path):
        """It gets as far as pip, which fails here because it may ask no index."""
        empty = tmp_path / 'bin'
        empty.mkdir()
        house = install.my_wheelhouse({'MMSLAK_WHEELHOUSE': str(tmp_path / 'wheelhouse')})
        house.mkdir(parents=True)
        (house / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl').touch()
        # An environment that can be completed, so that none has to be made.
        (checkout / '.venv' / 'bin').mkdir(parents=True)
        (checkout / '.venv' / 'bin' / 'python').symlink_to('/bin/false')
        (checkout / '.venv' / 'bin' / 'pip').touch()
        version = '{}.{}.{}'.format(*sys.version_info[:3])
        (checkout / '.venv' / 'pyvenv.cfg').write_text(f'version = {version}\n')
        env = {'PATH': str(empty), 'CXX': '', 'MMSLAK_WHEELHOUSE': str(tmp_path / 'wheelhouse')}
        result, _ = run_install(checkout, **env)
        assert result.returncode == 1
        assert f'[2/{install.STEPS}]' in result.stdout
        assert 'compiler' not in result.stderr
        # pip was cut short: the environment must not be trusted again.
        assert not install.venv_is_usable(checkout / '.venv', version)


def test_missing_python_headers(tmp_path):
    with pytest.raises(install.InstallError, match=r'Python\.h'):
        install.check_python_headers(str(tmp_path))


def test_full_disk(tmp_path):
    with pytest.raises(install.InstallError, match='free') as caught:
        install.check_disk(tmp_path, free_bytes=2**30)
    assert str(tmp_path) in str(caught.value)
    install.check_disk(tmp_path, free_bytes=2**40)


class TestNothingToDo:
    def test_is_quick_and_changes_nothing(self, installed):
        before = sorted(path for path in installed.rglob('*') if path.name != '.install.lock')
        result, seconds = run_install(installed)
        assert result.returncode == 0, result.stderr
        assert 'up to date' in result.stdout
        assert seconds < 1
        after = sorted(path for path in installed.rglob('*') if path.name != '.install.lock')
        assert before == after

    @pytest.mark.parametrize('name', ['requirements/lock.txt', 'tools/install.py', 'setup.py'])
    def test_a_changed_file_counts(self, installed, name):
        version = '{}.{}.{}'.format(*sys.version_info[:3])
        assert install.is_up_to_date(installed, version)
        with (installed / name).open('a') as file:
            file.write('# changed\n')
        assert not install.is_up_to_date(installed, version)

    def test_another_python_counts(self, installed):
        assert not install.is_up_to_date(installed, '3.10.99')

    def test_only_the_version_of_the_package_counts(self, installed):
        version = '{}.{}.{}'.format(*sys.version_info[:3])
        init = installed / 'mmslak' / '__init__.py'
        init.write_text("import os\n\n__version__ = '0.1.0'\n")
        assert install.is_up_to_date(installed, version)
        init.write_text("__version__ = '0.2.0'\n")
        assert not install.is_up_to_date(installed, version)

    def test_an_interrupted_run_counts(self, installed):
        version = '{}.{}.{}'.format(*sys.version_info[:3])
        (installed / '.venv' / install.INCOMPLETE).touch()
        assert not install.is_up_to_date(installed, version)

    def test_a_moved_checkout_counts(self, installed):
        version = '{}.{}.{}'.format(*sys.version_info[:3])
        moved = installed.rename(installed.with_name('elsewhere'))
        assert not install.is_up_to_date(moved, version)


class TestWheelhouse:
    def folder(self, **changes):
        arguments = dict(
            environ={'MMSLAK_WHEELHOUSE': '/wheels'},
            torch_version='2.11.0',
            python_tag='cp311',
            platform='linux_x86_64',
        )
        return install.wheelhouse_folder(**{**arguments, **changes})

    def test_folders_differ(self):
        folders = [
            self.folder(),
            self.folder(torch_version='2.10.0'),
            self.folder(python_tag='cp312'),
            self.folder(platform='linux_aarch64'),
            self.folder(cuda_tag='cu130-sm90'),
        ]
        assert len(set(folders)) == len(folders)
        assert {folder.parent for folder in folders} == {Path('/wheels')}

    def test_default_is_in_the_home_folder(self):
        assert Path.home() in self.folder(environ={}).parents

    def test_no_wheel(self, tmp_path):
        assert install.find_wheel(tmp_path / 'nowhere') is None

    def test_a_half_built_wheel_is_not_found(self, tmp_path):
        (tmp_path / '.build-x' / 'wheel').mkdir(parents=True)
        (tmp_path / '.build-x' / 'wheel' / 'mmcv-2.1.0-any.whl').touch()
        assert install.find_wheel(tmp_path) is None


class TestOperators:
    def probe(self, **changes):
        return {'torch': '2.11.0', 'cuda': '13.0', 'gpu': True, 'archs': ['9.0'], **changes}

    def test_no_gpu_ignores_nvcc(self):
        tag, _ = install.choose_operators(self.probe(gpu=False, nvcc='13.0'))
        assert tag == ''

    @pytest.mark.parametrize('nvcc', ['13.0', '13.1'])
    def test_matching_nvcc(self, nvcc):
        tag, _ = install.choose_operators(self.probe(nvcc=nvcc))
        assert tag == 'cu130-sm90'

    @pytest.mark.parametrize('nvcc', [None, '12.8'])
    def test_no_matching_nvcc_says_what_to_do(self, nvcc):
        tag, note = install.choose_operators(self.probe(nvcc=nvcc))
        assert tag == ''
        assert 'CUDA toolkit 13.0' in note
        assert 'make clean install' in note
        assert nvcc is None or nvcc in note

    def test_cpu_build_hides_the_gpu(self):
        env = install.build_environment({'PATH': '/bin'}, self.probe(nvcc=None), '', 'c++', '/shim')
        assert env['CUDA_VISIBLE_DEVICES'] == ''
        assert env['PATH'].startswith('/shim')


def test_precompiled_header_gets_the_flags_of_the_build(tmp_path):
    """GCC uses it only where the flags agree, and says so with -Winvalid-pch."""
    compiler = shutil.which('g++')
    if compiler is None:
        pytest.skip('needs g++')
    header = tmp_path / 'some header.hpp'
    header.write_text('#include <cstddef>\ninline int one() { return ONE; }\n')
    flags = f"-O2 -fPIC -DONE=1 '-I{tmp_path}' -c"
    text = f'cxx = {compiler}\n\ncflags = {flags}\npost_cflags = -std=c++17\n'
    install.precompile_header(str(header), text)
    user = tmp_path / 'user.cpp'
    user.write_text('#include "some header.hpp"\nint two() { return one() + one(); }\n')
    flags = ['-O2', '-fPIC', '-DONE=1', f'-I{tmp_path}', '-c', '-std=c++17']
    command = [compiler, *flags, '-H', '-Winvalid-pch', str(user), '-o', str(tmp_path / 'user.o')]
    used = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert re.search(r'^! .*some header\.hpp\.gch', used, re.MULTILINE), used


def test_the_callers_settings_do_not_leak_in(tmp_path):
    leaks = {'PYTHONPATH': '/x', 'VIRTUAL_ENV': '/x', 'PIP_TARGET': '/x', 'FORCE_CUDA': '1'}
    kept = {'PIP_INDEX_URL': 'https://example.org/simple', 'PATH': '/usr/bin'}
    env = install.clean_environment({**leaks, **kept}, tmp_path / '.venv', tmp_path)
    assert not set(leaks) & set(env)
    assert env['PIP_INDEX_URL'] == kept['PIP_INDEX_URL']
    assert env['PATH'].split(os.pathsep) == [str(tmp_path / '.venv' / 'bin'), '/usr/bin']


class TestPins:
    def lines(self):
        text = (ROOT / 'requirements' / 'lock.txt').read_text(encoding='utf-8')
        return [line for line in text.splitlines() if line and not line.startswith('#')]

    def test_every_line_is_exact(self):
        for line in self.lines():
            assert re.match(r'^[a-z0-9-]+==[^*<>,\s]+( ; .+)?$', line), line

    @pytest.mark.parametrize('python', ['3.10', '3.11', '3.12'])
    def test_one_version_a_python(self, python):
        markers = pytest.importorskip('packaging.requirements')
        environment = {'python_version': python, 'sys_platform': 'linux'}
        pinned = [markers.Requirement(line) for line in self.lines()]
        names = [pin.name for pin in pinned if not pin.marker or pin.marker.evaluate(environment)]
        assert len(names) == len(set(names))
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

    def test_the_source_of_mmcv_is_checked(self):
        text = (ROOT / 'requirements' / 'mmcv.txt').read_text(encoding='utf-8')
        assert re.search(r'^mmcv==2\.1\.0 --hash=sha256:[0-9a-f]{64}$', text, re.MULTILINE)


class TestProgress:
    def test_compile_tells_the_time_left(self):
        clock = iter([0.0, 30.0]).__next__
        progress = install.NinjaProgress(clock)
        progress.feed('precompiled header: done in 23 s')
        progress.feed('[10/77] c++ ...')
        assert '12 %' in progress.text
        assert '3 min 21 s left' in progress.text

    def test_other_lines_change_nothing(self):
        progress = install.NinjaProgress()
        before = progress.text
        progress.feed('copying mmcv/[1/2].py')
        assert progress.text == before

    def test_pip_counts_packages(self):
        progress = install.PipProgress(90)
        progress.feed('Collecting nvidia-nccl-cu13==2.28.9 (from -r lock.txt (line 3))')
        progress.feed('Processing /some/folder/numpy-2.4.6-cp311-cp311-linux_x86_64.whl')
        assert '2 of 90, numpy' in progress.text


class TestMetadata:
    def ask(self, *arguments):
        """Return what ``setup.py`` answers."""
        command = [sys.executable, '-W', 'ignore', 'setup.py', *arguments]
        return subprocess.check_output(command, cwd=ROOT, text=True).split()[-1]

    def test_name_and_version(self):
        init = (ROOT / 'mmslak' / '__init__.py').read_text(encoding='utf-8')
        version = re.search(r"^__version__ = '(.+)'$", init, re.MULTILINE).group(1)
        assert self.ask('--name') == 'mmslak'
        assert self.ask('--version') == version
        assert self.ask('--license') == 'Apache-2.0'

    def test_extras_and_python(self, monkeypatch):
        setuptools = pytest.importorskip('setuptools')
        given = {}
        monkeypatch.setattr(setuptools, 'setup', lambda **keywords: given.update(keywords))
        monkeypatch.chdir(ROOT)
        code = compile((ROOT / 'setup.py').read_text(encoding='utf-8'), 'setup.py', 'exec')
        exec(code, {'__file__': str(ROOT / 'setup.py'), '__name__': '__main__'})
        extras = given['extras_require']
        assert set(extras) == {'seg', 'det', 'pretrain', 'all', 'dev'}
        assert set(extras['all']) == {*extras['seg'], *extras['det'], *extras['pretrain']}
        assert given['python_requires'] == '>=3.10,<3.13'
        assert 'mmslak' in given['packages']
        assert not [name for name in given['packages'] if name.split('.')[0] != 'mmslak']
