"""Check and time everything on one NVIDIA GPU, in one run of a few minutes.

    python tools/benchmark/gpu.py --out gpu.json

Needs only PyTorch with Triton, and for the section `networks` also torchvision. After each section,
the results so far are written to the JSON file, from which tools/benchmark/gpu_tables.py makes the
tables of docs/performance.md. Sections:

  ceilings     the memory bandwidth and the matrix rate that this GPU reaches
  correctness  the Triton kernels and their gradients against float64, on a grid of shapes
  blocks       block sizes of the Triton kernels, by time
  operator     the operator next to cuDNN in both memory formats
  conversions  between planar and channels last, next to PyTorch's copy
  norms        the sum of three batch norms in training, next to PyTorch's batch norms
  networks     SLaK next to ConvNeXt with as many multiply-adds
  sparse       2:4 sparse linear layers next to dense ones

Without a GPU, `TRITON_INTERPRET=1 ... --device cpu --tiny` runs the same code slowly on tiny sizes.
"""

import argparse
import importlib.util
import itertools
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from mmslak.analysis.latency import check_device, machine, measure_in_turns
from mmslak.ops import depthwise_conv2d, reference
from mmslak.ops.precision import allow_tf32

#: name -> dtype of the tensors, precision of products, and largest relative error
#: ||out - reference|| / ||reference||, a little over the rounding of inputs or results.
PRECISIONS = dict(
    fp32=(torch.float32, 'ieee', 1e-5),
    tf32=(torch.float32, 'tf32', 1e-3),
    fp16=(torch.float16, 'ieee', 1e-3),
    bf16=(torch.bfloat16, 'ieee', 8e-3),
)
LAYOUTS = dict(planar=torch.contiguous_format, channels_last=torch.channels_last)
#: Short side of the kernels, and size of the small ones.
SMALL = 5
#: (C, side of the feature map, M) of the stages of SLaK-T at 224 x 224.
STAGES = ((124, 56, 51), (249, 28, 49), (499, 14, 47), (998, 7, 13))
#: network -> ConvNeXt with about as many multiply-adds.
PEERS = dict(tiny='small', small='base', base='base')


def log(text: str) -> None:
    """Print a line with the time since the start."""
    print(f'[{time.monotonic() - START:6.1f} s] {text}', flush=True)


START = time.monotonic()


def relative_error(out: Tensor, want: Tensor) -> float:
    """Return ||out - want|| / ||want|| in float64; NaN is an infinite error."""
    error = float((out.double() - want).norm() / want.norm().clamp(min=1e-300))
    return error if error == error else float('inf')


def environment(device: str) -> dict:
    """Return what the results depend on."""
    found = dict(
        device=machine(device),
        torch=torch.__version__,
        python=platform.python_version(),
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        date=time.strftime('%Y-%m-%d'),
    )
    if importlib.util.find_spec('triton'):
        import triton

        found['triton'] = triton.__version__
    for name, command in dict(
        commit=('git', 'describe', '--always', '--dirty'),
        driver=('nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'),
    ).items():
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name] = run.stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            found[name] = None
    return found


def ceilings(args: argparse.Namespace) -> list[dict]:
    """Measure the bandwidth of a copy and the rate of a matrix product, on random numbers."""
    elements, side = (1 << 20, 64) if args.tiny else (1 << 31, 8192)
    options = dict(device=args.device, dtype=torch.bfloat16)

    def copying():
        source = torch.empty(elements, **options).normal_()
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    def multiplying():
        a, b = (torch.randn(side, side, **options) for _ in range(2))
        return lambda: a @ b

    costs = measure_in_turns(dict(copy=copying, product=multiplying), args.device, args.repeats)
    # Two bytes are read and two are written for each element.
    return [
        dict(name='copy', ms=costs['copy'].ms, tb_per_s=4 * elements / costs['copy'].ms / 1e9),
        dict(
            name='product', ms=costs['product'].ms,
            tflop_per_s=2 * side**3 / costs['product'].ms / 1e9,
        ),
    ]  # fmt: skip


