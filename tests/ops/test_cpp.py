"""The compiled CPU kernels: threads, forked processes, the compiler and the cache."""

import os
import pwd
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from tensors import assert_accurate

from mmslak.ops import cpp, depthwise_conv2d, reference
from mmslak.ops.compilation import NATIVE, VARIANTS, find_compiler
from mmslak.ops.depthwise import choose

ROOT = Path(__file__).parents[2]

needs_compiler = pytest.mark.skipif(not cpp.available(), reason='no compiler')


@needs_compiler
def test_result_is_bitwise_the_same_for_any_number_of_threads():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    try:
        for kernel, size in (((5, 51), (56, 56)), ((49, 5), (28, 28)), ((5, 5), (7, 7))):
            x, weight = torch.randn(3, 40, *size), torch.randn(40, 1, *kernel)
            x, weight = x.requires_grad_(), weight.requires_grad_()
            results = []
            for threads in (1, 1, 2, 3, 8):
                torch.set_num_threads(threads)
                out = depthwise_conv2d(x, weight, None, 'cpp')
                results.append((out, *torch.autograd.grad(out.square().sum(), (x, weight))))
            for result in results[1:]:
                assert all(map(torch.equal, result, results[0]))
    finally:
        torch.set_num_threads(before)


@needs_compiler
@pytest.mark.parametrize('first_call', ['before the fork', 'after the fork'])
def test_forked_process_does_not_wait_for_threads_of_its_parent(first_call):
    torch.manual_seed(0)
    x, weight = torch.randn(4, 40, 28, 28), torch.randn(40, 1, 5, 51)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        # Both PyTorch and the kernels use several threads here.
        wanted = depthwise_conv2d(x, weight).numpy()
        x.expand(50, 4, 40, 28, 28).sum()
        if first_call == 'after the fork':
            cpp._library.cache_clear()
        assert_child_computes(x, weight, wanted)
    finally:
        torch.set_num_threads(before)


def assert_child_computes(x, weight, wanted):
    """Check the result of the kernels in a forked process, twice."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        # PyTorch's own operators would wait for the threads of the parent on large tensors, so the
        # comparison is done by NumPy.
        results = [
            torch.ops.mmslak.depthwise_conv2d(x, [weight], None, 'auto').numpy() for _ in range(2)
        ]
        same = all((result == wanted).all() for result in results)
        os.write(writer, b'same' if same else b'other')
        os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], 60)
    if not ready:
        os.kill(child, 9)
    os.waitpid(child, 0)
    assert ready, 'the forked process does not finish'
    assert os.read(reader, 9) == b'same'
    os.close(reader)


@pytest.fixture
def new_process(tmp_path, monkeypatch, caplog):
    """Act as a new process with an empty cache, and yield what is logged."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.delenv(cpp.VARIANT, raising=False)
    cpp._library.cache_clear()
    yield caplog
    cpp._library.cache_clear()


def assert_chosen(chosen):
    """Check which implementation is chosen for a wide kernel, and its result."""
    x, weight = torch.randn(1, 3, 8, 8), torch.randn(3, 1, 5, 11)
    assert choose(x, (5, 11)) == chosen
    assert_accurate(depthwise_conv2d(x, weight), reference.forward(x, weight), torch.float32)


@pytest.mark.parametrize('compiler', ['/nowhere/g++', 'false'])
def test_without_a_compiler_another_implementation_is_chosen_with_one_warning(
    new_process, tmp_path, monkeypatch, compiler
):
    monkeypatch.setenv('CXX', compiler)
    for _ in range(3):
        assert_chosen('pytorch')
    assert len(new_process.messages) == 1
    assert 'run without the compiled CPU kernels' in new_process.messages[0]
    assert not list(tmp_path.rglob('*.so'))


@needs_compiler
def test_library_is_compiled_once_and_cached(new_process, tmp_path):
    assert_chosen('cpp')
    (file,) = tmp_path.rglob('*.so')
    modified = file.stat().st_mtime_ns
    cpp._library.cache_clear()
    assert_chosen('cpp')
    assert [f.stat().st_mtime_ns for f in tmp_path.rglob('*.so')] == [modified]
    assert not new_process.messages


