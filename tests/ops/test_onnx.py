"""Networks with the operator as ONNX, by both exporters of PyTorch."""

import io

import pytest
import torch
from torch import nn

from mmslak.ops import LargeKernelConv2d, decomposed_conv2d, depthwise_conv2d
from mmslak.ops.depthwise import standard_operators

# `make test-lowest` has PyTorch alone.
onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

AXES = {0: 'batch', 2: 'height', 3: 'width'}


class Network(nn.Module):
    """Tall, wide and small kernels, each with and without a bias."""

    def __init__(self):
        super().__init__()
        self.first = LargeKernelConv2d(4, 4, (5, 21))
        self.second = LargeKernelConv2d(4, 4, (3, 3), bias=False)
        self.tall = nn.Parameter(torch.randn(4, 1, 13, 5))
        self.wide = nn.Parameter(torch.randn(4, 1, 5, 13))
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x):
        x = self.second(self.first(x))
        return decomposed_conv2d(x, self.tall, self.wide, None, self.bias)


def export(network, x, dynamo):
    file = io.BytesIO()
    if dynamo:
        program = torch.onnx.export(
            network, (x,), dynamo=True, verbose=False, dynamic_shapes=(AXES,)
        )
        program.save(file)
    else:
        torch.onnx.export(
            network, (x,), file, dynamo=False, input_names=['x'], dynamic_axes={'x': AXES}
        )
    return onnx.load_model_from_string(file.getvalue())


@pytest.mark.parametrize('dynamo', [True, False])
def test_both_exporters(dynamo):
    torch.manual_seed(0)
    network = Network().eval()
    model = export(network, torch.randn(2, 4, 9, 11), dynamo)
    nodes = [node.op_type for node in model.graph.node]
    assert nodes.count('Conv') == 4 and {node.domain for node in model.graph.node} == {''}
    # The two wide kernels. Their weights are transposed in the exporter or by ONNX Runtime.
    kernels = [
        tuple(attribute.ints)
        for node in model.graph.node if node.op_type == 'Conv'
        for attribute in node.attribute if attribute.name == 'kernel_shape'
    ]  # fmt: skip
    assert sorted(kernels) in ([], [(3, 3), (13, 5), (13, 5), (21, 5)])
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    for shape in ((2, 4, 9, 11), (1, 4, 30, 7), (3, 4, 16, 40)):
        x = torch.randn(shape)
        (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        wanted = network(x).detach()
        torch.testing.assert_close(torch.from_numpy(out), wanted, rtol=1e-4, atol=1e-4)


def test_standard_operators_replace_the_operator_in_a_program():
    torch.manual_seed(0)
    network, x = Network().eval(), torch.randn(2, 4, 9, 11)
    program = torch.export.export(network, (x,))
    operator = torch.ops.mmslak.depthwise_conv2d.default
    assert operator in [node.target for node in program.graph.nodes]
    standard = program.run_decompositions({operator: standard_operators})
    assert 'mmslak' not in str(standard.graph)
    torch.testing.assert_close(standard.module()(x), network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kernels', [[(5, 21)], [(21, 5), (3, 3)], [(7, 7), (9, 11), (11, 9)]])
@pytest.mark.parametrize('biased', [True, False])
def test_standard_operators(kernels, biased):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, 11, dtype=torch.float64)
    weights = [torch.randn(4, 1, *kernel, dtype=torch.float64) for kernel in kernels]
    bias = torch.randn(4, dtype=torch.float64) if biased else None
    wanted = sum(depthwise_conv2d(x, weight, None, 'native') for weight in weights)
    wanted = wanted if bias is None else wanted + bias.view(-1, 1, 1)
    torch.testing.assert_close(standard_operators(x, weights, bias), wanted)
