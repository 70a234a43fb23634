"""Time a training step beside a busy process, for several settings of OpenMP's waiting threads.

    python tools/benchmark/busy_neighbour.py --threads 2

A thread that waits for others spins for a while before it sleeps. Meanwhile it occupies a core that
another process could use. Each setting is a set of environment variables, which OpenMP reads at the
start of a process. A training step of SLaK-nano is timed in a process of its own, alone and
beside a second process that computes matrix products with as many threads and the default setting.
The settings are timed in turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch
from rich.box import SIMPLE
from rich.table import Table

from mmslak.console import guarded, print_table, progress_bar
from mmslak.models import SLaK

#: Environment variables of each setting, by its name.
SETTINGS = {
    'default': {},
    'OMP_WAIT_POLICY=active': dict(OMP_WAIT_POLICY='active'),
    'OMP_WAIT_POLICY=passive': dict(OMP_WAIT_POLICY='passive'),
    'GOMP_SPINCOUNT=1000': dict(GOMP_SPINCOUNT='1000'),
    'GOMP_SPINCOUNT=10000': dict(GOMP_SPINCOUNT='10000'),
    'GOMP_SPINCOUNT=100000': dict(GOMP_SPINCOUNT='100000'),
}
#: Images of a training step, and their side in pixels.
BATCH, SIZE = 4, 96


def parse_args() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--threads', type=int, default=os.cpu_count(), help='threads of each process (default: all)'
    )
    parser.add_argument(
        '--seconds', type=float, default=5, help='seconds of one timing (default: 5)'
    )
    parser.add_argument('--repeats', type=int, default=3, help='timings of each case (default: 3)')
    parser.add_argument('--child', choices=('step', 'neighbour'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in ('threads', 'seconds', 'repeats'):
        if getattr(args, name) <= 0:
            raise ValueError(f'--{name} must be positive, got {getattr(args, name)}')
    return args


def time_step(seconds: float) -> float:
    """Return the median milliseconds of training steps for some seconds."""
    torch.manual_seed(0)
    model = SLaK('nano', out_indices=(3,), gap_before_final_norm=True)
    images = torch.randn(BATCH, 3, SIZE, SIZE)

    def step() -> None:
        model(images)[-1].square().mean().backward()
        model.zero_grad()

    for _ in range(3):
        step()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def compute_products() -> None:
    """Compute matrix products until the process is ended, and say when the first is done."""
    a = torch.randn(1024, 1024)
    while True:
        a = torch.nn.functional.normalize(a @ a)
        print(flush=True)


def run_child(kind: str, args: argparse.Namespace, setting: dict[str, str]) -> subprocess.Popen:
    """Start this file as a child process with the environment variables of a setting."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(('OMP_', 'GOMP_'))}
    command = [sys.executable, __file__, '--child', kind, '--threads', str(args.threads)]
    return subprocess.Popen(
        [*command, '--seconds', str(args.seconds)],
        env={**clean, **setting}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def measure(args: argparse.Namespace) -> dict[str, dict[bool, float]]:
    """Return the median milliseconds of each setting, alone (False) and beside another (True)."""
    times = {name: {False: [], True: []} for name in SETTINGS}
    with progress_bar() as bar:
        task = bar.add_task('', total=2 * args.repeats * len(SETTINGS))
        for _ in range(args.repeats):
            for busy in (False, True):
                for name, setting in SETTINGS.items():
                    bar.update(task, description=f'{name}, {"busy" if busy else "alone"}')
                    neighbour = run_child('neighbour', args, {}) if busy else None
                    try:
                        if neighbour is not None:
                            neighbour.stdout.readline()
                        out, _ = run_child('step', args, setting).communicate()
                    finally:
                        if neighbour is not None:
                            neighbour.kill()
                            neighbour.communicate()
                    times[name][busy].append(float(out))
                    bar.advance(task)
    return {
        name: {busy: statistics.median(values) for busy, values in cases.items()}
        for name, cases in times.items()
    }


@guarded
def main() -> None:
    """Run the benchmark and print a table."""
    args = parse_args()
    if args.child:
        torch.set_num_threads(args.threads)
        if args.child == 'neighbour':
            compute_products()
        print(time_step(args.seconds))
        return
    medians = measure(args)
    print(f'training step of SLaK-nano, {BATCH} x {SIZE} x {SIZE}, {args.threads} threads, ms')
    table = Table('setting', box=SIMPLE)
    for heading in ('alone', 'relative', 'beside another', 'relative'):
        table.add_column(heading, justify='right')
    for name, cases in medians.items():
        cells = []
        for busy in (False, True):
            cells += [f'{cases[busy]:.1f}', f'{cases[busy] / medians["default"][busy]:.2f}']
        table.add_row(name, *cells)
    print_table(table)


if __name__ == '__main__':
    main()
