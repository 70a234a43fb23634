"""The fused sum of batch norms against PyTorch's batch norms in float64.

As in test_triton_kernels.py, the kernels run on a GPU or, in another process, in the interpreter.
"""

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

triton = pytest.importorskip('triton', minversion='3.4')

from triton_testing import (  # noqa: E402
    DEVICE,
    compiled,
    compiles,
    run_in_the_interpreter,
    runs_kernels,
    starts_the_interpreter,
    usage,
)

from mmslak.models.large_kernel import SpatialMixing  # noqa: E402
from mmslak.ops import branch_norms, measured, triton_launch, triton_norms  # noqa: E402

#: Error of a result of random values of size 1: of float32 sums and, in 16 bits, of rounding. The
#: interpreter truncates bfloat16.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}


@starts_the_interpreter
def test_in_the_interpreter():
    run_in_the_interpreter(__file__)


def make(shape, branches, dtype, mean=0.0, seed=0):
    """Return feature maps, their norms with random parameters, and a gradient."""
    torch.manual_seed(seed)
    norms = [nn.BatchNorm2d(shape[1]).to(DEVICE) for _ in range(branches)]
    for norm in norms:
        for values in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(values)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    features = [
        (torch.randn(shape) * (i + 1) + mean).to(DEVICE, dtype).requires_grad_()
        for i in range(branches)
    ]
    return features, norms, torch.randn(shape).to(DEVICE, dtype)


def differentiated(function, features, norms, grad):
    """Return the result, the gradients and the running statistics, in float64."""
    parameters = [p for norm in norms for p in norm.parameters()]
    out = function(features, norms)
    grads = torch.autograd.grad(out, [*features, *parameters], grad)
    statistics = [b for norm in norms for b in norm.buffers()]
    return [t.detach().double() for t in (out, *grads, *statistics)]


def plain(features, norms):
    """Return the sum of the norms, one after the other."""
    return sum(norm(x) for norm, x in zip(norms, features, strict=True))


def check(shape, branches, dtype, mean=0.0):
    features, norms, grad = make(shape, branches, dtype, mean)
    assert branch_norms.can_fuse(features, norms)
    exact = [norm.double() for norm in copy.deepcopy(norms)]
    wide = [x.detach().double().requires_grad_() for x in features]
    want = differentiated(plain, wide, exact, grad.double())

    got = differentiated(branch_norms.fused, features, norms, grad)

    for a, b in zip(got, want, strict=True):
        # With few values the derivatives of the variance are large.
        scale = b.abs().max().clamp(min=1)
        error = float((a - b).abs().max() / scale)
        assert error <= TOLERANCE[dtype] * (1 + abs(mean) / 10), error


