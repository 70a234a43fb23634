"""Several processes: the launcher's arguments and last line, and what a failed rank reports."""

import argparse
import json
import logging
import signal
import threading
from datetime import timedelta

import pytest
import torch.distributed as dist
from mmengine.config import Config
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from mmslak.cli import processes, run
from mmslak.cli.config import prepare
from mmslak.cli.processes import RankFailureError, record_error, shared_failure


@pytest.fixture(scope='module')
def launch(load_tool):
    return load_tool('launch.py')


@pytest.fixture(autouse=True)
def no_launcher_around(monkeypatch):
    for name in ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'PORT', 'TORCHELASTIC_ERROR_FILE'):
        monkeypatch.delenv(name, raising=False)


def test_options_of_the_launcher_are_taken_from_those_of_the_script(launch):
    found = launch.torchrun_arguments(
        '4', ['train.py', 'c.py', '--cfg-options', 'a=1', '--max-restarts', '3', '--amp'], 'logs'
    )
    assert found == [
        '--nproc-per-node=4', '--max-restarts=3', '--log-dir=logs', '--nnodes=1', '--standalone',
        'train.py', 'c.py', '--cfg-options', 'a=1', '--amp',
    ]  # fmt: skip


def test_several_machines(launch, monkeypatch):
    found = launch.torchrun_arguments(
        '8', ['--nnodes', '1:2', '--rdzv-endpoint', 'a:29500', '--rdzv-id', '7', 't.py'], 'logs'
    )
    assert found[-4:] == [
        '--rdzv-backend=c10d', '--rdzv-endpoint=a:29500', '--rdzv-id=7', 't.py',
    ]  # fmt: skip
    with pytest.raises(ValueError, match='--nnodes 2 needs --rdzv-endpoint HOST:PORT'):
        launch.torchrun_arguments('8', ['t.py', '--nnodes', '2'], 'logs')
    monkeypatch.setenv('PORT', '1')
    assert '--standalone' in launch.torchrun_arguments('8', ['t.py'], 'logs')
    for name, value in dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='b', PORT='1').items():
        monkeypatch.setenv(name, value)
    assert launch.torchrun_arguments('8', ['t.py'], 'logs')[3:] == [
        '--nnodes=2', '--node-rank=1', '--master-addr=b', '--master-port=1', 't.py',
    ]  # fmt: skip


@pytest.mark.parametrize('count', ['0', '-1', 'two'])
def test_number_of_processes(launch, count):
    with pytest.raises(ValueError, match=f'must be a positive integer, got {count!r}'):
        launch.torchrun_arguments(count, ['t.py'], 'logs')


def failure(tmp_path, rank, exitcode, error=None, timestamp=None, monkeypatch=None):
    path = tmp_path / f'{rank}.json'
    if error is not None:
        monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', str(path))
        record_error(error)
        data = json.loads(path.read_text())
        if timestamp:
            data['message']['extraInfo']['timestamp'] = str(timestamp)
            path.write_text(json.dumps(data))
    found = ProcessFailure(rank, 1, exitcode, str(path))
    if timestamp:
        found.timestamp = timestamp
    return found


def test_the_first_failure_is_the_cause_and_not_its_consequence(launch, tmp_path, monkeypatch):
    failures = {
        0: failure(tmp_path, 0, 1, RankFailureError('rank 1 is silent'), 5, monkeypatch),
        1: failure(tmp_path, 1, -signal.SIGKILL, timestamp=5),
        2: failure(tmp_path, 2, -signal.SIGTERM, timestamp=5),
    }
    assert launch.first_failure(failures)[0] == 1
    # The launcher kills a rank that hangs later.
    failures[1].timestamp = failures[2].timestamp = 40
    rank, found = launch.first_failure(failures)
    assert (rank, launch.describe(rank, found)) == (0, 'rank 1 is silent')


def test_a_failure_is_described_in_one_line(launch, tmp_path, monkeypatch):
    killed = failure(tmp_path, 1, -signal.SIGKILL)
    assert launch.describe(1, killed) == (
        'rank 1 was ended by SIGKILL, as when the machine runs out of memory'
    )
    known = failure(tmp_path, 2, 2, ValueError('lr must\nbe positive'), None, monkeypatch)
    assert launch.describe(2, known) == 'rank 2: lr must be positive'
    other = failure(tmp_path, 3, 1, ZeroDivisionError('by 0'), None, monkeypatch)
    assert launch.describe(3, other) == 'rank 3: ZeroDivisionError: by 0'
    silent = failure(tmp_path, 4, 3)
    assert launch.describe(4, silent) == 'rank 4 ended with exit code 3; its message is above'


class Group:
    """Stand-in for a process group of three ranks."""

    def __init__(self, monkeypatch, reports, rank=0):
        self.left, self.store = False, dist.HashStore()
        for other, text in reports.items():
            self.store.set(f'mmslak/failure/{other}', text)
        monkeypatch.setattr(processes, 'GRACE', 0.5)
        monkeypatch.setattr(dist, 'is_initialized', lambda: True)
        monkeypatch.setattr(dist, 'get_world_size', lambda: 3)
        monkeypatch.setattr(dist, 'get_rank', lambda: rank)
        monkeypatch.setattr(dist.distributed_c10d, '_get_default_store', lambda: self.store)
        monkeypatch.setattr(dist, 'destroy_process_group', self.leave)

    def leave(self):
        self.left = True