def check_shape(task: tuple) -> list[dict]:
    """Compare the operator and its gradients with float64, for all dtypes and layouts."""
    device, shape, kernel = task
    generator = torch.Generator().manual_seed(sum(shape) + kernel[0])
    rows = []
    for precision, layout in itertools.product(PRECISIONS, LAYOUTS):
        dtype, matmul, allowed = PRECISIONS[precision]
        allow_tf32(matmul == 'tf32')

        def fresh(*size, layout=layout, dtype=dtype):
            values = torch.randn(size, generator=generator).to(device, dtype)
            return values.contiguous(memory_format=LAYOUTS[layout])

        x, grad = fresh(*shape).requires_grad_(), fresh(*shape)
        weight = torch.randn(shape[1], 1, *kernel, generator=generator).to(device, dtype)
        weight.requires_grad_()
        row = dict(shape=shape, kernel=kernel, precision=precision, layout=layout)
        try:
            out = depthwise_conv2d(x, weight, None, 'triton')
            x_grad, weight_grad = torch.autograd.grad(out, (x, weight), grad)
            with torch.no_grad():
                errors = dict(
                    forward=relative_error(out, reference.forward(x, weight)),
                    input_gradient=relative_error(x_grad, reference.input_gradient(grad, weight)),
                    weight_gradient=relative_error(
                        weight_grad, reference.weight_gradient(x, grad, kernel)
                    ),
                )
            row.update(errors=errors, agrees=max(errors.values()) <= allowed)
        # A kernel that does not compile or crashes is a result, too.
        except Exception as error:
            row.update(agrees=False, failure=f'{type(error).__name__}: {error}'[:500])
        rows.append(row)
    return rows


def correctness(args: argparse.Namespace) -> list[dict]:
    """Check the grid of shapes. Several processes, because compiling takes longest."""
    shapes = [(2, 3, 56, 56), (2, 3, 28, 28), (3, 3, 14, 14), (3, 2, 7, 7), (1, 2, 33, 70)]
    shapes += [(1, 2, 130, 200), (2, 2, 120, 160)]
    kernels = [(5, 51), (51, 5), (5, 5), (13, 5), (5, 13), (31, 31)]
    if args.tiny:
        shapes, kernels = [(1, 2, 7, 9)], [(3, 9)]
    tasks = [(args.device, *pair) for pair in itertools.product(shapes, kernels)]
    return [row for rows in in_processes(check_shape, tasks, args) for row in rows]


def time_blocks(task: tuple) -> dict:
    """Run one candidate once, which compiles it, and compare it with PyTorch's convolution."""
    _, direction, shape, kernel, precision, blocks = task
    row = dict(
        direction=direction, shape=shape, kernel=kernel, precision=precision, blocks=list(blocks)
    )
    try:
        run, want = candidate(*task)
        row['error'] = relative_error(run(), want())
    except Exception as error:
        row['failure'] = f'{type(error).__name__}: {error}'[:300]
    return row


def candidate(device, direction, shape, kernel, precision, blocks):
    """Return functions that compute a pass with these block sizes, and with PyTorch's operator."""
    from mmslak.ops import native, triton_kernels

    torch.manual_seed(0)
    dtype, matmul, _ = PRECISIONS[precision]
    allow_tf32(matmul == 'tf32')
    x, grad = (torch.randn(shape, device=device, dtype=dtype) for _ in range(2))
    weight = torch.randn(shape[1], 1, *kernel, device=device, dtype=dtype) / 51
    blocks = triton_kernels.Blocks(*blocks)
    if direction == 'forward':
        return (
            lambda: triton_kernels.forward(x, weight, blocks=blocks),
            lambda: native.forward(x.float(), weight.float()).double(),
        )
    return (
        lambda: triton_kernels.weight_gradient(x, grad, kernel, blocks=blocks),
        lambda: native.weight_gradient(x.float(), grad.float(), kernel).double(),
    )


#: (lines, outputs, inputs, warps, stages, registers) to try, for 16 bits.
CANDIDATES = dict(
    forward=[
        (128, 64, 64, 8, 3, 80), (128, 64, 64, 8, 3, None), (128, 64, 64, 4, 3, None),
        (128, 64, 32, 4, 3, None), (128, 64, 32, 8, 3, 128), (64, 64, 64, 4, 3, None),
        (64, 64, 64, 4, 4, None), (64, 64, 32, 4, 4, None), (128, 32, 32, 4, 3, None),
        (256, 64, 32, 8, 3, None), (128, 64, 64, 8, 2, None), (64, 32, 64, 4, 3, None),
        (256, 32, 64, 8, 3, None), (64, 64, 64, 8, 3, None),
    ],
    weight_gradient=[
        (64, 64, 64, 4, 3, None), (128, 64, 64, 4, 3, None), (64, 64, 64, 8, 3, None),
        (128, 64, 64, 8, 2, None), (32, 64, 64, 4, 4, None), (64, 64, 64, 4, 4, None),
        (128, 64, 64, 4, 2, None), (64, 32, 64, 4, 3, None), (64, 64, 128, 8, 3, None),
    ],
)  # fmt: skip


