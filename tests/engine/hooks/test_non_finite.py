"""NaN and infinite values stop a training before they reach the weights."""

import os
import re
import socket
import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, OPTIM_WRAPPERS
from small_training import Call, SmallNetwork, hook_named, small_runner
from torch import nn

from mmslak.checkpoints import read_checkpoint
from mmslak.cli.config import prepare
from mmslak.engine import AmpOptimWrapper, NonFiniteError, NonFiniteHook

RARE = dict(checkpoint=dict(type='CheckpointHook', interval=4, by_epoch=False))
SGD = dict(optimizer=dict(type='SGD', lr=1e-2, momentum=0.9))


def finite(runner):
    return all(torch.isfinite(value).all() for value in runner.model.state_dict().values())


def weights(runner):
    return {name: p.detach().clone() for name, p in runner.model.named_parameters()}


class Scaled(torch.autograd.Function):
    """The identity with a gradient that is multiplied by ``factor``."""

    @staticmethod
    def forward(context, value, factor):
        context.factor = factor
        return value.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * context.factor, None


@MODELS.register_module(force=True)
class FaultyNetwork(SmallNetwork):
    """A network with a fault in one iteration: in a feature map, in the loss or in a gradient."""

    def __init__(self, fault=None, at=5, value=float('nan')):
        super().__init__()
        self.scale = nn.Identity()
        self.fault, self.at, self.value, self.calls = fault, at, value, 0

    def forward(self, inputs, labels, mode='tensor'):
        # The pass that the hook repeats has the same number.
        self.calls += self.training and torch.is_grad_enabled()
        faulty = self.calls == self.at
        features = self.norm(self.stem(inputs))
        if faulty and self.fault == 'features':
            features = self.scale(features * self.value)
        features = features.relu().mean((2, 3))
        if faulty and self.fault == 'gradient':
            features = Scaled.apply(features, self.value)
        loss = nn.functional.cross_entropy(self.head(features), labels)
        if faulty and self.fault == 'loss':
            # The gradients are finite.
            loss = loss + self.value
        return dict(loss_class=loss)


def faulty(tmp_path, fault, **kwargs):
    value = kwargs.pop('value', float('nan'))
    at = kwargs.pop('at', 5)
    model = dict(type='FaultyNetwork', fault=fault, value=value, at=at)
    return small_runner(tmp_path, model=model, **kwargs)


@pytest.mark.parametrize('optim', [None, dict(clip_grad=dict(max_norm=1.0))])
@pytest.mark.parametrize(
    ('fault', 'value', 'text'),
    [
        ('features', float('nan'), 'the loss is nan; the first module with a non-finite output is '
         'scale (Identity), which returns nan;'),
        ('loss', float('inf'), 'the loss is inf; all modules return finite values, but loss_class '
         'is inf;'),
        ('gradient', float('nan'), 'gradients are not finite; the gradient of stem.weight '
         'contains nan;'),
    ],
)  # fmt: skip
def test_the_iteration_and_the_module_are_named(tmp_path, fault, value, text, optim):
    before = []
    runner = faulty(
        tmp_path, fault, value=value, optim=optim,
        custom=[Call(5, lambda runner: before.append(weights(runner)))],
    )  # fmt: skip
    with pytest.raises(NonFiniteError) as stopped:
        runner.train()
    message = str(stopped.value)
    assert message.startswith(f'iteration 5: {text}') and '\n' not in message
    assert f'the last checkpoint is {tmp_path / "iter_4.pth"};' in message
    # The step of the optimiser was not made.
    after = weights(runner)
    assert all(torch.equal(value, after[name]) for name, value in before[0].items())
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['iter_2.pth', 'iter_4.pth']


def test_a_bad_image_is_named(tmp_path):
    # Images 6 and 7 are in the fourth batch.
    with pytest.raises(NonFiniteError, match=r'iteration 4: .*the input of the model contains nan'):
        small_runner(tmp_path, dataset=dict(bad=6)).train()


@pytest.mark.parametrize('counts', [1, 4])
def test_accumulated_batches_are_checked_each(tmp_path, counts):
    runner = faulty(tmp_path, 'features', optim=dict(accumulative_counts=counts))
    with pytest.raises(NonFiniteError, match='iteration 5: the loss is nan'):
        runner.train()


