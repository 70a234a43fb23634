"""Functions that tests of several directories share."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch.nn.modules.batchnorm import _BatchNorm

ROOT = Path(__file__).parents[1]


def run_tool(*command, options=(), expect=0, launcher=(sys.executable,)):
    """Run a command line of the repository in another process, as a user does.

    Args:
        command: The tool and its arguments.
        options (Sequence): Values of ``--cfg-options``.
        expect (int): Exit code that the process must have.
        launcher (Sequence): Program that runs the tool.

    Returns:
        str: What the process prints, on standard output and standard error.
    """
    command = [*launcher, *command]
    if options:
        command += ['--cfg-options', *options]
    # Two threads by default. On a busy machine OMP_NUM_THREADS=1 is much faster.
    environment = {'OMP_NUM_THREADS': '2', **os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == expect, done.stdout
    return done.stdout


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
