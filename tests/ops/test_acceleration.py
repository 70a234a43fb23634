"""Replacing convolutions in any network."""

import builtins
import sys

import pytest
import torch
from torch import nn

from mmslak.ops import LargeKernelConv2d, accelerate, acceleration


class Doubled(nn.Conv2d):
    """A subclass that computes something else."""

    def forward(self, x):
        return 2 * super().forward(x)


def network():
    """Return a network in which layers 1 and 2 can be replaced."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, (5, 31), padding=(2, 15), groups=8),
        nn.Conv2d(8, 8, (5, 31), padding=(2, 15), groups=8),
        nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8),
        Doubled(8, 8, 5, padding=2, groups=8),
    )


def test_accelerate_replaces_suitable_convolutions_in_place():
    model, x = network(), torch.randn(1, 3, 40, 40)
    before, parameters, lines = model(x), list(model.parameters()), []
    calls = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    swaps = accelerate(model, x, log=lines.append)
    assert [swap.name for swap in swaps] == ['1', '2']
    # PyTorch's convolution is tens of times slower for wide kernels, on any processor.
    assert all(swap.swapped and swap.shape == (1, 8, 40, 40) for swap in swaps)
    assert [type(module) for module in model[1:3]] == [LargeKernelConv2d] * 2
    assert type(model[4]) is Doubled
    assert [a is b for a, b in zip(model.parameters(), parameters, strict=True)]
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
    # The hook was called by accelerate() and by the line above.
    assert len(calls) > 2
    assert '5x31 on 1x8x40x40' in lines[0]
    assert 'times' in lines[0]
    assert lines[2] is swaps
    assert swaps.before > 0
    assert swaps.after > 0


def test_second_call_says_that_the_operator_is_in_use():
    model, x, lines = network(), torch.randn(1, 3, 40, 40), []
    assert len(accelerate(model, x, log=None)) == 2
    assert accelerate(model, x, log=lines.append) == []
    assert lines == [
        'convolutions that already use the operator of mmslak: 2',
        'no other depth-wise convolution of stride 1 with "same" padding was found',
    ]
    assert accelerate(nn.Sequential(nn.Conv2d(3, 8, 3)), log=lines.append).already == 0
    assert lines[2:] == ['no depth-wise convolution of stride 1 with "same" padding was found']


def test_accelerate_replaces_nothing_that_becomes_slower(monkeypatch):
    monkeypatch.setattr(acceleration, '_compare', lambda *_: (1.0, 1.5))
    model = nn.Sequential(nn.Conv2d(8, 8, 5, padding=2, groups=8))
    (swap,) = accelerate(model, torch.randn(1, 8, 9, 9), log=None)
    assert not swap.swapped
    assert type(model[0]) is nn.Conv2d
    assert str(swap) == '0: 5x5 on 1x8x9x9, 1.00 ms -> 1.50 ms, 0.7 times, not replaced'


def strip(bias=True):
    torch.manual_seed(0)
    return nn.Conv2d(16, 16, (5, 31), padding=(2, 15), groups=16, bias=bias)


@pytest.mark.parametrize('training', [False, True])
def test_accelerate_times_gradients_in_training_mode(training, monkeypatch):
    """Whether the timed steps compute gradients of the convolution and of the whole network."""
    conv, counted = strip(), []
    gradient = torch.autograd.grad

    def count(outputs, inputs, *arguments, **keywords):
        counted.append(len(inputs))
        return gradient(outputs, inputs, *arguments, **keywords)

    monkeypatch.setattr(torch.autograd, 'grad', count)
    model = nn.Sequential(conv).train(training)
    swaps = accelerate(model, torch.randn(2, 16, 32, 32), log=None)
    # The input, the weight and the bias; for the network its two parameters.
    assert set(counted) == ({3, 2} if training else set())
    assert swaps.training == training
    assert conv.weight.grad is None


class WithAutocast(nn.Module):
    """A network that turns autocast on by itself, before or after its input has this dtype."""

    def __init__(self, half_input):
        super().__init__()
        self.conv, self.half_input = strip(), half_input

    def forward(self, x):
        with torch.autocast('cpu', torch.bfloat16):
            return self.conv(x.bfloat16() if self.half_input else x)


class WithKeyword(nn.Module):
    """A network that passes feature maps by keyword."""

    def __init__(self):
        super().__init__()
        self.conv = strip()

    def forward(self, x, scale=1):
        return self.conv(input=x) * scale


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('half_input', [False, True])
def test_accelerate_a_network_with_autocast(half_input, training, monkeypatch):
    model, x = WithAutocast(half_input).train(training), torch.randn(1, 16, 20, 20)
    dtypes = []
    operator = acceleration.LargeKernelConv2d.forward

    def record(self, input):
        out = operator(self, input)
        dtypes.append((input.dtype, out.dtype))
        return out

    monkeypatch.setattr(acceleration.LargeKernelConv2d, 'forward', record)
    (swap,) = accelerate(model, x, log=None)
    assert swap.before > 0
    # The convolution is timed under the autocast of the network.
    assert set(dtypes) == {(torch.bfloat16 if half_input else torch.float32, torch.bfloat16)}


@pytest.mark.parametrize('training', [False, True])
def test_accelerate_inside_autocast(training):
    model, x = nn.Sequential(strip(), strip()).train(training), torch.randn(1, 16, 20, 20)
    with torch.autocast('cpu', torch.bfloat16):
        assert all(swap.before > 0 for swap in accelerate(model, x, log=None))
        out = model(x)
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize('guard', [torch.no_grad, torch.inference_mode])
def test_accelerate_in_training_mode_without_gradients(guard):
    with guard():
        (swap,) = accelerate(nn.Sequential(strip()), torch.randn(1, 16, 20, 20), log=None)
    assert swap.before > 0


def test_accelerate_with_a_feature_map_without_batch():
    model, x = nn.Sequential(strip()), torch.randn(16, 40, 40)
    before = model(x)
    (swap,) = accelerate(model, x, log=None)
    assert swap.shape == (16, 40, 40)
    assert swap.swapped
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


def test_accelerate_with_keyword_arguments():
    model, x = WithKeyword(), torch.randn(1, 16, 40, 40)
    before = model(x)
    (swap,) = accelerate(model, x=x, scale=2, log=None)
    assert swap.swapped
    assert swap.shape == x.shape
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


def test_accelerate_refuses_an_ambiguous_example():
    model, x = WithKeyword(), torch.randn(1, 16, 9, 9)
    with pytest.raises(ValueError, match='either arguments of the model or run, got both'):
        accelerate(model, x, run=lambda: model(x))
    with pytest.raises(ValueError, match=r'function without arguments, .* got Tensor'):
        accelerate(model, run=model(x))
    assert type(model.conv) is nn.Conv2d


def test_full_backward_hooks_see_the_same_gradients():
    torch.manual_seed(0)
    model, x = nn.Sequential(strip(), nn.Tanh()), torch.randn(2, 16, 40, 40, requires_grad=True)
    seen = []
    model[0].register_full_backward_pre_hook(lambda _, grads: seen.append(grads[0]))
    model[0].register_full_backward_hook(lambda _, grads, __: seen.append(grads[0]))
    model(x).square().sum().backward()
    expected, seen[:] = list(seen), []
    (swap,) = accelerate(model, x.detach(), log=None)
    assert swap.swapped
    seen.clear()
    model(x).square().sum().backward()
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)


def test_forward_of_an_instance_is_kept():
    model = nn.Sequential(strip())
    model[0].forward = lambda x: 2 * x
    assert accelerate(model, torch.randn(1, 16, 9, 9), log=None) == []


@pytest.mark.parametrize('when', ['before', 'in place', 'a layer', 'after'])
def test_accelerate_and_compile(when):
    """Compiled code uses the operator, and is not compiled for the hooks of accelerate."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph, _):
        graphs.append({str(node.target) for node in graph.graph.nodes})
        return graph.forward

    options = dict(backend=backend, fullgraph=True)
    model, x = nn.Sequential(strip(), nn.Tanh()).eval(), torch.randn(1, 16, 40, 40)
    before, called = model(x), model
    if when == 'before':
        called = torch.compile(model, **options)
    elif when == 'in place':
        model.compile(**options)
    elif when == 'a layer':
        model[0] = torch.compile(model[0], **options)
    called(x)
    (swap,) = accelerate(called, x, log=None)
    if when == 'after':
        called = torch.compile(model, **options)
    assert swap.swapped
    torch.testing.assert_close(called(x), before, rtol=1e-4, atol=1e-5)
    assert 'mmslak.depthwise_conv2d' in graphs[-1]
    # With and without gradients, before and afterwards; only the last one if compiled afterwards.
    # PyTorch 2.5 also compiles for the hooks.
    assert len(graphs) <= (4 if hasattr(torch.compiler, 'set_stance') else 6)
    torch._dynamo.reset()


