"""The header that all files of mmcv share is compiled once."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from install import ninja, operators
from stand_ins import write_program


def test_precompiled_header_gets_the_flags_of_the_build(tmp_path):
    """GCC uses it only if the flags agree, and says so with -Winvalid-pch."""
    compiler = shutil.which('g++')
    if compiler is None:
        pytest.skip('needs g++')
    header = tmp_path / 'some header.hpp'
    header.write_text('#include <cstddef>\ninline int one() { return ONE; }\n')
    flags = f"-O2 -fPIC -DONE=1 '-I{tmp_path}' -c"
    text = f'cxx = {compiler}\n\ncflags = {flags}\npost_cflags = -std=c++17\n'
    ninja.precompile_header(str(header), text)
    user = tmp_path / 'user.cpp'
    user.write_text('#include "some header.hpp"\nint two() { return one() + one(); }\n')
    flags = ['-O2', '-fPIC', '-DONE=1', f'-I{tmp_path}', '-c', '-std=c++17']
    command = [compiler, *flags, '-H', '-Winvalid-pch', str(user), '-o', str(tmp_path / 'user.o')]
    used = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert re.search(r'^! .*some header\.hpp\.gch', used, re.MULTILINE), used


def test_stand_in_precompiles_and_then_runs_ninja(tmp_path):
    """Without the header, the build still goes on."""
    venv = tmp_path / 'my .venv'
    (venv / 'bin').mkdir(parents=True)
    (venv / 'bin' / 'python').symlink_to(sys.executable)
    write_program(venv / 'bin' / 'ninja', '#!/bin/sh\necho "[1/1] built with $*"\n')
    operators.write_ninja_stand_in(tmp_path / 'shim', venv / 'bin')
    (tmp_path / 'build.ninja').write_text('no flags in here\n')
    env = {**os.environ, 'MMSLAK_MMCV_HEADER': str(tmp_path / 'header.hpp')}
    command = [str(tmp_path / 'shim' / 'ninja'), '-v', 'a b']
    output = subprocess.check_output(command, env=env, cwd=tmp_path, text=True)
    assert output.splitlines()[0].startswith('precompiled header: skipped')
    assert output.splitlines()[1] == '[1/1] built with -v a b'
