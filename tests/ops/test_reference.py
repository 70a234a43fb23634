"""The slow reference against values worked out by hand and PyTorch's convolution."""

import pytest
import torch
import torch.nn.functional as F

from mmslak.ops import reference


def test_reference_worked_out_by_hand():
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    weight = torch.tensor([[[[10.0, 100.0, 1000.0]]]])
    assert reference.forward(x, weight).tolist() == [[[[2100, 3210, 320]]]]
    assert reference.input_gradient(x, weight).tolist() == [[[[120, 1230, 2300]]]]
    # The gradient of the first weight is x[0] grad[1] + x[1] grad[2].
    assert reference.weight_gradient(x, x, (1, 3)).tolist() == [[[[8, 14, 8]]]]


@pytest.mark.parametrize('dilation', [(1, 1), (2, 3), (4, 1), (9, 9)], ids=str)
@pytest.mark.parametrize('kernel', [(1, 1), (3, 9), (9, 3), (13, 13)], ids=str)
def test_reference_equals_convolution_of_pytorch(kernel, dilation):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, *kernel, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    padding = [k // 2 * step for k, step in zip(kernel, dilation, strict=True)]
    out = F.conv2d(x, weight, padding=padding, dilation=dilation, groups=3)
    x_grad, weight_grad = torch.autograd.grad(out, (x, weight), grad)
    x, weight = x.detach(), weight.detach()
    torch.testing.assert_close(reference.forward(x, weight, dilation), out.detach())
    torch.testing.assert_close(reference.input_gradient(grad, weight, dilation), x_grad)
    got = reference.weight_gradient(x, grad, kernel, dilation)
    torch.testing.assert_close(got, weight_grad)
