"""Random weights under the names of the authors' code, as their files contain them."""

from collections import OrderedDict

import torch

NANO = dict(depths=(1, 1, 3, 1), widths=(20, 41, 83, 166))
TINY = dict(depths=(3, 3, 9, 3), widths=(124, 249, 499, 998))
SMALL = dict(depths=(3, 3, 27, 3), widths=(124, 249, 499, 998))
BASE = dict(depths=(3, 3, 27, 3), widths=(166, 332, 665, 1331))
KERNELS = (51, 49, 47, 13)


def block_shapes(mode, c, m, n):
    """Yield the names in a block of the authors' code, with their shapes."""

    def branch(name, *kernel):
        yield f'{name}.conv.weight', (c, 1, *kernel)
        for entry in ('weight', 'bias', 'running_mean', 'running_var'):
            yield f'{name}.bn.{entry}', (c,)
        yield f'{name}.bn.num_batches_tracked', ()

    yield 'gamma', (c,)
    if mode == 'naive':
        yield 'dwconv.weight', (c, 1, m, m)
        yield 'dwconv.bias', (c,)
    elif mode == 'reparam':
        yield from branch('large_kernel.lkb_origin', m, m)
        yield from branch('large_kernel.small_conv', n, n)
    else:
        yield from branch('large_kernel.LoRA1', m, n)
        yield from branch('large_kernel.LoRA2', n, m)
        yield from branch('large_kernel.small_conv', n, n)
    for name, shape in (('norm', (c,)), ('pwconv1', (4 * c, c)), ('pwconv2', (c, 4 * c))):
        yield f'{name}.weight', shape
        yield f'{name}.bias', shape[:1]


def shapes(depths, widths, kernels=KERNELS, mode='decomposed', n=5, classes=7):
    """Yield the names in a classifier of the authors' code, with their shapes."""
    ins = (3, *widths[:3])
    for i in range(4):
        k = 4 if i == 0 else 2
        conv, norm = (0, 1) if i == 0 else (1, 0)
        yield f'downsample_layers.{i}.{conv}.weight', (widths[i], ins[i], k, k)
        yield f'downsample_layers.{i}.{conv}.bias', (widths[i],)
        for entry in ('weight', 'bias'):
            yield f'downsample_layers.{i}.{norm}.{entry}', (widths[0] if i == 0 else ins[i],)
    for i in range(4):
        for j in range(depths[i]):
            for name, shape in block_shapes(mode, widths[i], kernels[i], n):
                yield f'stages.{i}.{j}.{name}', shape
    yield 'norm.weight', (widths[3],)
    yield 'norm.bias', (widths[3],)
    yield 'head.weight', (classes, widths[3])
    yield 'head.bias', (classes,)


def state_of(listing, device='cpu', seed=0):
    """Return random weights for names and shapes; on the meta device they have no values."""
    generator = torch.Generator().manual_seed(seed)
    state = OrderedDict()
    for name, shape in listing:
        if name.endswith('num_batches_tracked'):
            state[name] = torch.tensor(3, device=device)
        elif device == 'meta':
            state[name] = torch.empty(shape, device='meta')
        else:
            # All values are positive, because variances must be.
            state[name] = 0.05 + 0.2 * torch.rand(shape, generator=generator)
    return state


def nano(mode='decomposed', **kwargs):
    """Return the weights of a small classifier in the authors' format."""
    return state_of(shapes(**NANO, mode=mode, **kwargs))


def sparse_nano():
    """Return weights with zeros, and boolean masks of the zeros by name."""
    state, zeros = nano(), {}
    names = [
        'stages.0.0.large_kernel.LoRA1.conv.weight', 'stages.2.1.pwconv2.weight', 'head.weight'
    ]  # fmt: skip
    for i, name in enumerate(names):
        zeros[name] = torch.rand(state[name].shape) < (0.3, 0.5, 0.7)[i]
        state[name][zeros[name]] = 0
    return state, zeros