def test_nothing_of_the_network_changes_in_training_mode():
    torch.manual_seed(0)
    model = nn.Sequential(strip(), nn.BatchNorm2d(16), nn.Dropout())
    x = torch.randn(2, 16, 20, 20) + 3
    model(x).sum().backward()
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    accelerate(model, x, log=None)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert torch.equal(parameter.grad, grad)


def table_of_three():
    swaps = acceleration.Swaps(training=True, already=0)
    swaps += [
        acceleration.Swap('a', (5, 31), (2, 8, 40, 40), 10.0, 2.0, True),
        acceleration.Swap('b', (5, 31), (2, 8, 40, 40), 10.0, 2.0, True),
        acceleration.Swap('c', (3, 3), (2, 8, 40, 40), 1.0, 2.0, False),
    ]
    swaps.before, swaps.after = 30.0, 12.0
    return swaps


def test_table_as_plain_text():
    assert str(table_of_three()).splitlines() == [
        'milliseconds (forward and backward, training mode)',
        'kernel            feature map  number  nn.Conv2d  mmslak  times faster  replaced',
        '5x31              2x8x40x40         2      10.00    2.00           5.0       yes',
        '3x3               2x8x40x40         1       1.00    2.00           0.5        no',
        'all convolutions                    3      21.00    5.00           4.2    2 of 3',
        'whole network                              30.00   12.00           2.5          ',
    ]


