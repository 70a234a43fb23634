"""Compiling ``depthwise.cpp`` for the CPU.

``setup.py`` runs this file alone, so that it imports only the standard library.
"""

import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name('depthwise.cpp')
#: Directory of the libraries that a wheel contains.
PREBUILT = SOURCE.parent / 'prebuilt'
#: Variant for x86-64 -> the features of the processor that it needs. GCC, Clang and Linux use the
#: same names. The last variant that the processor supports is the fastest one.
VARIANTS = {
    'baseline': (),
    'avx2': ('avx2', 'fma'),
    'avx512': ('avx2', 'fma', 'avx512f', 'avx512vl', 'avx512bw', 'avx512dq'),
}
#: Variant for the processor that compiles it.
NATIVE = 'native'
COMPILERS = ('g++', 'clang++', 'c++')
_FLAGS = ('-std=c++17', '-O3', '-shared', '-fPIC', '-fno-exceptions', '-fno-rtti')


def library_name(variant: str) -> str:
    """Return the name of the library of a variant in :data:`PREBUILT`."""
    return f'depthwise-{variant}.so'


def find_compiler() -> list[str] | None:
    """Return the command of the C++ compiler: the one in ``CXX``, or the first that is found.

    ``CXX`` may contain arguments, such as ``ccache g++``.
    """
    chosen = os.environ.get('CXX')
    for name in [chosen] if chosen else COMPILERS:
        if program := shutil.which(name):
            return [program]
        try:
            first, *rest = shlex.split(name)
        except ValueError:
            continue
        if program := shutil.which(first):
            return [program, *rest]
    return None


def compile_command(compiler: list[str], variant: str) -> list[str]:
    """Return the command that compiles a variant, without its input and output."""
    if variant == NATIVE:
        arm = platform.machine() in ('aarch64', 'arm64')
        target = ['-mcpu=native' if arm else '-march=native']
    else:
        target = [f'-m{feature}' for feature in VARIANTS[variant]]
    return [*compiler, *_FLAGS, *target]


def compile_library(compiler: list[str], variant: str, out: Path) -> None:
    """Compile a variant.

    Args:
        compiler (list[str]): The command of the compiler.
        variant (str): A key of :data:`VARIANTS`, or :data:`NATIVE`.
        out (Path): The library to write.

    Raises:
        OSError: If the compiler cannot be started.
        subprocess.SubprocessError: If it fails or takes longer than five minutes.
    """
    subprocess.run(
        [*compile_command(compiler, variant), '-o', str(out), str(SOURCE)],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
