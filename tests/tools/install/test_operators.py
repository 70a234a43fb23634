"""For which device mmcv's operators are built, and how."""

import re
import zipfile

import pytest
from install import operators, stacks
from install.checks import InstallError
from install.environment import Environment


def probe(**changes):
    return {'torch': '2.11.0', 'cuda': '13.0', 'gpu': True, 'archs': ['9.0'], **changes}


def test_no_gpu_ignores_nvcc():
    tag, _ = operators.choose_operators(probe(gpu=False, nvcc='13.0'))
    assert tag == ''


@pytest.mark.parametrize('nvcc', ['13.0', '13.1'])
def test_matching_nvcc(nvcc):
    tag, _ = operators.choose_operators(probe(nvcc=nvcc))
    assert tag == 'cu130-sm90'


@pytest.mark.parametrize('nvcc', [None, '12.8'])
def test_no_matching_nvcc_says_what_to_do(nvcc):
    tag, note = operators.choose_operators(probe(nvcc=nvcc))
    assert tag == ''
    assert 'CUDA toolkit 13.0' in note
    assert 'make clean install' in note
    assert nvcc is None or nvcc in note


def test_cpu_build_hides_the_gpu():
    env = operators.build_variables({'PATH': '/bin'}, probe(nvcc=None), '', 'c++', '/shim')
    assert env['CUDA_VISIBLE_DEVICES'] == ''
    assert env['PATH'].startswith('/shim')


def test_cuda_build_is_for_the_gpus_of_this_machine():
    two = probe(nvcc='13.0', archs=['8.0', '9.0'])
    env = operators.build_variables({'PATH': '/bin'}, two, 'cu130-sm80-sm90', 'c++', '/shim')
    assert env['TORCH_CUDA_ARCH_LIST'] == '8.0;9.0'
    assert 'CUDA_VISIBLE_DEVICES' not in env


def test_a_wheel_without_operators_is_refused(tmp_path):
    for name, is_good in [('mmcv/_ext.cpython-311-x86_64-linux-gnu.so', True), ('a.py', False)]:
        wheel = tmp_path / f'{is_good}.whl'
        with zipfile.ZipFile(wheel, 'w') as archive:
            archive.writestr(name, '')
        if is_good:
            operators.check_wheel(wheel, tmp_path / 'log')
        else:
            with pytest.raises(InstallError, match='without its operators'):
                operators.check_wheel(wheel, tmp_path / 'log')


def test_torch_that_cannot_be_imported(tmp_path):
    (tmp_path / 'bin').mkdir()
    python = tmp_path / 'bin' / 'python'
    python.write_text('#!/bin/sh\necho "ImportError: libtorch.so" >&2\nexit 1\n')
    python.chmod(0o755)
    with pytest.raises(InstallError, match=r'libtorch\.so.*make clean install'):
        operators.probe_torch(Environment(tmp_path, {}, None))


@pytest.mark.parametrize(
    ('stack', 'pin', 'archive'),
    [
        ('openmmlab', 'mmcv==2.1.0', 'mmcv-2.1.0'),
        ('onedl', 'onedl-mmcv==2.3.6', 'onedl_mmcv-2.3.6'),
    ],
)
def test_the_source_of_mmcv_is_checked(stack, pin, archive):
    stack = stacks.get(stack)
    text = stack.mmcv_file.read_text(encoding='utf-8')
    assert re.search(rf'^{re.escape(pin)} --hash=sha256:[0-9a-f]{{64}}$', text, re.MULTILINE)
    assert stack.mmcv_archive == archive
