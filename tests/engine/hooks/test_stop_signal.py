"""Saving a checkpoint when a training is told to stop."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT, run_tool
from mmengine.hooks import CheckpointHook
from torch.utils.data import DataLoader

from mmslak.engine import StopSignalHook
from mmslak.engine.hooks.stop_signal import ShieldedWorker


class Saving(CheckpointHook):
    """A hook that records its checkpoints."""

    def __init__(self, by_epoch):
        super().__init__(by_epoch=by_epoch)
        self.saved = []

    def _save_checkpoint(self, runner):
        self.saved.append(runner.iter + 1)
        self.last_ckpt = f'iter_{runner.iter + 1}.pth'


def started(by_epoch=False):
    lines, saving = [], Saving(by_epoch)
    logger = SimpleNamespace(warning=lines.append)
    runner = SimpleNamespace(hooks=[saving], iter=6, logger=logger)
    hook = StopSignalHook()
    hook.before_train(runner)
    return hook, runner, saving, lines


@pytest.fixture(autouse=True)
def same_handlers_afterwards():
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    # A shell in the background ignores SIGINT.
    given = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before
    signal.signal(signal.SIGINT, given)


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT', 'SIGUSR1'])
def test_the_iteration_is_finished_and_saved(name):
    hook, runner, saving, lines = started()
    hook.after_train_iter(runner, 0)
    os.kill(os.getpid(), getattr(signal, name))
    assert not saving.saved
    with pytest.raises(SystemExit) as stopped:
        hook.after_train_iter(runner, 0)
    assert stopped.value.code == 128 + getattr(signal, name)
    assert saving.saved == [7]
    assert lines == [
        f'Stopped after iteration 7 by {name}: the last checkpoint is iter_7.pth; to continue, add '
        '--resume to the same command'
    ]


def test_an_epoch_that_is_not_finished_is_saved_under_its_own_name():
    hook, runner, saving, _ = started(by_epoch=True)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit):
        hook.after_train_iter(runner, 0)
    assert saving.saved == [7] and saving.filename_tmpl.format(7) == 'stopped.pth'
    assert not saving.by_epoch


def test_validation_stops_without_saving():
    hook, runner, saving, lines = started()
    hook.after_val_iter(runner, 0)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(SystemExit):
        hook.after_val_iter(runner, 0)
    assert not saving.saved and 'Stopped in the validation by SIGINT' in lines[0]


def test_a_second_signal_stops_at_once():
    started()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


def test_processes_that_wait_for_a_lock_can_be_ended():
    """As a pool does at its end, at any time after the process was started."""
    hook, runner, *_ = started()
    # A later training in the same process has ended, and restored the handlers of the first.
    later, *_ = started()
    later.after_train(runner)
    lock = multiprocessing.get_context('fork').Semaphore(0)
    for attempt in range(60):
        child = os.fork()
        if child == 0:
            lock.acquire()
            os._exit(0)
        time.sleep(attempt % 30 * 1e-5)
        os.kill(child, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(1e-4)
        if ended == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert ended[0] == child and os.WTERMSIG(ended[1]) == signal.SIGTERM, f'fork {attempt}'
    hook.after_train(runner)


def test_a_process_that_loads_data_ignores_signals_to_the_group():
    hook, runner, *_ = started()
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.WEXITSTATUS(status) == 7
    hook.after_train(runner)


def test_a_data_loader_outlives_sigterm_to_its_processes():
    data = list(range(40))
    loader = DataLoader(data, num_workers=2, worker_init_fn=ShieldedWorker(None))
    batches = iter(loader)
    # One of each process, so that both are ready.
    found = [int(next(batches)), int(next(batches))]
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGTERM)
    time.sleep(0.5)
    assert found + [int(batch) for batch in batches] == data


@pytest.mark.slow
def test_a_stopped_training_continues_exactly(tmp_path, sample_data):
    """SIGTERM is sent to all processes, as by schedulers."""
    pytest.importorskip('mmseg')
    config = 'configs/sample/upernet_slak_nano_ade20k.py'
    options = [
        f'data_root={sample_data(20, 96)}/ADEChallengeData2016', 'train_cfg.max_iters=40',
        'train_cfg.val_interval=100', 'train_dataloader.batch_size=2', 'param_scheduler.1.end=40',
        'default_hooks.logger.interval=1', 'model.decode_head.channels=16',
        'train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=True',
        'default_hooks.checkpoint.interval=40', 'default_hooks.sparsity.update.every=5',
    ]  # fmt: skip
    command = ['tools/train.py', config, '--work-dir']
    run_tool(*command, tmp_path / 'whole', options=options)
    process = subprocess.Popen(
        [sys.executable, *command, str(tmp_path / 'cut'), '--cfg-options', *options],
        cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(r'Iter\(train\) \[ *7/', line):
            os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM, ''.join(lines)
    assert 'to continue, add --resume' in lines[-1]
    run_tool(*command, tmp_path / 'cut', '--resume', options=options)
    whole, cut = (
        torch.load(tmp_path / name / 'iter_40.pth', weights_only=True) for name in ('whole', 'cut')
    )
    assert whole['state_dict'].keys() == cut['state_dict'].keys()
    for name, value in whole['state_dict'].items():
        assert torch.equal(value, cut['state_dict'][name]), name