def test_weights_that_a_step_spoils_are_not_written(tmp_path):
    # The step of iteration 6 makes the weights infinite, and a checkpoint is due after it.
    def raise_rate(runner):
        runner.optim_wrapper.optimizer.param_groups[0]['lr'] = float('inf')

    runner = small_runner(tmp_path, optim=SGD, custom=[Call(6, raise_rate)])
    with pytest.raises(NonFiniteError, match='no checkpoint is written') as stopped:
        runner.train()
    assert re.match(r'iteration 6: stem.weight contains (inf|nan)', str(stopped.value))
    assert str(tmp_path / 'iter_4.pth') in str(stopped.value)
    for path in tmp_path.glob('*.pth'):
        state = read_checkpoint(path)['state_dict']
        assert all(torch.isfinite(value).all() for value in state.values())
    assert not (tmp_path / 'iter_6.pth').exists()


def test_bad_first_weights_are_named(tmp_path):
    runner = small_runner(tmp_path)
    runner.model.norm.running_var[0] = float('inf')
    # The hook remembers the buffers of the model that the config builds.
    runner.model._is_init = True
    hook = hook_named(runner, 'NonFiniteHook')
    hook.before_run = lambda runner: None
    with pytest.raises(NonFiniteError, match=r'starts from .*: norm\.running_var contains inf'):
        runner.train()


def test_constants_may_be_infinite(tmp_path):
    runner = small_runner(tmp_path)
    runner.model.register_buffer('mask', torch.tensor([0.0, float('-inf')]))
    runner.train()
    assert (tmp_path / 'iter_8.pth').exists()


def test_large_gradients_are_not_a_failure(tmp_path):
    # Their squares overflow, so that their norm is infinite.
    runner = faulty(
        tmp_path,
        'gradient',
        value=1e25,
        optim=dict(SGD, clip_grad=dict(type='value', clip_value=1.0)),
    )
    runner.train()
    assert finite(runner)


