"""Measure what keeping weights masked costs, as a share of a training step.

    python tools/benchmark/sparsity_overhead.py --arch tiny --batch 4 --size 224

Times are medians of one run, both in the same process; quote the share, not the seconds.
"""

import argparse
import json
import platform
import statistics
import time

import torch
from rich.progress import track
from torch import nn

from mmslak.models import ARCHS, SLaK
from mmslak.sparsity import DynamicSparsity, select_targets


def main() -> None:
    """Run the benchmark and print the share."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--arch', choices=list(ARCHS), default='tiny')
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--size', type=int, default=224, help='side of the images in pixels')
    parser.add_argument('--steps', type=int, default=10, help='steps measured, after two more')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--json', action='store_true', help='print numbers only')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    network = nn.ModuleList([SLaK(args.arch, out_indices=-1, gap_before_final_norm=True)])
    network.append(nn.Linear(network[0].widths[-1], 1000))
    network.to(args.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    # No update within the run: this is about keeping weights masked, not about moving them.
    sparsity = DynamicSparsity(
        select_targets(network), 0.4, 'erk', dict(every=10**6), total_steps=10**7
    )
    images = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    labels = torch.arange(args.batch, device=args.device)

    def clock() -> float:
        if args.device == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter()

    whole, masking = [], []
    for _ in track(range(args.steps + 2), 'steps', disable=args.json):
        start = clock()
        nn.functional.cross_entropy(network[1](network[0](images)[-1]), labels).backward()
        before = clock()
        sparsity.before_step()
        after = clock()
        optimizer.step()
        step = clock()
        sparsity.step(optimizer)
        end = clock()
        optimizer.zero_grad()
        whole.append(clock() - start)
        masking.append(after - before + end - step)
    step, cost = (statistics.median(times[2:]) for times in (whole, masking))
    share = cost / (step - cost)
    if args.json:
        print(json.dumps(dict(step_s=step, masking_s=cost, share=share)))
        return
    machine = torch.cuda.get_device_name() if args.device == 'cuda' else platform.processor()
    print(f'SLaK-{args.arch}, batch {args.batch}, {args.size} x {args.size}, AdamW, fp32')
    print(f'{args.device} ({machine or platform.machine()}), {args.threads} threads')
    print(f'training step, masks kept   {step * 1e3:9.1f} ms')
    print(f'of it keeping masks         {cost * 1e3:9.1f} ms')
    print(f'share of a dense step       {share:9.2%}  (to be at most 2 %)')


if __name__ == '__main__':
    main()