LOST = RuntimeError('[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1')


@pytest.mark.parametrize(
    ('reports', 'words'),
    [
        ({}, 'ranks 1, 2 do not respond: '),
        ({1: ''}, 'rank 2 does not respond: '),
        ({1: '', 2: 'ValueError: no'}, 'rank 2 failed with ValueError: no'),
        ({1: '', 2: ''}, 'the connection between the ranks was lost'),
    ],
)
def test_a_lost_connection_is_explained(monkeypatch, reports, words):
    group = Group(monkeypatch, reports)
    with pytest.raises(RankFailureError, match=f'^{words}'), shared_failure():
        raise LOST
    assert not group.left and group.store.get('mmslak/failure/0') == b''


@pytest.mark.parametrize('rank', [0, 1])
@pytest.mark.parametrize('broken', ['hangs', 'ended'])
def test_a_lost_store_means_that_rank_0_is_lost(monkeypatch, rank, broken):
    group, released = Group(monkeypatch, {}, rank), threading.Event()

    class Store:
        def set(self, key, value):
            if broken == 'hangs':
                released.wait(60)
            raise RuntimeError('Connection reset by peer')

    group.store = Store()
    words = 'rank 0 does not respond' if rank else 'the connection between the ranks was lost'
    with pytest.raises(RankFailureError, match=f'^{words}'), shared_failure():
        raise LOST
    released.set()


def test_an_own_error_is_reported_and_the_group_is_left_only_after_success(monkeypatch):
    group = Group(monkeypatch, {})
    with pytest.raises(ZeroDivisionError), shared_failure():
        raise ZeroDivisionError('by 0')
    assert group.store.get('mmslak/failure/0') == b'ZeroDivisionError: by 0' and not group.left
    with shared_failure():
        pass
    assert group.left


@pytest.mark.parametrize('timeout', [0, -1, True, '60'])
def test_timeout_must_be_positive(monkeypatch, timeout):
    monkeypatch.setenv('RANK', '0')
    cfg = Config(dict(model=dict(), env_cfg=dict(dist_cfg=dict(timeout=timeout))))
    with pytest.raises(ValueError, match=r'env_cfg\.dist_cfg\.timeout must be a positive number'):
        prepare(cfg, 'pytorch')


@pytest.mark.parametrize(('given', 'used'), [({}, 600), (dict(timeout=30), 30)])
def test_timeout_is_used_for_gloo(monkeypatch, given, used):
    monkeypatch.setenv('RANK', '0')
    calls = []
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr(dist, 'init_process_group', lambda *args, **kw: calls.append((args, kw)))
    cfg = Config(dict(model=dict(), env_cfg=dict(dist_cfg=given)))
    prepare(cfg, 'pytorch')
    assert calls == [(('gloo',), dict(timeout=timedelta(seconds=used)))]
    assert cfg.env_cfg.dist_cfg.timeout == used


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (
            dict(runner_type='FlexibleRunner'),
            r"^runner_type='FlexibleRunner' is not supported, bec",
        ),
        (
            dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')),
            '^model_wrapper_cfg.type=',
        ),
        (
            dict(optim_wrapper=dict(optimizer=dict(type='ZeroRedundancyOptimizer'))),
            '^optim_wrapper.optimizer.type=ZeroRedundancyOptimizer is not supported',
        ),
    ],
)
def test_sharding_is_refused_by_name(settings, words):
    with pytest.raises(ValueError, match=words) as refused:
        prepare(Config(settings))
    assert '--amp' in str(refused.value)


@pytest.mark.parametrize('main', [True, False])
def test_scores_are_written_by_one_rank(monkeypatch, tmp_path, main):
    monkeypatch.setattr(run, 'is_main_process', lambda: main)
    out = tmp_path / 'scores.json'
    args = argparse.Namespace(out=str(out), show_dir=None, checkpoint='c.pth')
    run._report_test(args, dict(mIoU=1.0), logging.getLogger('test'), detection=False)
    assert out.exists() == main


@pytest.mark.parametrize(('saved', 'resumed'), [(False, False), (True, True)])
def test_restarts_continue_from_the_work_directory(monkeypatch, tmp_path, saved, resumed):
    monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', '3')
    monkeypatch.setattr(run, 'latest_checkpoint', lambda folder: (f'{folder}/iter_2.pth', []))
    cfg = Config(dict(work_dir=str(tmp_path)))
    if saved:
        (tmp_path / 'iter_2.pth').touch()
    assert run._set_resume(cfg, None) == [] and cfg.get('resume', False) == resumed
    with pytest.raises(ValueError, match=r'--resume x\.pth cannot be combined with --max-restarts'):
        run._set_resume(cfg, 'x.pth')
