"""Run the operator with gradients on a fake device, whose tensors are on the CPU."""

import torch
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from mmslak.ops import decomposed_conv2d

_setup_privateuseone_for_python_backend('npu')
_library = torch.library.Library('aten', 'IMPL')
_called = set()


class OnDevice(torch.Tensor):
    """A tensor of the fake device."""

    @staticmethod
    def __new__(cls, values):
        new = torch._C._acc.create_empty_tensor(values.shape, values.dtype)
        new.__class__ = cls
        new.on_cpu = values
        return new


def on_cpu(x):
    return x.on_cpu if isinstance(x, OnDevice) else x


def on_device(x):
    return OnDevice(x) if isinstance(x, torch.Tensor) else x


def implement(name, function):
    """Compute an operator of the device on the CPU."""

    def run(*arguments, **options):
        _called.add(name)
        options.pop('device', None)
        return tree_map(on_device, function(*tree_map(on_cpu, arguments), **options))

    _library.impl(name, run, 'PrivateUse1')


aten = torch.ops.aten
implement('convolution_overrideable', aten.convolution)
implement(
    'convolution_backward_overrideable',
    lambda grad, x, weight, *rest: aten.convolution_backward(grad, x, weight, None, *rest),
)
implement('flip', aten.flip)
implement('add_.Tensor', aten.add_)
implement('sum.dim_IntList', aten.sum)
implement('empty.memory_format', aten.empty)


def results(move):
    torch.manual_seed(0)
    shapes = ((2, 3, 8, 9), (3, 1, 11, 5), (3, 1, 5, 11), (3,))
    tensors = [move(torch.randn(shape)).requires_grad_() for shape in shapes]
    out = decomposed_conv2d(*tensors[:3], bias=tensors[3])
    return out, torch.autograd.grad(out, tensors, move(torch.randn(shapes[0])))


def main():
    out, gradients = results(OnDevice)
    assert out.device.type == 'npu'
    assert {'convolution_overrideable', 'convolution_backward_overrideable'} <= _called
    torch.testing.assert_close(tree_map(on_cpu, (out, gradients)), results(lambda x: x))
    print('equal')


if __name__ == '__main__':
    main()
