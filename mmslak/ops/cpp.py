"""The CPU kernels of ``depthwise.cpp``, called with plain pointers.

A wheel of ``make wheel`` contains them for x86-64 processors without AVX2, with AVX2 and with
AVX-512. Without these libraries the first call compiles the file for this processor, which takes
about a second. The result is cached in ``~/.cache/mmslak/ops`` (or in ``mmslak/ops`` under
``XDG_CACHE_HOME``). Its name contains a hash of the source, the compiler and the processor. A
directory or a library that other users can write to is not used.

``MMSLAK_CPU_KERNELS`` selects a variant: ``baseline``, ``avx2``, ``avx512``, or ``native`` to
compile for this processor.
"""

import contextlib
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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from .compilation import (
    COMPILERS,
    NATIVE,
    PREBUILT,
    SOURCE,
    VARIANTS,
    compile_command,
    compile_library,
    find_compiler,
    library_name,
)

#: Environment variable that selects a variant of the kernels.
VARIANT = 'MMSLAK_CPU_KERNELS'
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
    """Return whether the kernels can be used. The first call loads or compiles them."""
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
    failed = _Threads.call(
        threads, getattr(_library(), f'mmslak_{task}_{_SUFFIX[x.dtype]}'),
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
    #: In a forked process, the thread that starts the others.
    starter: ThreadPoolExecutor | None = None
    forked = False

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
    def call(cls, threads: int, function, *arguments) -> int:
        """Call a function that runs on ``threads`` threads, and return its result."""
        if threads == 1 or not cls.forked:
            return function(*arguments)
        # A forked process does not have the threads of its parent. OpenMP keeps a list of threads
        # for each of its callers, so that the thread that called fork would wait for them forever.
        if cls.starter is None:
            cls.starter = ThreadPoolExecutor(1)
        return cls.starter.submit(function, *arguments).result()

    @classmethod
    def forget(cls) -> None:
        cls.forked, cls.starter = True, None


os.register_at_fork(after_in_child=_Threads.forget)


@functools.cache
def _library() -> ctypes.CDLL | None:
    variant = _chosen_variant()
    library = _load_prebuilt(variant) or _load_compiled(variant)
    if library is not None:
        _Threads.find()
    return library


def _chosen_variant() -> str:
    """Return the variant in the environment, or the fastest one for this processor.

    Raises:
        ValueError: If the environment names an unknown variant, or one for another processor.
    """
    features = _processor_features()
    missing = {name: sorted({*VARIANTS[name]} - features) for name in VARIANTS}
    chosen = os.environ.get(VARIANT)
    if chosen:
        if chosen not in (*VARIANTS, NATIVE):
            raise ValueError(f'{VARIANT} must be {", ".join(VARIANTS)} or {NATIVE}, got {chosen!r}')
        if missing.get(chosen):
            raise ValueError(
                f'{VARIANT}={chosen} needs a processor with {", ".join(missing[chosen])}, which '
                'this one does not have; choose another variant'
            )
        return chosen
    fastest = [name for name in VARIANTS if not missing[name]][-1]
    return fastest if (PREBUILT / library_name(fastest)).is_file() else NATIVE


def _load_prebuilt(variant: str) -> ctypes.CDLL | None:
    file = PREBUILT / library_name(variant)
    try:
        return ctypes.CDLL(str(file)) if file.is_file() else None
    except OSError:
        # For example, the file system does not allow programs.
        return None


def _load_compiled(variant: str) -> ctypes.CDLL | None:
    compiler = find_compiler()
    if compiler is None:
        _warn(f'no C++ compiler was found ({", ".join(COMPILERS)}, or the one in CXX)')
        return None
    try:
        try:
            with _compiled(compiler, variant) as file:
                return ctypes.CDLL(str(file))
        except OSError:
            # The cached file may be damaged.
            with _compiled(compiler, variant, again=True) as file:
                return ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, 'stderr', None) or str(error)
        _warn(f'{" ".join(compiler)} could not compile them: {reason.strip()[-300:]}')
        return None


def _warn(reason: str) -> None:
    logging.getLogger(__name__).warning(
        'Large kernels run without the compiled CPU kernels, which is several times slower: %s',
        reason,
    )


@contextlib.contextmanager
def _compiled(compiler: list[str], variant: str, again: bool = False) -> Iterator[Path]:
    """Provide the library of a variant, compiled unless it is in the cache.

    If the cache cannot be used, the library is in a directory of this user inside the context only.
    A loaded library does not need its file any more.
    """
    try:
        file = cache_directory() / _cached_name(compiler, variant)
    except OSError:
        file = None
    with contextlib.ExitStack() as stack:
        if file is None or again or not (file.is_file() and is_private(file)):
            folder = stack.enter_context(_temporary_directory(file and file.parent))
            fresh = Path(folder) / 'fresh.so'
            compile_library(compiler, variant, fresh)
            if file is not None and fresh.parent.parent == file.parent:
                # Renaming is atomic. Other processes may read or write the same file.
                fresh.replace(file)
            else:
                file = fresh
        yield file


def _cached_name(compiler: list[str], variant: str) -> str:
    programs = [shutil.which(word) for word in compiler]
    changed = [os.stat(program).st_mtime for program in programs if program]
    command = ' '.join(compile_command(compiler, variant))
    inputs = [SOURCE.read_bytes(), command, _processor(), changed]
    digest = hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]
    return f'depthwise-{platform.machine()}-{digest}.so'


def _temporary_directory(cache: Path | None) -> tempfile.TemporaryDirectory:
    """Create a directory in the cache, or in the system's directory if this is not possible."""
    if cache is not None:
        with contextlib.suppress(OSError):
            return tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True)
    return tempfile.TemporaryDirectory(prefix='mmslak-', ignore_cleanup_errors=True)


def cache_directory() -> Path:
    """Return the directory of the kernels in this package's cache, created if it is missing.

    Raises:
        OSError: If it cannot be created, or if other users can write to it.
    """
    root = cache_root()
    cache = root / 'mmslak' / 'ops'
    root.mkdir(parents=True, exist_ok=True)
    for folder in (cache.parent, cache):
        folder.mkdir(mode=0o700, exist_ok=True)
    if not (is_private(cache.parent) and is_private(cache)):
        raise PermissionError(f'other users can write to {cache}')
    return cache


def cache_root() -> Path:
    """Return the directory of the user's caches, ``XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        FileNotFoundError: If the user has no home directory.
    """
    try:
        return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    except RuntimeError as error:
        raise FileNotFoundError(str(error)) from error


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


def _processor_features() -> set[str]:
    """Return the features of the processor that the system reports and supports."""
    flags = [line for line in _processor().splitlines() if line.startswith('flags')]
    return set(flags[0].partition(':')[2].split()) if flags else set()
