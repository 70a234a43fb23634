"""The module, and replacing convolutions in any network."""

import pytest
import torch
from torch import nn

from mmslak.ops import LargeKernelConv2d, accelerate, depthwise_conv2d, modules


@pytest.mark.parametrize(
    ('kernel', 'options'),
    [
        (9, dict(padding=4, groups=6)),
        ((5, 21), dict(padding=(2, 10), groups=6, bias=False)),
        ((21, 5), dict(padding='same', groups=6, dtype=torch.float64)),
        ((5, 7), dict(padding=(4, 9), dilation=(2, 3), groups=6)),
        (7, dict(padding='same', dilation=3, groups=6)),
    ],
)
def test_same_state_and_output_as_conv2d(kernel, options):
    torch.manual_seed(0)
    theirs, ours = nn.Conv2d(6, 6, kernel, **options), LargeKernelConv2d(6, 6, kernel, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 6, 13, 17, dtype=options.get('dtype'))
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x[0]), theirs(x[0]))
    assert isinstance(ours, nn.Conv2d)


@pytest.mark.parametrize(
    ('arguments', 'options', 'message'),
    [
        (
            (4, 8, 5),
            dict(groups=4),
            r'not depth-wise \(4 input channels, 8 output channels, 4 groups\)',
        ),
        (
            (4, 4, 5),
            dict(groups=2),
            r'not depth-wise \(4 input channels, 4 output channels, 2 groups\)',
        ),
        ((4, 4, (5, 6)), {}, r'even kernel size \(5, 6\)'),
        ((4, 4, 5), dict(stride=2, padding=2), r'stride \(2, 2\)'),
        (
            (4, 4, 5),
            dict(padding=2, dilation=2),
            r'padding \(2, 2\) instead of "same" padding \(4, 4\)',
        ),
        ((4, 4, 5), dict(padding=1), r'padding \(1, 1\) instead of "same" padding \(2, 2\)'),
        ((4, 4, 5), dict(padding_mode='reflect'), "padding_mode 'reflect'"),
        ((4, 4, 5), dict(implementation='best'), "one of 'auto', .* got 'best'"),
    ],
)
def test_unsupported_convolutions_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        LargeKernelConv2d(*arguments, **options)


@pytest.mark.parametrize('shape', [(8, 5), (3, 5, 5), (2, 3, 5, 5), (1, 2, 8, 5, 5)])
def test_input_of_another_shape_is_named(shape):
    conv = LargeKernelConv2d(8, 8, 7)
    with pytest.raises(ValueError, match=r'\(N, 8, H, W\) or \(8, H, W\), got ') as error:
        conv(torch.zeros(shape))
    assert str(error.value).endswith(str(shape))


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
    assert len(calls) == 2
    assert '5x31 on 1x8x40x40' in lines[0]
    assert 'times' in lines[0]
    assert lines[2].startswith('2 of 2 replaced, ')
    assert accelerate(model, x, log=lines.append) == []
    assert 'no depth-wise convolution' in lines[-1]


def test_accelerate_replaces_nothing_that_becomes_slower(monkeypatch):
    monkeypatch.setattr(modules, '_compare', lambda *_: (1.0, 1.5))
    model = nn.Sequential(nn.Conv2d(8, 8, 5, padding=2, groups=8))
    (swap,) = accelerate(model, torch.randn(1, 8, 9, 9), log=None)
    assert not swap.swapped
    assert type(model[0]) is nn.Conv2d
    assert str(swap) == '0: 5x5 on 1x8x9x9, 1.00 ms -> 1.50 ms, 0.7 times, not replaced'


@pytest.mark.parametrize('training', [False, True])
def test_accelerate_times_gradients_in_training_mode(training):
    """The gradients of a convolution cost at least twice as much as the forward pass."""
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 16, (5, 31), padding=(2, 15), groups=16)
    x = torch.randn(2, 16, 32, 32)
    with_gradient = []

    def record(x, weight, bias, name):
        with_gradient.append(weight.requires_grad)
        return depthwise_conv2d(x, weight, bias, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modules, 'depthwise_conv2d', record)
        accelerate(nn.Sequential(conv).train(training), x, log=None)
    assert set(with_gradient) == {training}


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
    assert any(swap.kernel_size == (kernel, kernel) and swap.swapped for swap in swaps)
    assert ((after - before).abs().max() / before.abs().max()).item() < 1e-4