@needs_compiler
def test_damaged_file_in_the_cache_is_compiled_again(new_process):
    with compiled() as file:
        file.write_bytes(b'')
    assert_chosen('cpp')
    assert file.stat().st_size > 1000


def compiled():
    """Return the context with the library for this processor."""
    return cpp._compiled(find_compiler(), NATIVE)


@needs_compiler
def test_variants_agree_with_the_reference(new_process, monkeypatch):
    results = {}
    for variant in [*available_variants(), NATIVE]:
        torch.manual_seed(0)
        results[variant] = []
        monkeypatch.setenv(cpp.VARIANT, variant)
        cpp._library.cache_clear()
        for dtype in (torch.float32, torch.float64):
            for channels, kernel in ((19, (5, 21)), (8, (13, 3))):
                x, grad = torch.randn(2, 2, channels, 11, 17, dtype=dtype)
                weight = torch.randn(channels, 1, *kernel, dtype=dtype)
                out, gradient = cpp.forward(x, weight), cpp.weight_gradient(x, grad, kernel)
                assert_accurate(out, reference.forward(x, weight), dtype)
                assert_accurate(gradient, reference.weight_gradient(x, grad, kernel), dtype)
                results[variant] += [out, gradient]
    if 'avx2' in results and 'avx512' not in results:
        assert all(map(torch.equal, results['avx2'], results[NATIVE]))
    assert not new_process.messages


def available_variants():
    """Return the variants that this processor supports."""
    return [name for name in VARIANTS if {*VARIANTS[name]} <= cpp._processor_features()]


@pytest.mark.parametrize(
    ('variant', 'message'),
    [
        ('avx1024', 'must be baseline, avx2, avx512 or native, got'),
        ('avx512', 'needs a processor with avx512bw, avx512dq, avx512f, avx512vl, which'),
    ],
)
def test_variant_that_cannot_run_is_refused(new_process, monkeypatch, variant, message):
    monkeypatch.setattr(cpp, '_processor_features', lambda: {'avx2', 'fma'})
    monkeypatch.setenv(cpp.VARIANT, variant)
    with pytest.raises(ValueError, match=f'{cpp.VARIANT}.*{message}'):
        cpp.available()


@needs_compiler
def test_prebuilt_library_is_loaded_without_a_compiler(new_process, tmp_path, monkeypatch):
    prebuilt = tmp_path / 'prebuilt'
    prebuilt.mkdir()
    monkeypatch.setattr(cpp, 'PREBUILT', prebuilt)
    fastest = available_variants()[-1]
    with cpp._compiled(find_compiler(), fastest) as file:
        shutil.copy(file, prebuilt / f'depthwise-{fastest}.so')
    shutil.rmtree(tmp_path / 'mmslak')
    monkeypatch.setenv('CXX', '/nowhere/g++')
    assert_chosen('cpp')
    assert not new_process.messages and not (tmp_path / 'mmslak').exists()


@needs_compiler
def test_damaged_prebuilt_library_is_replaced_by_a_compiled_one(new_process, tmp_path, monkeypatch):
    monkeypatch.setattr(cpp, 'PREBUILT', tmp_path)
    for variant in VARIANTS:
        (tmp_path / f'depthwise-{variant}.so').write_bytes(b'')
    assert_chosen('cpp')
    assert len([*tmp_path.rglob('mmslak/ops/*.so')]) == 1


@pytest.mark.skipif(shutil.which('g++') is None, reason='no g++')
def test_compiler_with_a_launcher_before_it(new_process, tmp_path, monkeypatch):
    launcher = tmp_path / 'launcher with spaces'
    launcher.write_text(f'#!/bin/sh\necho "$1" >> "{tmp_path}/launched"\nexec "$@"\n')
    launcher.chmod(0o700)
    monkeypatch.setenv('CXX', f'"{launcher}" g++ -g0')
    assert_chosen('cpp')
    assert (tmp_path / 'launched').read_text() == 'g++\n'
    assert not new_process.messages


