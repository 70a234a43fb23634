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


@pytest.mark.parametrize('kernel', [(1, 1), (3, 9), (9, 3), (13, 13)])
def test_reference_equals_convolution_of_pytorch(kernel):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, *kernel, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    out = F.conv2d(x, weight, padding=(kernel[0] // 2, kernel[1] // 2), groups=3)
    x_grad, weight_grad = torch.autograd.grad(out, (x, weight), grad)
    x, weight = x.detach(), weight.detach()
    torch.testing.assert_close(reference.forward(x, weight), out.detach())
    torch.testing.assert_close(reference.input_gradient(grad, weight), x_grad)
    torch.testing.assert_close(reference.weight_gradient(x, grad, kernel), weight_grad)
