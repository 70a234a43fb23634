"""What tests of Triton kernels share: where they run, and kernels compiled without a GPU.

Triton decides at import whether kernels are compiled or interpreted. With a GPU all tests run in
one process, compiled. Without a GPU, tests of kernels run in the interpreter, in another process.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
from helpers import ROOT
from interpreted import patch_interpreter
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DEVICE = 'cuda' if torch.cuda.is_available() and not INTERPRETED else 'cpu'

runs_kernels = pytest.mark.skipif(
    DEVICE == 'cpu' and not INTERPRETED,
    reason='without a GPU test_in_the_interpreter runs this test',
)
starts_the_interpreter = pytest.mark.skipif(
    INTERPRETED or DEVICE == 'cuda', reason='the tests run in this process'
)
compiles = pytest.mark.skipif(
    INTERPRETED or not Path(triton.knobs.nvidia.ptxas.path).exists(),
    reason="needs Triton's compiler and ptxas",
)

if INTERPRETED:
    patch_interpreter()


def run_in_the_interpreter(file, selection='not slow'):
    """Run the tests of a file in another process, where Triton interprets kernels."""
    run = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-m', selection, file],
        cwd=ROOT,
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert ' passed' in run.stdout


def compiled(launch, capability):
    """Compile a kernel as Triton does for these arguments of `triton_launch.launch`."""
    kernel, plan, *tensors = launch
    arguments = {**dict(zip(kernel.arg_names, tensors, strict=False)), **plan.arguments}
    target = GPUTarget('cuda', capability[0] * 10 + capability[1], 32)
    backend = make_backend(target)
    passed = dict(arguments, num_warps=plan.warps, num_stages=plan.stages, maxnreg=plan.registers)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = bind(**passed)
    options, signature, constants, attributes = kernel._pack_args(
        backend, dict(passed, debug=False), bound, specialization, options
    )
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=target, options=options.__dict__)


def usage(result, folder: Path) -> tuple[int, int]:
    """Return the number of registers of a thread and the bytes that it spills."""
    binary = folder / 'kernel.cubin'
    binary.write_bytes(result.asm['cubin'])
    text = subprocess.run(
        [triton.knobs.nvidia.cuobjdump.path, '-res-usage', str(binary)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return tuple(int(n) for n in re.search(r'REG:(\d+) STACK:(\d+)', text).groups())
