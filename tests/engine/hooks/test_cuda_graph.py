"""CUDA graphs in training steps. Recording itself needs a GPU."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmslak.engine import CUDAGraphHook
from mmslak.engine.hooks.cuda_graph import GraphedModule
from mmslak.models import SLaK

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs an NVIDIA GPU')


def runner(model, world_size=1, **wrapper):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return SimpleNamespace(
        model=model,
        world_size=world_size,
        optim_wrapper=OptimWrapper(optimizer, **wrapper),
        logger=logging.getLogger('test'),
    )


def network():
    return nn.ModuleDict(dict(backbone=nn.Linear(3, 3), head=nn.Linear(3, 2)))


def test_on_a_cpu_nothing_changes():
    hook, training = CUDAGraphHook(), runner(network())
    hook.before_train(training)
    assert 'forward' not in vars(training.model['backbone'])
    hook.after_train(training)


def test_refusals():
    with pytest.raises(ValueError, match='modules must be a list of names, got'):
        CUDAGraphHook('backbone')
    with pytest.raises(ValueError, match='such as backbone, head; got '):
        CUDAGraphHook(['neck']).before_train(runner(network()))
    with pytest.raises(ValueError, match='accumulative_counts must be 1'):
        CUDAGraphHook().before_train(runner(network(), accumulative_counts=2))
    with pytest.raises(ValueError, match='one process'):
        CUDAGraphHook().before_train(runner(network(), world_size=2))
    model = network()
    model['backbone'].active_units = torch.arange(2)
    with pytest.raises(ValueError, match="structure='neuron'"):
        CUDAGraphHook().before_train(runner(model))


class Recording:
    """Stands in for ``torch.cuda`` on a CPU: a recorded module doubles its output."""

    def __init__(self, monkeypatch, fails=False):
        self.count, self.fails = 0, fails
        monkeypatch.setattr(torch.cuda, 'make_graphed_callables', self.make)
        monkeypatch.setattr(torch.cuda, 'get_rng_state', lambda: None)
        monkeypatch.setattr(torch.cuda, 'set_rng_state', lambda state: None)
        monkeypatch.setattr(
            GraphedModule,
            '_trains',
            lambda self, leaves: self.module.training and torch.is_grad_enabled(),
        )

    def make(self, module, sample):
        self.count += 1
        eager = module.forward
        eager(*sample)
        if self.fails:
            raise RuntimeError('operation not permitted when stream is capturing')
        module.forward = lambda *args: 2 * eager(*args)


def test_replays_what_was_recorded_and_computes_the_rest(monkeypatch):
    recording = Recording(monkeypatch)
    module = nn.BatchNorm1d(3)
    x = torch.randn(4, 3)
    module.train()
    plain = nn.BatchNorm1d(3)
    graphed = GraphedModule(module, 'norm', logging.getLogger('test'))
    torch.testing.assert_close(module(x), 2 * plain(x))
    # The statistics are those of one step: the passes for the recording are undone.
    torch.testing.assert_close(module.running_mean, plain.running_mean)
    assert recording.count == 1
    # Other shapes, evaluation mode and passes without gradients.
    torch.testing.assert_close(module(x[:3]), plain(x[:3]))
    with torch.no_grad():
        torch.testing.assert_close(module(x), plain(x))
    module.eval(), plain.eval()
    torch.testing.assert_close(module(x), plain(x))
    module.train(), plain.train()
    torch.testing.assert_close(module(x), 2 * plain(x))
    assert recording.count == 1
    graphed.remove()
    torch.testing.assert_close(module(x), plain(x))
    assert 'forward' not in vars(module)


def test_computes_as_usual_if_recording_fails(monkeypatch, caplog):
    recording = Recording(monkeypatch, fails=True)
    module, plain = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    GraphedModule(module, 'norm', logging.getLogger('test'))
    x = torch.randn(4, 3)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch.testing.assert_close(module(x), plain(x))
    torch.testing.assert_close(module.running_var, plain.running_var)
    assert recording.count == 1
    assert [r.message for r in caplog.records] == [
        'norm could not be recorded as a CUDA graph and is computed as usual '
        '(RuntimeError: operation not permitted when stream is capturing)'
    ]


@needs_gpu
@pytest.mark.parametrize('amp', [False, True])
def test_equals_steps_without_a_graph(amp):
    results = []
    for graph in (False, True):
        torch.manual_seed(0)
        model = nn.ModuleDict(
            dict(backbone=SLaK(dict(depths=(1, 1, 1, 1), widths=(8, 8, 8, 8)), drop_path_rate=0.2))
        ).cuda()
        training = runner(model)
        hook = CUDAGraphHook()
        if graph:
            hook.before_train(training)
        optimizer = training.optim_wrapper.optimizer
        torch.manual_seed(1)
        for _ in range(4):
            x = torch.randn(2, 3, 64, 64, device='cuda')
            with torch.autocast('cuda', torch.bfloat16, enabled=amp):
                loss = sum(f.float().square().mean() for f in model['backbone'](x))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        hook.after_train(training)
        results.append([*model.state_dict().values()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2 if amp else 1e-3, atol=2e-3 if amp else 1e-5)
