"""The CPU kernels with the compiler's sanitizers: bounds, alignment, overflow, data races."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name('sanitized.cpp')


@pytest.mark.skipif(shutil.which('g++') is None, reason='no g++')
@pytest.mark.parametrize(
    ('sanitizers', 'vectors'),
    [
        # The widest vectors of this processor, and the narrowest, which have other block sizes.
        ('address,undefined', ['-march=native']),
        ('thread', []),
        pytest.param('address,undefined', [], marks=pytest.mark.slow),
        pytest.param('thread', ['-march=native'], marks=pytest.mark.slow),
    ],
)
def test_kernels_access_only_their_own_memory(tmp_path, sanitizers, vectors):
    program = tmp_path / 'sanitized'
    built = subprocess.run(
        ['g++', '-std=c++17', '-O1', '-g', f'-fsanitize={sanitizers}', '-fno-sanitize-recover=all']
        + [*vectors, str(SOURCE), '-o', str(program), '-pthread'],
        capture_output=True,
        text=True,
    )
    if 'cannot find' in built.stderr:
        pytest.skip('this compiler has no such sanitizer')
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(program), '20'], capture_output=True, text=True, timeout=300)
    if 'unexpected memory mapping' in done.stderr:
        pytest.skip('the memory layout of this operating system does not suit the sanitizer')
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout == 'passed\n'