@pytest.mark.parametrize('rich', [True, False])
def test_table_is_shown_with_rich_if_installed(rich, capsys, monkeypatch):
    if rich:
        pytest.importorskip('rich')
    else:
        real = builtins.__import__

        def missing(name, *arguments):
            if name.partition('.')[0] == 'rich':
                raise ImportError(name)
            return real(name, *arguments)

        monkeypatch.delitem(sys.modules, 'mmslak.console', raising=False)
        monkeypatch.setattr(builtins, '__import__', missing)
    acceleration.show(table_of_three())
    shown = capsys.readouterr().out
    assert '2x8x40x40' in shown
    assert ('┃' in shown) == rich


def test_several_processes_do_not_time_the_whole_network(monkeypatch):
    """Networks with synchronised batch norms would wait for each other."""
    monkeypatch.setattr(acceleration, 'several_ranks', lambda: True)
    swaps = accelerate(nn.Sequential(strip()), torch.randn(1, 16, 20, 20), log=None)
    assert swaps.before is swaps.after is None
    assert swaps.rows()[-1] == ('whole network', '', '', '-', '-', '-', '')


def test_accelerate_does_not_change_statistics_or_modes():
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 4, (5, 31), padding=(2, 15), groups=4)
    model = nn.Sequential(conv, nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)).eval())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    accelerate(model, torch.randn(2, 4, 16, 16) + 3, log=None)
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_accelerate_without_an_example_replaces_all():
    lines = []
    swaps = accelerate(network(), log=lines.append)
    assert [(swap.before, swap.swapped) for swap in swaps] == [(None, True)] * 2
    assert lines == ['1: 5x31, not timed', '2: 5x31, not timed']


@pytest.mark.parametrize(
    ('kind', 'kernel', 'settings'),
    [
        ('RepLKNet', 31, dict(arch='31B', out_indices=(3,))),
        ('ConvNeXt', 7, dict(arch='tiny')),
    ],
)
@pytest.mark.slow
def test_networks_of_mmpretrain(kind, kernel, settings):
    models = pytest.importorskip('mmpretrain.models')
    torch.manual_seed(0)
    model = getattr(models, kind)(**settings)
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # As after training, so that errors in the statistics matter.
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        before = model(x)[-1]
        swaps = accelerate(model, x, log=None)
        after = model(x)[-1]
    large = [swap for swap in swaps if swap.kernel_size == (kernel, kernel)]
    # Convolutions of 31 x 31 are many times faster. For 7 x 7 it depends on the machine.
    assert large and (kernel == 7 or all(swap.swapped for swap in large))
    assert ((after - before).abs().max() / before.abs().max()).item() < 1e-4