@runs_kernels
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(
    st.tuples(st.integers(2, 5), *(st.integers(1, most) for most in (5, 40, 40))),
    st.sampled_from([2, 3]),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
@example((2, 70, 3, 3), 3, torch.float32)
@example((1, 2, 48, 64), 3, torch.float32)
@example((33, 1, 7, 7), 2, torch.float32)
def test_equals_batch_norms(shape, branches, dtype):
    check(shape, branches, dtype)


@runs_kernels
def test_large_mean_cancels_no_digits():
    # A variance as the difference of two sums of squares would be wrong by about 0.1.
    check((3, 4, 20, 20), 3, torch.float32, mean=1000.0)


@runs_kernels
def test_same_result_in_every_run():
    results = []
    for _ in range(2):
        features, norms, grad = make((3, 4, 9, 30), 3, torch.float32)
        results.append(differentiated(branch_norms.fused, features, norms, grad))
    assert all(map(torch.equal, *results))


@runs_kernels
def test_gradients_of_gradients():
    features, norms, grad = make((2, 2, 3, 4), 2, torch.float32)
    penalties = []
    for function in (branch_norms.fused, plain):
        grads = torch.autograd.grad(function(features, norms), features, grad, create_graph=True)
        total = sum(g.square().sum() for g in grads)
        penalties.append(torch.autograd.grad(total, [*features, norms[0].weight]))
    for a, b in zip(*penalties, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@runs_kernels
def test_failing_kernels_are_replaced(monkeypatch):
    features, norms, grad = make((2, 2, 3, 4), 3, torch.float32)
    want = differentiated(plain, features, copy.deepcopy(norms), grad)
    monkeypatch.setattr(measured, '_state', measured._State(read_file=False))

    def fails(*args):
        raise RuntimeError('no compiler')

    monkeypatch.setattr(triton_norms, 'backward', fails)
    got = differentiated(branch_norms.fused, features, norms, grad)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert not branch_norms.can_fuse(features, norms)


@runs_kernels
@pytest.mark.parametrize('mode', ['decomposed', 'reparam'])
def test_block_uses_it(mode, monkeypatch):
    monkeypatch.setattr(
        'mmslak.models.large_kernel.sum_of_batch_norms',
        lambda features, norms: calls.append(len(norms)) or branch_norms.fused(features, norms),
    )
    calls = []
    torch.manual_seed(0)
    mixing = SpatialMixing(3, 9, 3, mode).to(DEVICE)
    other = copy.deepcopy(mixing)
    x = torch.randn(2, 3, 10, 12, device=DEVICE)
    want = sum(getattr(other, name)(x) for name in other.branch_names)
    torch.testing.assert_close(mixing(x), want, rtol=1e-4, atol=1e-5)
    assert calls == [3 if mode == 'decomposed' else 2]
    for a, b in zip(mixing.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    if mode == 'decomposed':
        mixing.tall.register_forward_hook(lambda *args: calls.append('hook'))
    mixing(x)
    assert calls[1:] == (['hook'] if mode == 'decomposed' else [2])


def test_what_cannot_be_fused(monkeypatch):
    monkeypatch.setattr(measured, 'available', lambda x: True)
    features = [torch.randn(2, 3, 4, 5) for _ in range(2)]

    def fuses(features=features, **changes):
        norms = [nn.BatchNorm2d(3) for _ in range(2)]
        for name, value in changes.items():
            setattr(norms[1], name, value)
        return branch_norms.can_fuse(features, norms)

    assert fuses()
    assert not fuses(training=False)
    assert not fuses(momentum=None)
    assert not fuses(momentum=0.3)
    assert not fuses(eps=1e-3)
    assert not fuses(running_mean=None)
    assert not fuses([x.to(memory_format=torch.channels_last) for x in features])
    assert not fuses([features[0], features[1].half()])
    assert not fuses([x[:1, :, :1, :1].contiguous() for x in features])
    norms = [nn.BatchNorm2d(3), nn.SyncBatchNorm(3)]
    assert not branch_norms.can_fuse(features, norms)
    norms = [nn.BatchNorm2d(3) for _ in range(2)]
    norms[0].register_forward_hook(lambda *args: None)
    assert not branch_norms.can_fuse(features, norms)


def test_on_a_cpu_the_norms_are_called():
    features = [torch.randn(2, 3, 4, 5) for _ in range(2)]
    norms = [nn.BatchNorm2d(3) for _ in range(2)]
    want = plain(features, copy.deepcopy(norms))
    assert torch.equal(branch_norms.sum_of_batch_norms(features, norms), want)
    assert [int(norm.num_batches_tracked) for norm in norms] == [1, 1]


@compiles
@pytest.mark.parametrize('capability', [(8, 0), (9, 0)], ids=str)
def test_compiles(capability, monkeypatch, tmp_path):
    monkeypatch.setattr(triton.knobs.cache, 'dir', str(tmp_path))
    launches = []
    monkeypatch.setattr(triton_norms, 'launch', lambda *launch: launches.append(launch))
    monkeypatch.setattr(triton_launch, '_plans', {})
    features = [torch.empty(64, 124, 56, 56, dtype=torch.bfloat16, device='meta')] * 3
    vectors = [torch.empty(124, device='meta')] * 3
    triton_norms.forward(features, vectors, vectors, vectors, vectors, 0.1, 1e-5)
    triton_norms.backward(features[0], features, torch.empty(124, 3, 2, device='meta'), vectors)
    assert len(launches) == 4
    for launch in launches:
        result = compiled(launch, capability)
        registers, stack = usage(result, tmp_path)
        wide = result.asm['ptx'].count('ld.global.v4') + result.asm['ptx'].count('v4.b32')
        print(f'{launch[0].__name__} {capability}: {registers} registers, {stack} bytes of stack')
        assert stack == 0, 'registers are spilled'
        assert wide, 'no load of 16 bytes'