def blocks(args: argparse.Namespace) -> list[dict]:
    """Time the candidates, after all have been compiled by several processes."""
    stages, batch, candidates = STAGES, args.batch, CANDIDATES
    if args.tiny:
        stages, batch = [(2, 7, 9)], 1
        candidates = {name: rows[:1] for name, rows in CANDIDATES.items()}
    tasks = []
    for (channels, side, m), direction in itertools.product(stages, candidates):
        for kernel in ((5, m), (m, 5)):
            shape = (batch, channels, side, side)
            for sizes in candidates[direction]:
                tasks.append((args.device, direction, shape, kernel, 'bf16', sizes))
    rows = in_processes(time_blocks, tasks, args)
    allowed = 2 * PRECISIONS['bf16'][2]
    groups = itertools.groupby(zip(tasks, rows, strict=True), key=lambda pair: pair[0][1:4])
    for _, group in groups:
        group = [(task, row) for task, row in group if row.get('error', 1) <= allowed]
        ways = {task[-1]: lambda task=task: candidate(*task)[0] for task, _ in group}
        graphs = args.device == 'cuda'
        costs = measure_in_turns(ways, args.device, args.repeats, graphs=graphs)
        for task, row in group:
            row['ms'] = costs[task[-1]].ms
    return rows


def timed(ways: dict, args: argparse.Namespace, repeats: int, record: bool = True) -> dict:
    """Time ways as they are called, and as replays of CUDA graphs, which is the time on the GPU."""
    called = measure_in_turns(ways, args.device, repeats)
    found = {
        name: dict(ms=cost.ms, peak_mb=cost.peak_mb, gpu_ms=None) for name, cost in called.items()
    }
    if args.device == 'cuda' and record:
        for name, prepare in ways.items():
            try:
                costs = measure_in_turns({name: prepare}, 'cuda', repeats, graphs=True)
            # Some operators cannot be recorded.
            except Exception as error:
                log(f'  {name} was not recorded as a graph: {type(error).__name__}: {error}'[:200])
                continue
            found[name]['gpu_ms'] = costs[name].ms
    return found


def operator(args: argparse.Namespace) -> list[dict]:
    """Time the operator, forward and with all gradients, next to cuDNN in both memory formats."""
    stages, batch = ([(2, 7, 9)], 1) if args.tiny else (STAGES, args.batch)
    cases = [
        (stage, kernel, 'bf16')
        for stage in stages
        for kernel in ((SMALL, stage[2]), (stage[2], SMALL), (SMALL, SMALL))
    ]
    if not args.tiny:
        cases += [(STAGES[0], (SMALL, STAGES[0][2]), name) for name in ('fp16', 'tf32', 'fp32')]
    rows = []
    for (channels, side, _), kernel, precision in cases:
        shape = (batch, channels, side, side)
        allow_tf32(PRECISIONS[precision][1] == 'tf32')
        for direction in ('forward', 'forward_backward'):
            ways = {
                (name, layout): operator_way(
                    name, layout, shape, kernel, precision, direction, args.device
                )
                for name, layout in itertools.product(('native', 'triton', 'auto'), LAYOUTS)
            }
            found = timed(ways, args, args.repeats)
            for (name, layout), cost in found.items():
                rows.append(
                    dict(
                        shape=shape, kernel=kernel, precision=precision, direction=direction,
                        implementation=name, layout=layout, **cost,
                    )
                )  # fmt: skip
            times = ', '.join(
                f'{name} {layout} {cost["ms"]:.3f} ({cost["gpu_ms"] or 0:.3f})'
                for (name, layout), cost in found.items()
            )
            log(f'  {shape} {kernel} {precision} {direction}, ms (on the GPU): {times}')
    return rows