def test_compiler_in_a_directory_with_spaces(tmp_path, monkeypatch):
    compiler = tmp_path / 'a compiler'
    compiler.touch(0o700)
    monkeypatch.setenv('CXX', str(compiler))
    assert find_compiler() == [str(compiler)]


@needs_compiler
@pytest.mark.parametrize('writable', ['mmslak', 'mmslak/ops', 'library'])
def test_library_that_others_can_write_is_not_loaded(new_process, tmp_path, writable):
    with compiled() as library:
        pass
    for folder in (library.parent, library.parent.parent):
        assert folder.stat().st_mode & 0o777 == 0o700
    library.write_bytes(b'a library of somebody else')
    path = library if writable == 'library' else tmp_path / writable
    path.chmod(path.stat().st_mode | 0o002)
    with compiled() as loaded:
        assert loaded.read_bytes() != b'a library of somebody else'
        if writable == 'library':
            # Nobody else can write to the directory, so the file is replaced.
            assert loaded == library and not loaded.stat().st_mode & 0o022
        else:
            assert tmp_path / 'mmslak' not in loaded.parents
            assert loaded.parent.stat().st_mode & 0o777 == 0o700
            assert library.read_bytes() == b'a library of somebody else'
    assert loaded == library or not loaded.parent.exists()


@needs_compiler
def test_library_of_another_user_is_not_loaded(new_process, tmp_path, monkeypatch):
    with compiled() as library:
        pass
    owner = library.stat().st_uid
    monkeypatch.setattr(cpp.os, 'getuid', lambda: owner + 1)
    if owner == 0:
        # Files of root are trusted, because root can do anything.
        with compiled() as loaded:
            assert loaded == library
        os.chown(library.parent, 12345, -1)
    with compiled() as loaded:
        assert tmp_path / 'mmslak' not in loaded.parents


@needs_compiler
@pytest.mark.parametrize('cache', ['usable', 'unusable'])
def test_temporary_directories_are_removed(new_process, tmp_path, monkeypatch, cache):
    temporary = tmp_path / 'temporary'
    temporary.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(temporary))
    if cache == 'unusable':
        (tmp_path / 'mmslak').write_text('a file instead of a directory')
    assert_chosen('cpp')
    cpp._library.cache_clear()
    monkeypatch.setenv('CXX', 'false')
    assert_chosen('pytorch')
    assert not list(temporary.iterdir())
    kept = list(tmp_path.rglob('mmslak/ops/*'))
    assert [path.suffix for path in kept] == (['.so'] if cache == 'usable' else [])


#: Gives up the rights of root, and computes with the kernels.
NEW_USER = """
import os, sys, tempfile
import torch
from mmslak.ops import cpp, reference

os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
tempfile.tempdir = sys.argv[2]
x, weight = torch.randn(1, 3, 8, 8), torch.randn(3, 1, 5, 11)
wanted = reference.forward(x, weight).float()
torch.testing.assert_close(cpp.forward(x, weight), wanted)
try:
    cpp.cache_directory()
except FileNotFoundError as error:
    print(error)
"""


@needs_compiler
@pytest.mark.skipif(os.getuid() != 0, reason='only root can become another user')
def test_user_without_a_home_or_an_entry_in_the_password_database():
    used = {entry.pw_uid for entry in pwd.getpwall()}
    user = next(uid for uid in range(54321, 65000) if uid not in used)
    environment = {'PATH': os.environ['PATH'], 'PYTHONPATH': str(ROOT)}
    # The directories of pytest belong to root alone.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        done = subprocess.run(
            [sys.executable, '-c', NEW_USER, str(user), folder],
            env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert not os.listdir(folder)
    assert done.returncode == 0, done.stderr
    assert 'home directory' in done.stdout
    assert 'compiled CPU kernels' not in done.stderr


@needs_compiler
def test_cache_that_cannot_be_written(new_process, tmp_path):
    (tmp_path / 'mmslak').write_text('a file instead of a directory')
    assert_chosen('cpp')
