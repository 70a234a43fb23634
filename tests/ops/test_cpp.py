"""The compiled CPU kernels: threads, forked processes, the compiler and the cache."""

import os
import select

import pytest
import torch
from tensors import assert_accurate

from mmslak.ops import cpp, depthwise_conv2d, reference
from mmslak.ops.depthwise import choose

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


def test_forked_process_does_not_wait_for_threads_of_its_parent():
    torch.manual_seed(0)
    x, weight = torch.randn(4, 40, 28, 28), torch.randn(40, 1, 5, 51)
    out = depthwise_conv2d(x, weight)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        # The threads of the parent do not exist here. PyTorch's own operators would wait for them
        # on large tensors, so the comparison is done by NumPy.
        again = torch.ops.mmslak.depthwise_conv2d(x, [weight], None, 'auto').numpy()
        os.write(writer, b'same' if (again == out.numpy()).all() else b'other')
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
    file = cpp._compiled(cpp._compiler())
    file.write_bytes(b'')
    assert_chosen('cpp')
    assert file.stat().st_size > 1000


@needs_compiler
@pytest.mark.parametrize('writable', ['mmslak', 'mmslak/ops', 'library'])
def test_library_that_others_can_write_is_not_loaded(new_process, tmp_path, writable):
    library = cpp._compiled(cpp._compiler())
    for folder in (library.parent, library.parent.parent):
        assert folder.stat().st_mode & 0o777 == 0o700
    library.write_bytes(b'a library of somebody else')
    path = library if writable == 'library' else tmp_path / writable
    path.chmod(path.stat().st_mode | 0o002)
    loaded = cpp._compiled(cpp._compiler())
    assert loaded.read_bytes() != b'a library of somebody else'
    if writable == 'library':
        # Nobody else can write to the directory, so the file is replaced.
        assert loaded == library and not loaded.stat().st_mode & 0o022
    else:
        assert tmp_path not in loaded.parents
        assert loaded.parent.stat().st_mode & 0o777 == 0o700
        assert library.read_bytes() == b'a library of somebody else'


@needs_compiler
def test_library_of_another_user_is_not_loaded(new_process, tmp_path, monkeypatch):
    library = cpp._compiled(cpp._compiler())
    owner = library.stat().st_uid
    monkeypatch.setattr(cpp.os, 'getuid', lambda: owner + 1)
    if owner == 0:
        # Files of root are trusted, because root can do anything.
        assert cpp._compiled(cpp._compiler()) == library
        os.chown(library.parent, 12345, -1)
    assert tmp_path not in cpp._compiled(cpp._compiler()).parents


@needs_compiler
def test_cache_that_cannot_be_written(new_process, tmp_path):
    (tmp_path / 'mmslak').write_text('a file instead of a directory')
    assert_chosen('cpp')
