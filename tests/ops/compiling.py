"""Triton kernels compiled for a GPU that need not be there."""

import re
import subprocess
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature


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