def operator_way(name, layout, shape, kernel, precision, direction, device) -> Callable:
    """Return a function that makes the tensors and returns the function to time."""
    options = dict(device=device, dtype=PRECISIONS[precision][0])

    def prepare():
        x, grad = (
            torch.randn(shape, **options).contiguous(memory_format=LAYOUTS[layout])
            for _ in range(2)
        )
        weight = torch.randn(shape[1], 1, *kernel, **options) / 51
        if direction == 'forward':

            def run():
                with torch.no_grad():
                    return depthwise_conv2d(x, weight, None, name)

            return run
        x.requires_grad_()
        weight.requires_grad_()
        return lambda: torch.autograd.grad(
            depthwise_conv2d(x, weight, None, name), (x, weight), grad
        )

    return prepare


def conversions(args: argparse.Namespace) -> list[dict]:
    """Time conversions of the memory format and dtype, by Triton and by PyTorch."""
    from mmslak.ops import triton_kernels

    stages, batch = ([(2, 7, 9)], 1) if args.tiny else (STAGES, 2 * args.batch)
    wide, half = torch.float32, torch.bfloat16
    cases = [
        (stage, source, target, into)
        for stage in stages
        for source, target, into in (
            (wide, half, 'planar'), (half, wide, 'channels_last'),
            (half, half, 'planar'), (half, half, 'channels_last'),
        )
    ]  # fmt: skip
    rows = []
    for (channels, side, _), source, target, into in cases:
        x = torch.randn(batch, channels, side, side, device=args.device, dtype=source)
        start = 'channels_last' if into == 'planar' else 'planar'
        x, memory_format = x.contiguous(memory_format=LAYOUTS[start]), LAYOUTS[into]

        def triton(x=x, target=target, memory_format=memory_format):
            return triton_kernels.converted(x, target, memory_format)

        def native(x=x, target=target, memory_format=memory_format):
            return x.to(dtype=target, memory_format=memory_format)

        ways = {name: lambda run=run: run for name, run in (('triton', triton), ('native', native))}
        found = timed(ways, args, args.repeats)
        rows.append(
            dict(
                shape=x.shape, source=str(source), target=str(target), into=into,
                equal=torch.equal(triton(), native()),
                **{name: cost['gpu_ms'] or cost['ms'] for name, cost in found.items()},
            )
        )  # fmt: skip
    return rows


def norms(args: argparse.Namespace) -> list[dict]:
    """Check and time the sum of three batch norms, forward and backward, in bf16."""
    from mmslak.ops.branch_norms import fused

    stages, batch = ([(2, 7, 9)], 2) if args.tiny else (STAGES, 2 * args.batch)
    rows = []
    for channels, side, _ in stages:
        shape = (batch, channels, side, side)
        inputs = [
            torch.randn(shape, device=args.device).to(torch.bfloat16).requires_grad_()
            for _ in range(3)
        ]
        grad = torch.randn(shape, device=args.device).to(torch.bfloat16)
        modules = [nn.BatchNorm2d(channels).to(args.device) for _ in inputs]
        leaves = [*inputs, *(p for module in modules for p in module.parameters())]

        def run(function, modules=modules, inputs=inputs, leaves=leaves, grad=grad):
            out = function(inputs, modules)
            return [out, *torch.autograd.grad(out, leaves, grad.to(out.dtype))]

        wide = [x.detach().double().requires_grad_() for x in inputs]
        exact = [nn.BatchNorm2d(channels).to(args.device, torch.float64) for _ in inputs]
        want = run(_sum_of_norms, exact, wide, [*wide, *(p for m in exact for p in m.parameters())])
        errors = [relative_error(a, b) for a, b in zip(run(fused), want, strict=True)]
        del wide, exact, want
        ways = dict(
            fused=lambda run=run: lambda: run(fused),
            native=lambda run=run: lambda: run(_sum_of_norms),
        )
        found = timed(ways, args, args.repeats)
        rows.append(
            dict(
                shape=shape, error=max(errors),
                **{name: cost['gpu_ms'] or cost['ms'] for name, cost in found.items()},
                **{f'{name}_called': cost['ms'] for name, cost in found.items()},
            )
        )  # fmt: skip
    return rows


def _sum_of_norms(inputs: list[Tensor], modules: list[nn.Module]) -> Tensor:
    return sum(module(x) for module, x in zip(modules, inputs, strict=True))


