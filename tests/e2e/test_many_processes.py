"""Trainings with several processes: faults of one rank, restarts, and equality to one process."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from helpers import ROOT, run_tool

pytest.importorskip('mmseg')

FAULTS = """
import os, signal
from pathlib import Path
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Fault(Hook):
    '''Do something to rank 1 in iteration 5, once.'''

    def __init__(self, kind, marker):
        self.kind, self.marker = kind, Path(marker)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.rank != 1 or runner.iter != 4 or self.marker.exists():
            return
        self.marker.touch()
        if self.kind == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == 'hang':
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.kind == 'raise':
            raise RuntimeError('no luck')
        if self.kind == 'mask':
            sparsity = next(hook for hook in runner.hooks if hasattr(hook, 'dynamics')).dynamics
            name = sparsity.masks.masked[0]
            sparsity.masks[name] = sparsity.masks[name].flip(0)
        if self.kind == 'rate':
            runner.optim_wrapper.optimizer.param_groups[0]['lr'] = 0.125
"""


@pytest.fixture
def job(tmp_path, sample_data):
    """Return a function that makes a command of ``tools/dist_train.sh`` with a fault."""
    (tmp_path / 'faults.py').write_text(FAULTS)
    config = tmp_path / 'c.py'

    def make(kind, *arguments, processes=2, options=()):
        loader = 'dict(num_workers=0, persistent_workers=False)'
        config.write_text(f"""
_base_ = '{ROOT}/configs/sample/upernet_slak_nano_ade20k.py'
custom_imports = dict(imports=['faults'])
custom_hooks = [dict(type='Fault', kind='{kind}', marker='{tmp_path / 'marker'}')]
data_root = '{sample_data(20, 96)}/ADEChallengeData2016'
train_dataloader = dict(batch_size=2, dataset=dict(data_root=data_root), **{loader})
val_dataloader = dict(dataset=dict(data_root=data_root), **{loader})
model = dict(decode_head=dict(channels=16))
train_cfg = dict(max_iters=8, val_interval=100)
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(interval=2),
    # Without SNIP, whose scores depend on the number of processes.
    sparsity=dict(allocation='erk', update=dict(every=1)),
)
""")
        command = ['tools/dist_train.sh', config, processes, '--work-dir', tmp_path / 'work']
        command += [*arguments, '--cfg-options', 'env_cfg.dist_cfg.timeout=15', *options]
        return list(map(str, command))

    return make


def start(command, tmp_path):
    """Start a command line, with its output in a file."""
    environment = dict(
        os.environ,
        PYTHONPATH=f'{ROOT}{os.pathsep}{tmp_path}',
        PYTHON=sys.executable,
        OMP_NUM_THREADS='1',
        PYTHONUNBUFFERED='1',
    )
    for name in ('PORT', 'MASTER_ADDR', 'NNODES', 'NODE_RANK'):
        environment.pop(name, None)
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def finish(process, code=0):
    text, _ = process.communicate(timeout=300)
    assert process.returncode == code, text
    return text


def last_line(text):
    return text.rstrip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'code', 'limit', 'words'),
    [
        ('kill', 137, 30, r'error: rank 1 was ended by SIGKILL, as when the machine runs out of '),
        ('raise', 1, 30, r'error: rank 1: RuntimeError: no luck$'),
        ('hang', 1, 80, r'error: rank 1 does not respond: it was killed, ran out of memory, or '),
        ('mask', 1, 30, r"error: .*the mask of '\S+' differs between ranks: \w+ on rank 0, \w+ on "),
        ('rate', 1, 30, r'error: .*group 0 differs between ranks: \S+ on rank 0, 0.125 on rank 1;'),
    ],
)
def test_a_fault_of_one_rank_ends_all_and_is_the_last_line(job, tmp_path, kind, code, limit, words):
    process = start(job(kind), tmp_path)
    text = finish(process, code)
    ended = time.time() - (tmp_path / 'marker').stat().st_mtime
    assert re.match(words, last_line(text)), text
    assert ended < limit, text
