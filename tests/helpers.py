"""Functions that tests of several directories share."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch.nn.modules.batchnorm import _BatchNorm

ROOT = Path(__file__).parents[1]


#: Seconds after which a command counts as hanging.
TIMEOUT = 900
_context = multiprocessing.get_context('forkserver')
_context.set_forkserver_preload(['preloaded'])


def run_tool(*command, options=(), expect=0, launcher=None):
    """Run a command line of the repository in another process, as a user does.

    Args:
        command: The tool and its arguments.
        options (Sequence): Values of ``--cfg-options``.
        expect (int): Exit code that the process must have.
        launcher (Sequence, optional): Program that runs the tool. Default: Python, in a process
            that has already imported the toolboxes, so that environment variables that are read
            on import have no effect.

    Returns:
        str: What the process prints, on standard output and standard error.
    """
    command = [*(launcher or ()), *command, *(['--cfg-options', *options] if options else ())]
    command = list(map(str, command))
    # Two threads by default. On a busy machine OMP_NUM_THREADS=1 is much faster.
    environment = {'OMP_NUM_THREADS': '2', **os.environ, 'PYTHONPATH': str(ROOT)}
    with tempfile.NamedTemporaryFile('w+') as out:
        if launcher is None:
            code = _run_preloaded(command, environment, out.name)
        else:
            code = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=out, stderr=out, timeout=TIMEOUT
            ).returncode
        out.seek(0)
        text = out.read()
    assert code == expect, text
    return text


def _run_preloaded(command, environment, out):
    process = _context.Process(target=_run_script, args=(command, environment, out))
    process.start()
    process.join(TIMEOUT)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f'{command} ran for more than {TIMEOUT} seconds')
    return process.exitcode


def _run_script(command, environment, out):
    """Run a script as ``python SCRIPT ARGUMENTS`` does, and write what it prints to a file."""
    file = os.open(out, os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name='__main__')


def randomise_as_trained(module, seed=0):
    """Draw convolution weights, and weights and statistics of batch norms, as after training.

    Returns:
        nn.Module: The module, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.data.normal_(0, 0.1, generator=generator)
        if isinstance(layer, _BatchNorm):
            layer.running_mean.normal_(0, 0.5, generator=generator)
            layer.running_var.uniform_(0.2, 3, generator=generator)
            layer.weight.data.uniform_(-1.5, 1.5, generator=generator)
            layer.bias.data.normal_(0, 0.5, generator=generator)
    return module.eval()