@OPTIM_WRAPPERS.register_module(force=True)
class ScalingWrapper(AmpOptimWrapper):
    """A wrapper whose loss scaler works on a CPU too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0**16, growth_interval=10**6)


def test_overflows_of_mixed_precision_are_skipped(tmp_path):
    """As usual: the step is skipped, the scale is halved, and the training ends well."""
    runner = faulty(
        tmp_path, 'gradient', value=float('inf'), optim=dict(SGD, type='ScalingWrapper')
    )
    runner.train()
    assert runner.optim_wrapper.loss_scaler.get_scale() == 2.0**15
    assert finite(runner)


def test_a_loss_of_mixed_precision_that_is_not_finite_stops(tmp_path):
    runner = faulty(tmp_path, 'features', optim=dict(SGD, type='ScalingWrapper'))
    with pytest.raises(NonFiniteError, match='iteration 5: the loss is nan'):
        runner.train()


def test_mixed_precision_that_skips_every_step_stops(tmp_path):
    def spoil(runner):
        runner.model.head.weight.register_hook(lambda gradient: gradient * float('nan'))

    runner = small_runner(
        tmp_path,
        iters=100,
        optim=dict(SGD, type='ScalingWrapper'),
        custom=[Call(5, spoil)],
        hooks=RARE,
    )
    # The 50th skipped step.
    with pytest.raises(NonFiniteError, match=r'iteration 54: .*gradient of head\.weight'):
        runner.train()


def rollback(**kwargs):
    # As from the command line, without the type.
    return dict(non_finite=dict(action='rollback', **kwargs))


def test_rollback_continues_from_the_checkpoint_with_the_next_batch(tmp_path):
    """The state is the one of a training that resumes from the checkpoint with this batch."""
    seen = []
    sparsity = dict(
        type='mmslak.DynamicSparsityHook', allocation='erk', sparsity=0.5,
        targets=dict(include=['*']), update=dict(every=2, rate=0.4, schedule='constant'),
    )  # fmt: skip

    def states(runner):
        optimizer = runner.optim_wrapper.optimizer
        seen.append(
            dict(
                iter=runner.iter,
                weights=weights(runner),
                step=float(optimizer.state[runner.model.stem.weight]['step']),
                lr=optimizer.param_groups[0]['lr'],
                masks=hook_named(runner, 'DynamicSparsityHook').dynamics.steps,
                average=int(hook_named(runner, 'EMAHook').ema_model.steps),
            )
        )

    runner = faulty(
        tmp_path, 'features', at=6,
        hooks=dict(
            rollback(), sparsity=sparsity, ema=dict(type='EMAHook', update_buffers=True),
        ),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, end=8, by_epoch=False)],
        custom=[Call(at, states) for at in (5, 6)],
    )  # fmt: skip
    runner.train()
    # Iteration 5 is repeated after iteration 6 has failed.
    first, sixth, again, _ = seen
    assert (first['iter'], sixth['iter'], again['iter']) == (4, 5, 4)
    for key in ('step', 'lr', 'masks', 'average'):
        assert first[key] == again[key] != sixth[key], key
    for name, value in first['weights'].items():
        assert torch.equal(value, again['weights'][name]), name
    assert runner.model.calls == 10 and runner.iter == 8 and finite(runner)
    saved = read_checkpoint(tmp_path / 'iter_8.pth')
    assert saved['meta']['iter'] == 8
    assert all(torch.isfinite(v).all() for v in saved['ema_state_dict'].values())


def test_the_number_of_rollbacks_is_bounded(tmp_path):
    runner = small_runner(
        tmp_path, iters=100, dataset=dict(bad=9), hooks=dict(rollback(max_rollbacks=2), **RARE)
    )
    with pytest.raises(NonFiniteError, match='stopped after 2 rollbacks; the last checkpoint is'):
        runner.train()


def test_rollback_needs_a_checkpoint(tmp_path):
    runner = small_runner(tmp_path, dataset=dict(bad=0), hooks=rollback())
    with pytest.raises(NonFiniteError, match=r'iteration 1: .*no checkpoint yet to roll back to'):
        runner.train()


def test_rollback_in_a_loop_over_epochs(tmp_path):
    runner = faulty(tmp_path, 'features', at=20, by_epoch=True, iters=3, hooks=rollback())
    runner.train()
    # The fourth iteration of the second epoch: the other 12 count as the second epoch.
    assert runner.epoch == 3 and runner.iter == 16 + 12 + 16 and finite(runner)


SEVERAL = """
import sys
from pathlib import Path
import torch.distributed
from small_training import small_runner
runner = small_runner(Path(sys.argv[1]), dataset=dict(bad=11), launcher='pytorch', hooks=dict(
    non_finite=dict(action=sys.argv[2])))
try:
    runner.train()
except ValueError as error:
    print('STOPPED', error, flush=True)
else:
    print('ENDED', runner.iter, float(sum(p.sum() for p in runner.model.parameters())), flush=True)
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize('action', ['stop', 'rollback'])
def test_several_processes_act_together(tmp_path, action):
    """A bad image of the second process is named by both, in the same iteration."""
    script = tmp_path / 'several.py'
    script.write_text(SEVERAL)
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = str(free.getsockname()[1])
    world = dict(WORLD_SIZE='2', MASTER_ADDR='localhost', MASTER_PORT=port)
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / 'work'), action],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **world, 'PYTHONPATH': f'{ROOT}:{ROOT}/tests', 'RANK': rank,
                 'LOCAL_RANK': rank},
        )
        for rank in '01'
    ]  # fmt: skip
    try:
        texts = [process.communicate(timeout=900)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    lines = [line for text in texts for line in re.findall('(?:STOPPED|ENDED) .*', text)]
    assert len(lines) == 2 and lines[0] == lines[1], texts
    if action == 'stop':
        assert lines[0].startswith('STOPPED iteration 3: the loss is nan; the input of the model ')
        assert 'contains nan (process 1)' in lines[0]
    else:
        assert lines[0].startswith('ENDED 8 ') and 'nan' not in lines[0]


@pytest.mark.parametrize(
    ('settings', 'text'),
    [(dict(action='skip'), "'stop' or 'rollback', got 'skip'"),
     (dict(max_rollbacks=0), 'positive integer, got 0')],
)  # fmt: skip
def test_settings_are_checked(settings, text):
    with pytest.raises(ValueError, match=text):
        NonFiniteHook(**settings)


def test_the_hook_can_be_disabled():
    cfg = ConfigDict(default_hooks=dict(non_finite=None))
    prepare(cfg)
    assert 'non_finite' not in cfg.default_hooks
