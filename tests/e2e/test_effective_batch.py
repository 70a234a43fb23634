"""An optimiser step over several processes."""

import sys

import pytest
import torch
from helpers import ROOT, run_tool

pytest.importorskip('mmpretrain')

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
def test_one_and_two_processes_make_the_same_step(sample_data, tmp_path):
    """With one image per batch, batch norms have the same inputs in both cases."""
    data_root = sample_data(40, 64) / 'imagenet'
    (tmp_path / 'step.py').write_text(STEP)
    config = tmp_path / 'c.py'
    config.write_text(f"""
_base_ = '{ROOT}/configs/sample/slak_nano_in1k.py'
loader = dict(batch_size=1, num_workers=0, persistent_workers=False)
train_pipeline = _base_.test_pipeline
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, indices=4), **loader)
val_dataloader = dict(dataset=dict(indices=2), **loader)
custom_hooks = [dict(type='Watch')]
# SNIP would use other images with two processes.
default_hooks = dict(sparsity=dict(type='mmslak.DynamicSparsityHook', mode='off'))
train_cfg = dict(max_epochs=1, val_interval=9)
""")
    results = []
    for processes in (1, 2):
        work, out = tmp_path / f'w{processes}', tmp_path / f'{processes}.pth'
        launcher = [sys.executable]
        if processes == 2:
            launcher += ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
        run_tool(
            tmp_path / 'step.py', config, '--work-dir', work, '--effective-batch', '4',
            '--launcher', 'pytorch' if processes == 2 else 'none',
            '--cfg-options', f'data_root={data_root}', out, launcher=launcher,
        )  # fmt: skip
        results.append(torch.load(out, weights_only=True))
    one, two = results
    assert len(one['losses']) == len(two['losses']) == 4
    assert len(set(one['losses'].tolist())) == 4
    torch.testing.assert_close(one['losses'].mean(), two['losses'].mean())
    torch.testing.assert_close(one['losses'].sort().values, two['losses'].sort().values)
    for name, grad in one['grads'].items():
        torch.testing.assert_close(two['grads'][name], grad, rtol=1e-4, atol=1e-6, msg=name)
    assert any(grad.abs().max() > 1e-3 for grad in one['grads'].values())
