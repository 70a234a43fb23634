"""Time wide convolutions in ONNX Runtime: as they are, and transposed.

    python tools/benchmark/onnx_runtime.py --threads 1

A wide kernel can be computed as a tall one between two transpositions. The two are timed in turns.
Quote their ratio, because milliseconds depend on the machine.
"""

import argparse
import io

import onnxruntime
import torch
from rich.box import SIMPLE
from rich.table import Table
from torch import Tensor, nn

from mmslak.analysis.latency import machine, measure_in_turns
from mmslak.console import guarded, print_table
from mmslak.ops import native, pytorch

#: (N, C, H, W) of the feature map, and (kh, kw) of the kernel: the stages of SLaK-T, the first one
#: in segmentation, and smaller kernels.
CASES = [
    ((1, 124, 56, 56), (5, 51)),
    ((1, 249, 28, 28), (5, 49)),
    ((1, 499, 14, 14), (5, 47)),
    ((1, 998, 7, 7), (5, 13)),
    ((1, 124, 128, 128), (5, 51)),
    ((1, 124, 56, 56), (1, 21)),
    ((1, 124, 56, 56), (1, 11)),
    ((1, 124, 56, 56), (1, 7)),
]
WAYS = dict(wide=native, transposed=pytorch)


class _Convolution(nn.Module):
    def __init__(self, weight: Tensor, way: str):
        super().__init__()
        self.weight, self.way = nn.Parameter(weight), way

    def forward(self, x: Tensor) -> Tensor:
        return WAYS[self.way].forward(x, self.weight)


def session(weight: Tensor, x: Tensor, way: str, threads: int) -> onnxruntime.InferenceSession:
    """Export a convolution and load it into ONNX Runtime."""
    file = io.BytesIO()
    torch.onnx.export(_Convolution(weight, way), (x,), file, dynamo=False, input_names=['x'])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        file.getvalue(), options, providers=['CPUExecutionProvider']
    )


@guarded
def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--threads', type=int, default=1, help='threads of ONNX Runtime')
    parser.add_argument('--repeats', type=int, default=10, help='timed runs of each way')
    args = parser.parse_args()
    table = Table(box=SIMPLE, title=f'{machine()}, {args.threads} threads')
    for title in ('feature map', 'kernel', 'wide (ms)', 'transposed (ms)', 'ratio'):
        table.add_column(title, justify='right')
    for shape, kernel in CASES:
        x, weight = torch.randn(shape), torch.randn(shape[1], 1, *kernel)
        ways = {}
        for way in WAYS:
            loaded, feed = session(weight, x, way, args.threads), {'x': x.numpy()}
            ways[way] = lambda loaded=loaded, feed=feed: lambda: loaded.run(None, feed)
        wide, transposed = (
            cost.ms for cost in measure_in_turns(ways, repeats=args.repeats).values()
        )
        sizes = [' x '.join(map(str, size)) for size in (shape, kernel)]
        table.add_row(*sizes, f'{wide:.2f}', f'{transposed:.2f}', f'{wide / transposed:.2f}')
    print_table(table)


if __name__ == '__main__':
    main()
