"""Trainings with several processes: faults of one rank, restarts, and equality to one process."""

import os
import re
import socket
import subprocess
import sys
import time

import pytest
import torch
from helpers import ROOT
from states import assert_same_state

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
        if self.kind == 'kill_machine':
            os.kill(os.getppid(), signal.SIGKILL)
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
        command += [*arguments, '--cfg-options', 'env_cfg.dist_cfg.timeout=60', *options]
        return list(map(str, command))

    return make


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a command line, and stop what is left at the end."""
    started = []

    def run(command):
        started.append(popen(command, tmp_path))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            # The launcher stops its processes.
            process.terminate()
            process.communicate(timeout=60)


def popen(command, tmp_path):
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
    text, _ = process.communicate(timeout=900)
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
        ('hang', 1, 150, r'error: rank 1 does not respond: it was killed, ran out of memory, or '),
        (
            'mask',
            1,
            30,
            r"error: .*the mask of '\S+' differs between ranks: \w+ on rank 0, \w+ on ",
        ),
        ('rate', 1, 30, r'error: .*group 0 differs between ranks: \S+ on rank 0, 0.125 on rank 1;'),
    ],
)
def test_a_fault_of_one_rank_ends_all_and_is_the_last_line(
    job, start, tmp_path, kind, code, limit, words
):
    process = start(job(kind))
    text = finish(process, code)
    ended = time.time() - (tmp_path / 'marker').stat().st_mtime
    assert re.match(words, last_line(text)), text
    assert ended < limit, text


@pytest.mark.slow
def test_a_restarted_training_resumes_exactly_and_continues_with_fewer_processes(
    job, start, tmp_path
):
    text = finish(start(job('kill', '--max-restarts', '1')))
    assert 'resumed epoch: 0, iter: 4' in text and (tmp_path / 'work/iter_8.pth').is_file()
    assert 'A step of the optimiser uses' not in text
    (tmp_path / 'work').rename(tmp_path / 'restarted')
    finish(start(job('none')))
    # On CPUs batch norms are not synchronised, and a checkpoint has the statistics of the first
    # rank only. They change the scores of a validation, but not the training.
    scores = ('message_hub', 'best_score')
    assert_same_state(
        tmp_path / 'work/iter_8.pth', tmp_path / 'restarted/iter_8.pth', ignored=scores
    )
    text = finish(start(job('none', '--resume', processes=1, options=['train_cfg.max_iters=10'])))
    assert 'resumed epoch: 0, iter: 8' in text and (tmp_path / 'work/iter_10.pth').is_file()
    assert 'uses 2 images, but the resumed checkpoint was trained with 4' in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'machines', 'codes'), [('kill', '2', (0, 0)), ('kill_machine', '1:2', (0, -9))]
)
def test_two_launchers_restart_together_or_without_a_lost_one(
    job, start, tmp_path, kind, machines, codes
):
    port = free_port()
    endpoint = ['--nnodes', machines, '--rdzv-endpoint', f'127.0.0.1:{port}', '--max-restarts', '2']
    command = job(kind, *endpoint, processes=1)
    first = start(command)
    wait_for_port(port)
    second = start(command)
    texts = [finish(process, code) for process, code in zip((first, second), codes, strict=True)]
    assert 'resumed epoch: 0, iter: 4' in texts[0], texts[0]
    assert (tmp_path / 'work/iter_8.pth').is_file()
    lost = 'uses 2 images, but the resumed checkpoint was trained with 4' in texts[0]
    assert lost == (kind == 'kill_machine')


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def wait_for_port(port):
    for _ in range(3000):
        with socket.socket() as client:
            if client.connect_ex(('127.0.0.1', port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f'nothing listens on port {port}')


@pytest.mark.slow
def test_two_and_four_processes_equal_one(start, sample_data, tmp_path):
    """Six steps of four images with updates of the masks: the same weights and masks.

    With one image per batch, batch norms have the same inputs in all cases.
    """
    pytest.importorskip('mmpretrain')
    loader = dict(batch_size=1, num_workers=0, persistent_workers=False)
    config = tmp_path / 'c.py'
    config.write_text(f"""
_base_ = '{ROOT}/configs/sample/slak_nano_in1k.py'
data_root = '{sample_data(40, 64)}/imagenet'
train_pipeline = _base_.test_pipeline
train_dataloader = dict(
    dataset=dict(data_root=data_root, pipeline=train_pipeline, indices=8), **{loader}
)
val_dataloader = dict(dataset=dict(data_root=data_root, indices=2), **{loader})
default_hooks = dict(
    checkpoint=dict(interval=3), ema=None, finish_training=None,
    sparsity=dict(allocation='erk', update=dict(every=2)),
)
# Gradients that are zero up to rounding would become large steps of AdamW.
optim_wrapper = dict(
    _delete_=True, optimizer=dict(type='SGD', lr=0.01, momentum=0.9),
)
param_scheduler = [dict(type='MultiStepLR', milestones=[1, 2], by_epoch=True)]
train_cfg = dict(max_epochs=3, val_interval=9)
""")
    results = []
    for processes in (1, 2, 4):
        work = tmp_path / f'work{processes}'
        command = ['tools/dist_train.sh', config, processes, '--work-dir', work]
        finish(start(list(map(str, [*command, '--effective-batch', 4]))))
        results.append(torch.load(work / 'epoch_3.pth', weights_only=True))
    one = results[0]
    assert one['dynamic_sparsity']['steps'] == 6
    for other in results[1:]:
        packed = other['dynamic_sparsity']['packed']
        assert packed.keys() == one['dynamic_sparsity']['packed'].keys()
        for name, mask in one['dynamic_sparsity']['packed'].items():
            assert torch.equal(packed[name], mask), name
        rates = [
            [group['lr'] for group in result['optimizer']['param_groups']]
            for result in (one, other)
        ]
        assert rates[0] == rates[1] and rates[0][0] == pytest.approx(1e-4)
        for name, value in one['state_dict'].items():
            # Each process has running statistics of its own images.
            if 'running_' not in name and 'num_batches' not in name:
                torch.testing.assert_close(
                    other['state_dict'][name], value, rtol=1e-4, atol=1e-6, msg=name
                )
