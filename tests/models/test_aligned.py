"""Linear layers on padded widths: equal to the plain ones, and off where they cannot be used."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.model import ExponentialMovingAverage
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmslak.models import SLaK, SLaKBlock
from mmslak.models import slak as slak_module
from mmslak.ops import aligned as aligned_module

ARCH = dict(depths=(1, 1, 1, 1), widths=(20, 37, 40, 51))


def make_block(channels, aligned, **kwargs):
    """Return a block whose parameters are far from their initial values."""
    torch.manual_seed(0)
    block = SLaKBlock(channels, 5, 3, layer_scale_init_value=0.7, aligned=aligned, **kwargs)
    for parameter in block.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
        elif parameter.dim() == 2:
            parameter.data.normal_(0, parameter.shape[1] ** -0.5)
    return block


def make_network(aligned, **kwargs):
    torch.manual_seed(0)
    kernels = (7, 7, 7, 7)
    return SLaK(ARCH, kernels, layer_scale_init_value=1.0, aligned=aligned, **kwargs)


def results(block, x, amp=None):
    """Return the output and all gradients, with the same dropped samples for every block."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    torch.manual_seed(5)
    with torch.autocast('cpu', amp, enabled=amp is not None):
        out = block(x)
    generator = torch.Generator().manual_seed(6)
    out.backward(torch.randn(out.shape, generator=generator, dtype=out.dtype))
    grads = {name: p.grad.clone() for name, p in block.named_parameters()}
    block.zero_grad()
    return dict(grads, x=x.grad, out=out.detach())


def largest_error(ours, expected):
    assert set(ours) == set(expected)
    assert all(ours[name].dtype == expected[name].dtype for name in ours)
    assert all(ours[name].stride() == expected[name].stride() for name in ('out', 'x'))
    return max(
        ((ours[name] - value).abs().max() / value.abs().max().clamp(min=1e-30)).item()
        for name, value in expected.items()
    )


@pytest.fixture
def padded(monkeypatch):
    """Count how often the padded path runs."""
    calls = []

    def count(*args, **kwargs):
        calls.append(args[0].shape[-1])
        return aligned_module.feed_forward(*args, **kwargs)

    monkeypatch.setattr(slak_module, 'feed_forward', count)
    return calls


@settings(max_examples=15, deadline=None)
@given(
    channels=st.integers(5, 70),
    kwargs=st.fixed_dictionaries(
        dict(drop_path_rate=st.sampled_from([0.0, 0.3]), with_cp=st.booleans())
    ),
    training=st.booleans(),
    channels_last=st.booleans(),
)
def test_output_and_gradients_equal_the_plain_path(channels, kwargs, training, channels_last):
    x = torch.randn(4, channels, 5, 6)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    plain, ours = (
        results(make_block(channels, aligned, **kwargs).train(training), x)
        for aligned in (False, True)
    )
    assert largest_error(ours, plain) < 1e-5


@settings(max_examples=10, deadline=None)
@given(channels=st.integers(5, 70), grad=st.booleans())
def test_block_follows_the_formula_in_float64(channels, grad):
    block = make_block(channels, True).eval()
    x = torch.randn(2, channels, 5, 6)
    with torch.set_grad_enabled(grad):
        out = block(x)
        y = block.mixing(x).double().permute(0, 2, 3, 1)
    w = {name: p.detach().double() for name, p in block.named_parameters()}
    y = (y - y.mean(-1, keepdim=True)) / torch.sqrt(y.var(-1, keepdim=True, correction=0) + 1e-6)
    y = y * w['norm.weight'] + w['norm.bias']
    y = y @ w['pwconv1.weight'].T + w['pwconv1.bias']
    y = 0.5 * y * (1 + torch.erf(y / 2**0.5))
    y = w['gamma'] * (y @ w['pwconv2.weight'].T + w['pwconv2.bias'])
    expected = x + y.permute(0, 3, 1, 2)
    assert ((out - expected).abs().max() / expected.abs().max()).item() < 1e-5


@pytest.mark.parametrize(('amp', 'tolerance'), [(torch.bfloat16, 0.05), (torch.float16, 0.006)])
def test_mixed_precision(amp, tolerance):
    x = torch.randn(4, 37, 6, 6)
    plain, ours = (results(make_block(37, aligned), x, amp) for aligned in (False, True))
    assert largest_error(ours, plain) < tolerance
    # As close to float32 as the plain path.
    full = results(make_block(37, False), x)
    for name, value in full.items():
        errors = [(found[name] - value).norm() for found in (ours, plain)]
        assert errors[0] < 1.5 * errors[1] + 1e-3 * value.norm(), name


def test_dtypes_of_whole_networks():
    x = torch.randn(2, 3, 64, 64)
    for dtype, tolerance in ((torch.bfloat16, 0.05), (torch.float64, 1e-9)):
        plain, ours = (make_network(aligned).to(dtype).eval() for aligned in (False, True))
        for a, b in zip(ours(x.to(dtype)), plain(x.to(dtype)), strict=True):
            assert a.dtype == dtype
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_parameters_and_checkpoints_are_those_of_the_plain_network():
    plain, ours = make_network(False), make_network(True)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=0, atol=0)
    assert list(plain.state_dict()) == list(ours.state_dict())


