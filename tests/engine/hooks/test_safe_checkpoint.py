"""A full disk costs neither a checkpoint nor a training."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from mmengine.config import ConfigDict
from small_training import Call, hook_named, small_runner

from mmslak.checkpoints import read_checkpoint
from mmslak.cli.config import prepare
from mmslak.engine.hooks.safe_checkpoint import checkpoint_size


def keep_one(**kwargs):
    hook = dict(type='CheckpointHook', interval=2, by_epoch=False, max_keep_ckpts=1)
    return dict(checkpoint=dict(hook, **kwargs))


def files(work_dir):
    return sorted(path.name for path in work_dir.glob('*.pth*'))


def fail(*args):
    raise OSError(28, 'No space left on device')


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_the_only_checkpoint_survives_a_failure(tmp_path, monkeypatch, step):
    """Neither file nor training is lost, and the next checkpoint is written."""
    seen = []

    def break_disk(runner):
        monkeypatch.setattr(f'mmslak.checkpoints.writing.os.{step}', fail)

    def mend(runner):
        hook, info = hook_named(runner, 'SafeCheckpointHook'), runner.message_hub.runtime_info
        seen.append((files(tmp_path), hook.last_ckpt, info['last_ckpt'], info['keep_ckpt_ids']))
        monkeypatch.undo()

    small_runner(tmp_path, hooks=keep_one(), custom=[Call(3, break_disk), Call(5, mend)]).train()
    kept = str(tmp_path / 'iter_2.pth')
    assert seen == [(['iter_2.pth'], kept, kept, [2])]
    assert files(tmp_path) == ['iter_8.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_8.pth')
    assert read_checkpoint(tmp_path / 'iter_8.pth')['message_hub']['runtime_info'][
        'keep_ckpt_ids'
    ] == [8]


def test_old_files_are_removed_after_the_new_one_is_written(tmp_path, monkeypatch):
    seen, replace = [], os.replace

    def watch(source, target):
        replace(source, target)
        seen.append(files(tmp_path))

    monkeypatch.setattr('mmslak.checkpoints.writing.os.replace', watch)
    small_runner(tmp_path, iters=4, hooks=keep_one()).train()
    assert seen == [['iter_2.pth'], ['iter_2.pth', 'iter_4.pth']]
    assert files(tmp_path) == ['iter_4.pth']


def test_the_best_checkpoint_survives_a_failure(tmp_path, monkeypatch):
    runner = small_runner(tmp_path, hooks=keep_one(save_best='score', rule='greater'))
    hook = hook_named(runner, 'SafeCheckpointHook')

    def validate(at, score):
        def call(runner):
            hook.after_val_epoch(runner, dict(score=score))

        return Call(at, call)

    def break_disk(runner):
        monkeypatch.setattr('mmslak.checkpoints.writing.os.replace', fail)
        hook.after_val_epoch(runner, dict(score=2.0))
        assert runner.message_hub.get_info('best_score') == 1.0
        monkeypatch.undo()

    for call in (validate(4, 1.0), Call(6, break_disk), validate(8, 1.5)):
        runner.register_hook(call)
    runner.train()
    assert files(tmp_path) == ['best_score_iter_7.pth', 'iter_8.pth']
    assert runner.message_hub.get_info('best_score') == 1.5


def test_the_best_checkpoint_can_be_written_again(tmp_path):
    """A better score at the same iteration replaces the file, as after resuming."""
    runner = small_runner(tmp_path, hooks=keep_one(save_best='score', rule='greater'))
    hook = hook_named(runner, 'SafeCheckpointHook')

    def validate(runner):
        hook.after_val_epoch(runner, dict(score=1.0))
        hook.after_val_epoch(runner, dict(score=2.0))

    runner.register_hook(Call(4, validate))
    runner.train()
    assert files(tmp_path) == ['best_score_iter_3.pth', 'iter_8.pth']


@pytest.mark.parametrize('ema', [False, True])
@pytest.mark.parametrize(
    'optimizer', [dict(type='AdamW', lr=0.1), dict(type='SGD', lr=0.1, momentum=0.9)]
)
def test_the_estimate_is_close(tmp_path, optimizer, ema):
    hooks = dict(keep_one(), **(dict(ema=dict(type='EMAHook')) if ema else {}))
    runner = small_runner(
        tmp_path, iters=2, hooks=hooks, optim=dict(optimizer=optimizer),
        model=dict(type='SmallNetwork', hidden=5000),
    )  # fmt: skip
    runner.train()
    size = (tmp_path / 'iter_2.pth').stat().st_size
    estimate = checkpoint_size(runner.model, runner.optim_wrapper.optimizer, ema)
    assert 0.9 * size < estimate <= size


def test_too_little_space_is_named_before_the_training(tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr('shutil.disk_usage', lambda path: usage)
    with pytest.raises(
        ValueError, match=r'work_dir .* has 0\.0 MB of free space, but a checkpoint'
    ):
        small_runner(tmp_path).train()
    assert not files(tmp_path)
    # No checkpoint is due.
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=-1, save_last=False))
    small_runner(tmp_path, hooks=hooks).train()


def test_too_little_space_for_all_checkpoints_is_said(tmp_path, monkeypatch, capsys):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10_000, 10_000)
    monkeypatch.setattr('shutil.disk_usage', lambda path: usage)
    small_runner(tmp_path, log_level='WARNING').train()
    assert 'but the 4 checkpoints of this training need about' in capsys.readouterr().out
    small_runner(tmp_path / 'few', hooks=keep_one(), log_level='WARNING').train()
    assert 'checkpoints of this training' not in capsys.readouterr().out


@pytest.mark.parametrize('kind', ['CheckpointHook', 'other.CheckpointHook'])
def test_only_the_hook_of_mmengine_is_replaced(kind):
    cfg = ConfigDict(default_hooks=dict(checkpoint=dict(type=kind, interval=3)))
    prepare(cfg)
    safe = 'mmslak.SafeCheckpointHook' if kind == 'CheckpointHook' else kind
    assert cfg.default_hooks.checkpoint == dict(type=safe, interval=3)


@pytest.fixture(scope='module')
def on_a_full_disk(tmp_path_factory):
    """Return what happened in trainings on a small file system that only this process sees."""
    disk = tmp_path_factory.mktemp('disk')
    mount = f'mount -t tmpfs -o size=8m tmpfs {disk}'
    inside = ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c']
    if (
        not shutil.which('unshare')
        or subprocess.run([*inside, mount], capture_output=True).returncode
    ):
        pytest.skip('this machine allows no private file system')
    script = Path(__file__).with_name('full_disk.py')
    done = subprocess.run(
        [*inside, f'{mount} && exec {sys.executable} {script} {disk}'],
        env={**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT}/tests'}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    result = json.loads(next(line for line in lines if line.startswith('RESULT'))[6:])
    return dict(result, stderr=done.stderr, stdout=done.stdout)


@pytest.mark.slow
def test_a_training_survives_a_full_disk(on_a_full_disk):
    run = on_a_full_disk['between']
    seen = {int(at): names for at, names in run['seen'].items()}
    assert seen[2] == seen[4] == seen[6] == ['iter_2.pth']
    # The disk has space again before the seventh iteration.
    assert seen[8] == ['iter_8.pth'] and run['iter'] == 8 and not run['error']
    assert run['latest'].endswith('iter_8.pth')
    assert 'Traceback' not in on_a_full_disk['stderr']
    for step in (4, 6):
        assert (
            f'iter_{step}.pth cannot be written: No space left on device, 0.0 MB free; the '
            in (on_a_full_disk['stdout'])
        )


@pytest.mark.slow
def test_a_training_that_ends_on_a_full_disk_says_so(on_a_full_disk):
    run = on_a_full_disk['end']
    assert run['error'].startswith('OSError: checkpoint /')
    assert 'iter_8.pth cannot be written: No space left on device' in run['error']
    assert run['seen']['8'] == ['iter_6.pth'] and run['iter'] == 8


@pytest.mark.slow
def test_a_training_waits_for_space_at_its_end(on_a_full_disk):
    run = on_a_full_disk['later']
    assert not run['error'] and run['seen']['8'] == ['iter_8.pth']


@pytest.mark.slow
def test_a_full_disk_is_found_before_the_training(on_a_full_disk):
    run = on_a_full_disk['start']
    assert run['error'].startswith('ValueError: work_dir /') and run['iter'] == 0
    assert (
        'has 0.2 MB of free space, but a checkpoint of this training needs about 0.8 MB'
        in (run['error'])
    )
