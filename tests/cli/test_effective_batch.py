"""Batch sizes over several processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmslak.cli.config import process_count, set_effective_batch

pytest.importorskip('mmpretrain')

ROOT = Path(__file__).parents[2]


def small(batch_size=16):
    return Config(
        dict(
            train_dataloader=dict(batch_size=batch_size),
            optim_wrapper=dict(type='OptimWrapper'),
            custom_hooks=[dict(type='mmpretrain.EMAHook'), dict(type='Other')],
        )
    )


def test_effective_batch():
    cfg = small()
    set_effective_batch(cfg, 4096, 8)
    assert cfg.optim_wrapper.accumulative_counts == 4096 // 16 // 8 == 32
    assert cfg.custom_hooks == [dict(type='mmpretrain.EMAHook', interval=32), dict(type='Other')]
    for effective, processes in ((4096, 3), (8, 1), (0, 1), (-16, 1)):
        with pytest.raises(ValueError, match=r'not a multiple of . process.* x .*batch_size=16'):
            set_effective_batch(small(), effective, processes)


def test_process_count(monkeypatch):
    for key in ('WORLD_SIZE', 'SLURM_NTASKS'):
        monkeypatch.setenv(key, '6')
    assert [process_count(x) for x in ('none', 'pytorch', 'slurm')] == [1, 6, 6]


STEP = """
import sys, torch
from mmengine.dist import all_gather, get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, DATASETS
from mmslak.cli.run import run
from mmslak.console import guarded

@HOOKS.register_module()
class Watch(Hook):
    def before_train(self, runner):
        self.losses, step = [], runner.optim_wrapper.step
        model = getattr(runner.model, 'module', runner.model)
        def watched(**kwargs):
            grads = {n: p.grad.clone() for n, p in model.named_parameters()}
            losses = torch.cat(all_gather(torch.stack(self.losses)))
            if get_rank() == 0:
                torch.save(dict(grads=grads, losses=losses), sys.argv[-1])
            step(**kwargs)
        runner.optim_wrapper.step = watched
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        pass
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == 0:
            model = getattr(runner.model, 'module', runner.model)
            parse = model.parse_losses
            def kept(losses):
                loss, log = parse(losses)
                self.losses.append(loss.detach())
                return loss, log
            model.parse_losses = kept

guarded(run)('train', sys.argv[1:-1])
"""


@pytest.mark.slow
def test_one_and_two_processes_take_the_same_step(tmp_path):
    """Batch 1 each, so that batch norms see the same batches whoever computes them."""
    from mmslak.sample_data import write_sample_data

    write_sample_data(tmp_path / 'sample', images=40, size=64)
    (tmp_path / 'step.py').write_text(STEP)
    config = tmp_path / 'c.py'
    config.write_text(f"""
_base_ = '{ROOT}/configs/sample/slak_nano_in1k.py'
loader = dict(batch_size=1, num_workers=0, persistent_workers=False)
train_pipeline = _base_.test_pipeline
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, indices=4), **loader)
val_dataloader = dict(dataset=dict(indices=2), **loader)
custom_hooks = [dict(type='Watch')]
train_cfg = dict(max_epochs=1, val_interval=9)
""")
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    results = []
    for processes in (1, 2):
        work, out = tmp_path / f'w{processes}', tmp_path / f'{processes}.pth'
        command = [sys.executable]
        if processes == 2:
            command += ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
        command += [tmp_path / 'step.py', config, '--work-dir', work, '--effective-batch', '4']
        command += ['--launcher', 'pytorch' if processes == 2 else 'none']
        command += ['--cfg-options', f'data_root={tmp_path}/sample/imagenet', out]
        done = subprocess.run(
            list(map(str, command)), cwd=ROOT, env=env, text=True, timeout=600,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        results.append(torch.load(out, weights_only=True))
    one, two = results
    assert len(one['losses']) == len(two['losses']) == 4
    assert len(set(one['losses'].tolist())) == 4
    torch.testing.assert_close(one['losses'].mean(), two['losses'].mean())
    torch.testing.assert_close(one['losses'].sort().values, two['losses'].sort().values)
    for name, grad in one['grads'].items():
        torch.testing.assert_close(two['grads'][name], grad, rtol=1e-4, atol=1e-6, msg=name)
    assert any(grad.abs().max() > 1e-3 for grad in one['grads'].values())
