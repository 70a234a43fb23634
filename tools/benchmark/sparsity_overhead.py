"""Time how much masking the weights adds to a training step.

    python tools/benchmark/sparsity_overhead.py --arch tiny --batch 4 --size 224

Dense training steps and the masking of gradients and weights are timed in turns. Quote the ratio of
their medians, because milliseconds depend on the machine.
"""

import argparse
import json
from collections.abc import Callable

import torch
from torch import nn

from mmslak.analysis.latency import check_device, machine, measure_in_turns
from mmslak.console import guarded, progress_bar
from mmslak.models import ARCHS, SLaK
from mmslak.sparsity import DynamicSparsity, select_targets


def parse_args() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--arch', choices=list(ARCHS), default='tiny', help='architecture (default: tiny)'
    )
    parser.add_argument('--batch', type=int, default=4, help='batch size (default: 4)')
    parser.add_argument(
        '--size', type=int, default=224, help='side of the images in pixels (default: 224)'
    )
    parser.add_argument(
        '--steps',
        type=int,
        default=10,
        help='timed steps, of which the median counts (default: 10)',
    )
    parser.add_argument(
        '--threads',
        type=int,
        default=torch.get_num_threads(),
        help="CPU threads (default: PyTorch's number of threads)",
    )
    parser.add_argument(
        '--device', choices=['cpu', 'cuda'], default='cpu', help='device (default: cpu)'
    )
    parser.add_argument('--json', action='store_true', help='print the numbers as JSON')
    args = parser.parse_args()
    for name in ('batch', 'size', 'steps', 'threads'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name} must be positive, got {getattr(args, name)}')
    check_device(args.device)
    return args


def training_step(args: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Build a network with an optimiser and masks, and return the two parts of a training step.

    Returns:
        dict: ``dense``: a step without masks, which keeps its gradients; ``masking``: what masks
        add to it.
    """
    torch.manual_seed(0)
    network = nn.ModuleList([SLaK(args.arch, out_indices=-1, gap_before_final_norm=True)])
    network.append(nn.Linear(network[0].widths[-1], 1000))
    network.to(args.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    # Without updates of the masks, which are rare.
    sparsity = DynamicSparsity(
        select_targets(network), 0.4, 'erk', dict(every=10**6), total_steps=10**7
    )
    images = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    labels = torch.arange(args.batch, device=args.device)

    def dense() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network[1](network[0](images)[-1]), labels).backward()
        optimizer.step()

    def masking() -> None:
        sparsity.before_step()
        sparsity.step(optimizer)

    return dict(dense=dense, masking=masking)


@guarded
def main() -> None:
    """Time both parts, and print the ratio."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    parts = training_step(args)
    ways = {name: lambda run=run: run for name, run in parts.items()}
    with progress_bar() as bar:
        task = bar.add_task('steps', total=len(ways) * (args.steps + 2))
        costs = measure_in_turns(ways, args.device, args.steps, lambda: bar.advance(task))
    dense, masking = costs['dense'].ms, costs['masking'].ms
    if args.json:
        step, masking_s = (dense + masking) / 1e3, masking / 1e3
        print(json.dumps(dict(step_s=step, masking_s=masking_s, share=masking / dense)))
        return
    print(f'SLaK-{args.arch}, batch {args.batch}, {args.size} x {args.size}, AdamW, fp32')
    print(f'{machine(args.device)}, {args.threads} threads')
    print(f'training step with masking  {dense + masking:9.1f} ms')
    print(f'of which masking            {masking:9.1f} ms')
    print(f'masking / dense step        {masking / dense:9.2%}  (the goal is at most 2 %)')


if __name__ == '__main__':
    main()
