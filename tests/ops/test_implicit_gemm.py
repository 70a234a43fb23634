"""The class that replaces the CUDA extension of other networks."""

import copy
import importlib
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

NAME = 'depthwise_conv2d_implicit_gemm'
#: As RepLKNet chooses its convolution: a flag in the environment, which is also a directory.
NETWORK = """
import os
import sys

from torch import nn

def convolution(channels, kernel):
    if 'LARGE_KERNEL_CONV_IMPL' in os.environ:
        sys.path.append(os.environ['LARGE_KERNEL_CONV_IMPL'])
        from depthwise_conv2d_implicit_gemm import DepthWiseConv2dImplicitGEMM
        return DepthWiseConv2dImplicitGEMM(channels, kernel, bias=True)
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
"""
MAIN = """
import os
import sys

import network
import torch

conv = network.convolution(8, int(sys.argv[1]))
theirs = torch.nn.Conv2d(8, 8, conv.kernel_size, padding=conv.padding, groups=8)
theirs.load_state_dict(conv.state_dict())
x = torch.randn(2, 8, 20, 20)
for layer in (conv, theirs):
    layer(x).square().sum().backward()
torch.testing.assert_close(conv.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-3)
print(type(conv).__module__, __name__, os.path.basename(sys.path[0]))
"""


def forget(monkeypatch, dictionary, name):
    """Remove an entry, also one that the test adds, and restore it after the test."""
    monkeypatch.setitem(dictionary, name, None)
    del dictionary[name]


@pytest.fixture
def load(monkeypatch):
    """Return a function that imports the module as if for the first time."""
    for name in (NAME, 'mmslak.ops.implicit_gemm'):
        forget(monkeypatch, sys.modules, name)
    for name in ('LARGE_KERNEL_CONV_IMPL', 'DWCONV_IMPL'):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    return lambda: importlib.import_module('mmslak.ops.implicit_gemm')


@pytest.mark.parametrize('kernel', [7, (5, 31), (31, 5)])
@pytest.mark.parametrize('bias', [False, True])
def test_same_state_output_and_gradients_as_conv2d(load, kernel, bias):
    load()
    from depthwise_conv2d_implicit_gemm import DepthWiseConv2dImplicitGEMM

    torch.manual_seed(0)
    ours = DepthWiseConv2dImplicitGEMM(6, kernel, bias=bias)
    sizes = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = tuple(size // 2 for size in sizes)
    theirs = nn.Conv2d(6, 6, kernel, padding=padding, groups=6, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    assert isinstance(ours, nn.Conv2d)
    assert [ours.kernel_size, ours.padding] == [theirs.kernel_size, theirs.padding]
    x = torch.randn(2, 6, 33, 20)
    for conv in (ours, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        torch.testing.assert_close(conv(x), theirs(x))
        values = [
            torch.autograd.grad(c(x).square().sum(), list(c.parameters())) for c in (conv, theirs)
        ]
        torch.testing.assert_close(*values, rtol=1e-4, atol=1e-3)


def test_half_precision(load):
    conv = load().DepthWiseConv2dImplicitGEMM(6, 13)
    x = torch.randn(2, 6, 20, 20)
    expected = conv(x)
    for dtype in (torch.float16, torch.bfloat16):
        assert conv.to(dtype)(x.to(dtype)).dtype == dtype
    conv.float()
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(conv(x).float(), expected, rtol=0.02, atol=0.02)


def test_even_kernels_are_refused(load):
    with pytest.raises(ValueError, match=r'even kernel size \(4, 4\)'):
        load().DepthWiseConv2dImplicitGEMM(6, 4)


def test_an_installed_extension_stays_in_use(load, tmp_path, monkeypatch):
    (tmp_path / f'_{NAME}_C.py').write_text('')
    (tmp_path / f'{NAME}.py').write_text('DepthWiseConv2dImplicitGEMM = "theirs"\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match='stays in use; uninstall it to use'):
        load()
    assert importlib.import_module(NAME).DepthWiseConv2dImplicitGEMM == 'theirs'


@pytest.mark.parametrize('way', ['import', 'launcher'])
def test_network_of_another_repository(way, tmp_path):
    """With one line in the script, and unmodified with the launcher."""
    line = 'import mmslak.ops.implicit_gemm\n' if way == 'import' else ''
    (tmp_path / 'main.py').write_text(line + MAIN)
    (tmp_path / 'network.py').write_text(NETWORK)
    # SLaK has such a file next to its script.
    (tmp_path / f'{NAME}.py').write_text(f'import _{NAME}_C\n')
    module = [] if way == 'import' else ['-m', 'mmslak.ops.implicit_gemm']
    run = subprocess.run(
        [sys.executable, *module, tmp_path / 'main.py', '13'],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ['mmslak.ops.implicit_gemm', '__main__', tmp_path.name]


def test_launcher_without_a_script():
    run = subprocess.run(
        [sys.executable, '-m', 'mmslak.ops.implicit_gemm'], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr.startswith('usage: python -m mmslak.ops.implicit_gemm SCRIPT')
