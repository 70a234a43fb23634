"""The CPU kernels of ``depthwise.cpp``: compiled on first use, then called with plain pointers.

Nothing is built at installation. The first call compiles the file for this processor, which
takes about a second. The library is cached in ``~/.cache/mmslak/ops`` (or in ``mmslak/ops`` under
``XDG_CACHE_HOME``). Its name contains a hash of the source, the compiler and the processor. A
directory or a library that other users can write to is not used.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

_SOURCE = Path(__file__).with_name('depthwise.cpp')
_COMPILERS = ('g++', 'clang++', 'c++')
_FLAGS = ('-std=c++17', '-O3', '-shared', '-fPIC', '-fno-exceptions', '-fno-rtti')
_SUFFIX = {torch.float32: 'float', torch.float64: 'double'}
#: Smallest number of multiply-adds at which several threads are faster than one.
_SMALL = 1 << 19


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    add_to: Tensor | None = None,
    dilation: Sequence[int] = (1, 1),
) -> Tensor:
    """Convolve as :func:`mmslak.ops.depthwise_conv2d` does, in float32 or float64.

    Args:
        x (Tensor): Feature maps of shape (N, C, H, W), not empty, of any strides.
        weight (Tensor): Kernels of shape (C, 1, kh, kw), kh and kw odd.
        bias (Tensor, optional): Of shape (C,).
        add_to (Tensor, optional): Dense tensor of the shape of ``x``; the result is added to it
            in place.
        dilation (Sequence[int]): Vertical and horizontal distance of neighbouring weights.

    Returns:
        Tensor: ``add_to``, or a new tensor in the memory format of ``x``.

    Raises:
        ValueError: If the dtypes differ.
        MemoryError: If the working memory cannot be allocated.
    """
    _check_dtypes(x, weight, bias, add_to)
    weight = weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    out = torch.empty_like(x) if add_to is None else add_to
    _call(
        'forward', x, weight.shape[-2:], dilation,
        *_strided(x), _pointer(weight), _pointer(bias), *_strided(out),
        ctypes.c_int(add_to is not None),
    )  # fmt: skip
    return out


def weight_gradient(
    x: Tensor, grad: Tensor, kernel_size: tuple[int, int], dilation: Sequence[int] = (1, 1)
) -> Tensor:
    """Return the gradient of the kernels, (C, 1, kh, kw), for ``grad`` of the output."""
    _check_dtypes(x, grad)
    out = x.new_empty(x.shape[1], 1, *kernel_size)
    _call('gradient', x, kernel_size, dilation, *_strided(x), *_strided(grad), _pointer(out))
    return out


def available() -> bool:
    """Return whether the kernels can be used. The first call compiles them."""
    return _library() is not None


def _check_dtypes(x: Tensor, *others: Tensor | None) -> None:
    # The kernels take pointers, so a wrong dtype would be a wrong size.
    for tensor in others:
        if tensor is not None and tensor.dtype != x.dtype:
            raise ValueError(f'all tensors must have the dtype of x, {x.dtype}, got {tensor.dtype}')


def _call(
    task: str, x: Tensor, kernel_size: tuple[int, int], dilation: Sequence[int], *arguments
) -> None:
    # Python integers cannot overflow.
    work = x.numel() * kernel_size[0] * kernel_size[1]
    threads = 1 if work < _SMALL else torch.get_num_threads()
    # With any larger dilation, too, only the central weights meet the feature map.
    dilation = [min(step, size) for step, size in zip(dilation, x.shape[-2:], strict=True)]
    failed = getattr(_library(), f'mmslak_{task}_{_SUFFIX[x.dtype]}')(
        _integers(x.shape), _integers(kernel_size), _integers(dilation), *arguments,
        ctypes.c_int64(threads), _Threads.parallel,
    )  # fmt: skip
    if failed:
        raise MemoryError('the depth-wise convolution could not allocate its working memory')


def _integers(values) -> ctypes.Array:
    return (ctypes.c_int64 * len(values))(*values)


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _strided(tensor: Tensor) -> tuple[ctypes.c_void_p, ctypes.Array]:
    return _pointer(tensor), _integers(tensor.stride())


class _Threads:
    """The function of PyTorch's OpenMP runtime that runs another function on several threads.

    The threads of a second runtime would compete with those of PyTorch for the same cores.
    """

    parallel = None

    @classmethod
    def find(cls) -> None:
        for name in ('libtorch_cpu.so', 'libtorch_cpu.dylib'):
            file = Path(torch.__file__).parent / 'lib' / name
            if torch.backends.openmp.is_available() and file.is_file():
                # The symbol is looked up in this library and in the libraries it links to. LLVM's
                # runtime also has this function of GCC's runtime.
                function = getattr(ctypes.CDLL(str(file)), 'GOMP_parallel', None)
                cls.parallel = ctypes.cast(function, ctypes.c_void_p) if function else None

    @classmethod
    def forget(cls) -> None:
        # A forked process does not have the threads of its parent and would wait for them forever.
        cls.parallel = None


os.register_at_fork(after_in_child=_Threads.forget)


@functools.cache
def _library() -> ctypes.CDLL | None:
    compiler = _compiler()
    if compiler is None:
        _warn(f'no C++ compiler was found ({", ".join(_COMPILERS)}, or the one in CXX)')
        return None
    try:
        try:
            library = ctypes.CDLL(str(_compiled(compiler)))
        except OSError:
            # The cached file may be damaged.
            library = ctypes.CDLL(str(_compiled(compiler, again=True)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, 'stderr', None) or str(error)
        _warn(f'{compiler} could not compile them: {reason.strip()[-300:]}')
        return None
    _Threads.find()
    return library


def _warn(reason: str) -> None:
    logging.getLogger(__name__).warning(
        'Large kernels run without the compiled CPU kernels, which is several times slower: %s',
        reason,
    )


def _compiler() -> str | None:
    chosen = os.environ.get('CXX')
    return next(filter(None, map(shutil.which, [chosen] if chosen else _COMPILERS)), None)


def _compiled(compiler: str, again: bool = False) -> Path:
    """Return the library for this processor, compiled unless it is in the cache."""
    machine = platform.machine()
    native = '-mcpu=native' if machine in ('aarch64', 'arm64') else '-march=native'
    command = [compiler, *_FLAGS, native]
    inputs = [_SOURCE.read_bytes(), ' '.join(command), _processor(), os.stat(compiler).st_mtime]
    digest = hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]
    name = f'depthwise-{machine}-{digest}.so'
    try:
        cache = cache_directory()
        file = cache / name
        if file.is_file() and is_private(file) and not again:
            return file
        folder = tempfile.mkdtemp(dir=cache)
    except OSError:
        # The cache cannot be used: compile for this process alone, in a directory of this user.
        folder = tempfile.mkdtemp(prefix='mmslak-')
        file = Path(folder) / name
    fresh = Path(folder) / 'fresh.so'
    try:
        subprocess.run(
            [*command, '-o', str(fresh), str(_SOURCE)],
            check=True, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        # Renaming is atomic. Other processes may read or write the same file.
        fresh.replace(file)
    finally:
        if Path(folder) != file.parent:
            shutil.rmtree(folder, ignore_errors=True)
    return file


def cache_directory() -> Path:
    """Return the directory of this package's cache, created if it is missing.

    Raises:
        OSError: If it cannot be created, or if other users can write to it.
    """
    try:
        root = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    except RuntimeError as error:  # there is no home directory
        raise FileNotFoundError(str(error)) from error
    cache = root / 'mmslak' / 'ops'
    root.mkdir(parents=True, exist_ok=True)
    for folder in (cache.parent, cache):
        folder.mkdir(mode=0o700, exist_ok=True)
    if not (is_private(cache.parent) and is_private(cache)):
        raise PermissionError(f'other users can write to {cache}')
    return cache


def is_private(path: Path) -> bool:
    """Return whether only this user and root can write to ``path``.

    Loading a library runs its code, so that nobody else may be able to put one there.
    """
    status = path.stat()
    return status.st_uid in (os.getuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _processor() -> str:
    """Return the model and the features of the processor that the system reports."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    kinds = ('model name', 'flags', 'Features', 'CPU implementer', 'CPU part')
    return '\n'.join(sorted({line for line in lines if line.startswith(kinds)}))