@pytest.mark.parametrize('inference', [torch.no_grad, torch.inference_mode])
def test_merged_networks(inference):
    x = torch.randn(2, 3, 64, 64)
    ours = make_network(True).eval()
    with inference():
        expected = ours(x)
        merged = ours.switch_to_deploy()
        outputs = [merged(x), merged(x)]
        for aligned in (False, True):
            loaded = make_network(aligned, deploy=True).eval()
            loaded(x)
            loaded.load_state_dict(merged.state_dict())
            outputs.append(loaded(x))
    for output in outputs:
        for a, b in zip(output, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('change', ['add', 'data', 'assign', 'load', 'swap', 'double'])
def test_changed_weights_are_used_at_once(deploy, change):
    x = torch.randn(2, 37, 5, 6)
    block = make_block(37, True, deploy=deploy).eval()
    with torch.no_grad():
        block(x)
    for name in ('pwconv1', 'pwconv2') if deploy else ('norm', 'pwconv1', 'pwconv2'):
        layer = getattr(block, name)
        new = layer.weight.detach() + 1
        if change == 'add':
            with torch.no_grad():
                layer.weight += 1
        elif change == 'data':
            layer.weight.data.add_(1)
            # PyTorch does not record this change; a merged network forgets its padded weights here.
            block.eval()
        elif change == 'assign':
            layer.weight = nn.Parameter(new)
        elif change == 'load':
            layer.load_state_dict(dict(layer.state_dict(), weight=new))
        elif change == 'swap':
            layer.weight.data = new
    if change == 'double':
        block, x = block.double(), x.double()
    with torch.no_grad():
        ours = block(x)
        block.aligned = False
        torch.testing.assert_close(ours, block(x), rtol=1e-4, atol=1e-4)


def test_copies_are_independent():
    x = torch.randn(2, 37, 5, 6)
    block = make_block(37, True, deploy=True).eval()
    with torch.no_grad():
        before = block(x)
        copies = [copy.deepcopy(block), pickle.loads(pickle.dumps(block))]
        for copied in copies:
            assert torch.equal(copied(x), before)
            copied.pwconv1.weight.mul_(2)
            assert not torch.equal(copied(x), before)
        assert torch.equal(block(x), before)


def test_moving_average():
    block = make_block(37, True).eval()
    average = ExponentialMovingAverage(block, momentum=0.5)
    x = torch.randn(2, 37, 5, 6)
    with torch.no_grad():
        for _ in range(3):
            block.pwconv2.weight.add_(1)
            average.update_parameters(block)
            found = average(x)
            average.module.aligned = False
            torch.testing.assert_close(found, average(x), rtol=1e-4, atol=1e-4)
            average.module.aligned = True


def test_masked_weights_stay_masked():
    block = make_block(37, True)
    mask = torch.rand_like(block.pwconv1.weight) < 0.5
    block.pwconv1.weight.data.mul_(mask)
    expected = make_block(37, False)
    expected.load_state_dict(block.state_dict())
    x = torch.randn(4, 37, 5, 6)
    assert largest_error(results(block, x), results(expected, x)) < 1e-5
    assert torch.equal(block.pwconv1.weight != 0, mask)


@pytest.mark.parametrize(
    ('training', 'kwargs'), [(False, dict()), (True, dict(drop_path_rate=0.2, with_cp=True))]
)
def test_compiles_without_graph_breaks(training, kwargs):
    torch._dynamo.reset()
    block = make_block(37, True, **kwargs).train(training)
    x = torch.randn(4, 37, 5, 6)
    compiled = torch.compile(block, fullgraph=True, backend='aot_eager')
    if training:
        # A compiled graph draws other random numbers.
        compiled(x.requires_grad_()).sum().backward()
        return
    grads = []
    for module in (block, compiled):
        block.zero_grad()
        out = module(x)
        out.square().sum().backward()
        grads.append({name: p.grad.clone() for name, p in block.named_parameters()})
    for name, value in grads[0].items():
        torch.testing.assert_close(value, grads[1][name], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), block(x), rtol=1e-4, atol=1e-4)


def test_second_derivatives():
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    block = make_block(3, True).double().eval()
    assert torch.autograd.gradgradcheck(block, x, atol=1e-4)


def test_transforms_of_torch_func():
    block = make_block(37, True).eval()
    x = torch.randn(3, 1, 37, 5, 6)
    grads = torch.func.vmap(torch.func.grad(lambda x: block(x).square().sum()))(x)
    for one, grad in zip(x, grads, strict=True):
        one.requires_grad_()
        block(one).square().sum().backward()
        torch.testing.assert_close(grad, one.grad, rtol=1e-4, atol=1e-4)


def test_layers_with_hooks_and_replaced_layers_are_called(padded):
    x = torch.randn(2, 37, 5, 6)
    block = make_block(37, True)
    block(x)
    assert padded == [37]
    seen = []
    handle = block.pwconv1.register_forward_hook(lambda *_: seen.append(1))
    block(x)
    handle.remove()
    assert seen == [1] and len(padded) == 1
    block.act = nn.ReLU()
    plain = make_block(37, False)
    plain.act = nn.ReLU()
    torch.testing.assert_close(block(x), plain(x))
    assert len(padded) == 1


def test_multiply_adds_are_those_of_the_paper():
    counts = []
    for aligned in (False, True):
        with torch.device('meta'):
            model = make_network(aligned).eval()
            with FlopCounterMode(display=False) as counter:
                model(torch.empty(1, 3, 64, 64))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ('channels', 'size', 'amp', 'runs'),
    [
        (124, 20, None, True),
        (249, 20, None, True),
        (128, 20, None, False),
        (249, 5, None, False),
        (20, 20, None, False),
        (249, 20, torch.bfloat16, False),
    ],
)
def test_auto_on_a_cpu(padded, channels, size, amp, runs):
    block = make_block(channels, 'auto')
    with torch.autocast('cpu', amp, enabled=amp is not None):
        block(torch.randn(1, channels, size, size))
    assert bool(padded) == runs


@pytest.mark.parametrize('value', [None, 1, 0, 'on', []])
def test_wrong_choice_is_named(value):
    with pytest.raises(ValueError, match=r"aligned must be 'auto', True or False, got"):
        SLaK('nano', aligned=value)