def networks(args: argparse.Namespace) -> list[dict]:
    """Time training steps (forward and backward) and inference, in bf16 autocast."""
    if not _installed('torchvision'):
        raise ModuleNotFoundError('the section networks needs torchvision')
    cases = [
        ('train', 64, 224, ('tiny', 'small', 'base')),
        ('inference', 64, 224, ('tiny', 'small', 'base')),
        ('inference', 1, 224, ('tiny',)),
        ('inference', 8, 512, ('tiny',)),
    ]
    if args.tiny:
        cases = [('train', 2, 32, ('nano',)), ('inference', 1, 32, ('nano',))]
    rows = []
    for mode, batch, size, archs in cases:
        names = []
        archs = [arch for arch in archs if arch in args.archs]
        for arch in archs:
            names += [('convnext', PEERS.get(arch, 'tiny')), ('slak', arch)]
            names += [('unaligned', arch)] if arch in ('nano', 'tiny') else []
            names += [('merged', arch)] if mode == 'inference' else []
            if mode == 'train' and arch == 'tiny' and args.device == 'cuda':
                names += [('graphed', arch)]
        for name in dict.fromkeys(names):
            # One at a time, because the networks do not all fit into memory.
            ways = {name: network_way(*name, mode, batch, size, args.device)}
            kind, arch = name
            cost = timed(ways, args, max(3, args.repeats // 2), record=kind != 'graphed')[name]
            rows.append(dict(mode=mode, batch=batch, size=size, network=kind, arch=arch, **cost))
            gpu = cost['gpu_ms'] or float('nan')
            log(
                f'  {mode}, {batch} x {size} x {size}, {kind} {arch}: {cost["ms"]:.2f} ms, '
                f'on the GPU {gpu:.2f} ms, peak {cost["peak_mb"] or 0:.0f} MB'
            )
    return rows


def build_network(kind: str, arch: str) -> nn.Module:
    """Build an untrained network, with a classifier or pooled features at its end."""
    if kind == 'convnext':
        import torchvision

        return getattr(torchvision.models, f'convnext_{arch}')()
    from mmslak.models import SLaK

    options = dict(aligned=False) if kind == 'unaligned' else {}
    model = SLaK(arch, out_indices=(3,), gap_before_final_norm=True, **options)
    return model.eval().switch_to_deploy() if kind == 'merged' else model


def network_way(kind, arch, mode, batch, size, device) -> Callable:
    """Return a function that makes network and images and returns the function to time."""

    def prepare():
        torch.manual_seed(0)
        model = build_network(kind, arch).to(device, memory_format=torch.channels_last)
        model.train(mode == 'train')
        images = torch.randn(batch, 3, size, size, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        # Weights that were cast outside a CUDA graph would stay as they are.
        autocast = dict(dtype=torch.bfloat16, cache_enabled=kind != 'graphed')
        if kind == 'graphed':
            with torch.autocast(device, **autocast):
                model = torch.cuda.make_graphed_callables(model, (images,))

        def infer():
            with torch.inference_mode(), torch.autocast(device, **autocast):
                return model(images)

        def train():
            with torch.autocast(device, **autocast):
                out = model(images)
                loss = (out[-1] if isinstance(out, tuple) else out).float().square().mean()
            loss.backward()
            model.zero_grad()

        return train if mode == 'train' else infer

    return prepare


def sparse(args: argparse.Namespace) -> list[dict]:
    """Time 2:4 sparse linear layers of SLaK-T's aligned widths, next to dense ones, in bf16."""
    if args.device == 'cpu':
        raise RuntimeError('2:4 sparse products need an NVIDIA GPU')
    rows = []
    for width, positions in ((128, 56 * 56), (256, 28 * 28), (512, 14 * 14), (1024, 7 * 7)):
        for out, into in ((4 * width, width), (width, 4 * width)):
            x = torch.randn(args.batch * positions, into, device=args.device, dtype=torch.bfloat16)
            weight = torch.randn(out, into, device=args.device, dtype=torch.bfloat16)
            pattern = torch.tensor([1, 1, 0, 0], device=args.device, dtype=torch.bfloat16)
            weight *= pattern.repeat(out, into // 4)
            packed = torch.sparse.to_sparse_semi_structured(weight)
            ways = {
                'dense': lambda x=x, w=weight: lambda: nn.functional.linear(x, w),
                '2:4': lambda x=x, w=packed: lambda: nn.functional.linear(x, w),
            }
            error = relative_error(ways['2:4']()(), ways['dense']()().double())
            costs = timed(ways, args, args.repeats)
            rows.append(
                dict(
                    rows=len(x), into=into, out=out, error=error,
                    **{
                        f'{name}_{kind}': costs[way][kind]
                        for name, way in (('dense', 'dense'), ('sparse', '2:4'))
                        for kind in ('ms', 'gpu_ms')
                    },
                )
            )  # fmt: skip
    return rows


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def in_processes(function: Callable, tasks: list, args: argparse.Namespace) -> list:
    """Map a function over tasks with ``--jobs`` processes, and log the progress."""
    if args.jobs == 1:
        return list(map(function, tasks))
    context = multiprocessing.get_context('spawn')
    results = []
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        for result in pool.map(function, tasks):
            results.append(result)
            if len(results) % max(1, len(tasks) // 5) == 0:
                log(f'  {len(results)} of {len(tasks)}')
    return results


SECTIONS = dict(
    ceilings=ceilings,
    correctness=correctness,
    blocks=blocks,
    operator=operator,
    conversions=conversions,
    norms=norms,
    networks=networks,
    sparse=sparse,
)


def summarise(name: str, rows: list[dict]) -> None:
    """Print the outcome of a section in a few lines."""
    if name == 'correctness':
        wrong = [row for row in rows if not row['agrees']]
        log(f'  {len(rows) - len(wrong)} of {len(rows)} cases agree with float64')
        for row in wrong[:10]:
            log(f'  wrong: {row}')
    elif name == 'blocks':
        groups = itertools.groupby(rows, key=lambda r: (r['direction'], r['shape'], r['kernel']))
        for key, group in groups:
            timed = sorted((r for r in group if 'ms' in r), key=lambda r: r['ms'])
            best = ', '.join(f'{tuple(r["blocks"])} {r["ms"]:.3f}' for r in timed[:3])
            log(f'  {key}: {len(timed)} ran, best ms {best}')
    elif name in ('ceilings', 'conversions', 'norms', 'sparse'):
        for row in rows:
            log(
                '  '
                + ', '.join(
                    f'{k} {v:.4g}' if isinstance(v, float) else f'{k} {v}' for k, v in row.items()
                )
            )


def main() -> None:
    """Run the sections, and write the results after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cuda', help='device')
    parser.add_argument(
        '--sections', nargs='+', choices=list(SECTIONS), default=list(SECTIONS),
        help='sections to run (default: all)',
    )  # fmt: skip
    parser.add_argument('--batch', type=int, default=32, help='batch size (default: 32)')
    parser.add_argument('--repeats', type=int, default=10, help='timed turns (default: 10)')
    parser.add_argument(
        '--jobs',
        type=int,
        default=min(12, os.cpu_count() or 1),
        help='processes that compile (default: the number of cores, at most 12)',
    )
    parser.add_argument(
        '--archs', nargs='+', choices=list(PEERS), default=list(PEERS),
        help='sizes of SLaK in the section networks (default: all)',
    )  # fmt: skip
    parser.add_argument('--tiny', action='store_true', help='tiny sizes, to try the code')
    args = parser.parse_args()
    if args.tiny:
        args.archs = ['nano']
    try:
        check_device(args.device)
    except ValueError as error:
        sys.exit(f'error: {error}')
    if args.device == 'cpu':
        args.jobs = 1
    torch.backends.cudnn.benchmark = True
    results = dict(environment=environment(args.device), sections={}, skipped={})
    if args.out.is_file():
        earlier = json.loads(args.out.read_text())
        # Sections of an earlier run on the same device and commit are kept.
        if earlier['environment'] == results['environment']:
            results = earlier
    log(', '.join(f'{key} {value}' for key, value in results['environment'].items()))
    for number, name in enumerate(args.sections, 1):
        log(f'{name} ({number} of {len(args.sections)})')
        try:
            results['sections'][name] = SECTIONS[name](args)
            results['skipped'].pop(name, None)
        # One section that fails must not cost the others.
        except Exception as error:
            results['skipped'][name] = f'{type(error).__name__}: {error}'[:500]
            log(f'  skipped: {results["skipped"][name]}')
            traceback.print_exc()
        else:
            summarise(name, results['sections'][name])
        side = args.out.with_suffix('.part')
        side.write_text(json.dumps(results, indent=1) + '\n')
        side.replace(args.out)
    log(f'Written to {args.out}')


if __name__ == '__main__':
    main()
