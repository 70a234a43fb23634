"""Write the GPU tables of docs/performance.md from results of tools/benchmark/gpu.py.

python tools/benchmark/gpu_tables.py docs/gpu/h200.json
"""

import argparse
import itertools
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmslak.analysis.pages import insert_table
from mmslak.console import guarded

NAMES = dict(
    convnext='ConvNeXt-{}',
    slak='SLaK-{}',
    unaligned='SLaK-{}, not aligned',
    merged='SLaK-{}, merged',
    graphed='SLaK-{}, CUDA graph',
)
ARCHS = dict(tiny='T', small='S', base='B')


def _times(sizes) -> str:
    return 'x'.join(map(str, sizes))


def _number(value: float | None, digits: int = 3) -> str:
    return '-' if value is None else f'{value:.{digits}g}'


def correctness_table(rows: list[dict]) -> Table:
    """Count the cases that agree, and show the largest error, for each precision."""
    table = Table('precision')
    for heading in ('cases', 'agree', 'forward', 'input gradient', 'weight gradient'):
        table.add_column(heading, justify='right')
    for name in dict.fromkeys(row['precision'] for row in rows):
        group = [row for row in rows if row['precision'] == name]
        errors = [row['errors'] for row in group if 'errors' in row]
        table.add_row(
            name, str(len(group)), str(sum(row['agrees'] for row in group)),
            *(
                _number(max((e[part] for e in errors), default=None), 2)
                for part in ('forward', 'input_gradient', 'weight_gradient')
            ),
        )  # fmt: skip
    return table


def operator_table(rows: list[dict]) -> Table:
    """Put cuDNN, Triton and auto side by side, one row for each case; times on the GPU."""
    table = Table('feature map', 'kernel', 'precision', 'pass')
    for heading in (
        'cuDNN', 'cuDNN, channels last', 'Triton', 'auto', 'auto, channels last', 'times faster',
        'than the better cuDNN',
    ):  # fmt: skip
        table.add_column(heading, justify='right')

    def key(row):
        return row['shape'], row['kernel'], row['precision'], row['direction']

    for (shape, kernel, precision, direction), group in itertools.groupby(rows, key):
        ms = {(row['implementation'], row['layout']): row['gpu_ms'] or row['ms'] for row in group}
        native = ms['native', 'planar'], ms['native', 'channels_last']
        auto = ms['auto', 'planar'], ms['auto', 'channels_last']
        table.add_row(
            _times(shape), _times(kernel), precision, direction.replace('_', ' + '),
            *map(_number, (*native, ms['triton', 'planar'], *auto)),
            f'{native[0] / auto[0]:.1f}', f'{min(native) / min(auto):.1f}',
        )  # fmt: skip
    return table


def network_table(rows: list[dict]) -> Table:
    """Put the networks of a case side by side with ConvNeXt."""
    table = Table('mode', 'batch', 'size', 'network')
    for heading in (
        'ms on the GPU', 'ratio to ConvNeXt', 'ms as called', 'ratio', 'peak memory, MB'
    ):  # fmt: skip
        table.add_column(heading, justify='right')
    peers = dict(tiny='small', small='base', base='base')
    found = {(r['mode'], r['batch'], r['size'], r['network'], r['arch']): r for r in rows}
    for row in rows:
        case = row['mode'], row['batch'], row['size']
        name = NAMES[row['network']].format(ARCHS.get(row['arch'], row['arch']))
        peer = found.get((*case, 'convnext', peers.get(row['arch'])))
        ratios = []
        for kind in ('gpu_ms', 'ms'):
            known = row['network'] != 'convnext' and peer and row[kind] and peer[kind]
            ratios.append(f'{row[kind] / peer[kind]:.2f}' if known else '-')
        table.add_row(
            row['mode'], str(row['batch']), str(row['size']), name, _number(row['gpu_ms']),
            ratios[0], _number(row['ms']), ratios[1], _number(row['peak_mb'], 5),
        )  # fmt: skip
    return table


def block_table(rows: list[dict]) -> Table:
    """Show the fastest block sizes of each case."""
    table = Table('pass', 'feature map', 'kernel', 'fastest blocks')
    for heading in ('ms', 'slowest, ms'):
        table.add_column(heading, justify='right')

    def key(row):
        return row['direction'], row['shape'], row['kernel']

    for (direction, shape, kernel), group in itertools.groupby(rows, key):
        timed = sorted((row for row in group if 'ms' in row), key=lambda row: row['ms'])
        if timed:
            table.add_row(
                direction.replace('_', ' '), _times(shape), _times(kernel),
                ', '.join(map(str, timed[0]['blocks'])), _number(timed[0]['ms']),
                _number(timed[-1]['ms']),
            )  # fmt: skip
    return table


def sparse_table(rows: list[dict]) -> Table:
    """Show the time of 2:4 sparse linear layers next to dense ones."""
    table = Table('rows', 'layer')
    for heading in ('dense, ms as called', '2:4', 'dense, ms on the GPU', '2:4'):
        table.add_column(heading, justify='right')
    for row in rows:
        times = (
            row.get(f'{name}_{kind}') for kind in ('ms', 'gpu_ms') for name in ('dense', 'sparse')
        )
        table.add_row(str(row['rows']), f'{row["into"]} -> {row["out"]}', *map(_number, times))
    return table


def conversions_table(rows: list[dict]) -> Table:
    """Put the conversions by Triton and by PyTorch side by side."""
    table = Table('feature map', 'from', 'to', 'equal')
    for heading in ("PyTorch's copy, ms", 'Triton', 'times faster'):
        table.add_column(heading, justify='right')
    for row in rows:
        source, target = (row[key].removeprefix('torch.') for key in ('source', 'target'))
        table.add_row(
            _times(row['shape']), source, f'{target}, {row["into"].replace("_", " ")}',
            'yes' if row['equal'] else 'no', _number(row['native']), _number(row['triton']),
            f'{row["native"] / row["triton"]:.1f}',
        )  # fmt: skip
    return table


def norms_table(rows: list[dict]) -> Table:
    """Put the sum of batch norms by Triton and by PyTorch side by side."""
    table = Table('feature map')
    for heading in (
        'PyTorch, ms on the GPU', 'Triton', 'times faster', 'PyTorch, ms as called', 'Triton',
        'largest error',
    ):  # fmt: skip
        table.add_column(heading, justify='right')
    for row in rows:
        table.add_row(
            _times(row['shape']), _number(row['native']), _number(row['fused']),
            f'{row["native"] / row["fused"]:.1f}', _number(row['native_called']),
            _number(row['fused_called']), _number(row['error'], 2),
        )  # fmt: skip
    return table


TABLES = dict(
    correctness=correctness_table,
    operator=operator_table,
    conversions=conversions_table,
    norms=norms_table,
    networks=network_table,
    blocks=block_table,
    sparse=sparse_table,
)


@guarded
def main() -> None:
    """Write the tables into the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('results', type=Path, metavar='JSON', help='file of tools/benchmark/gpu.py')
    parser.add_argument('--page', type=Path, default=Path('docs/performance.md'), help='page')
    args = parser.parse_args()
    sections = json.loads(args.results.read_text())['sections']
    page, console = args.page.read_text(), Console(width=160)
    for name, build in TABLES.items():
        if sections.get(name):
            table = build(sections[name])
            page = insert_table(page, f'gpu {name}', table)
            console.print(table)
    args.page.write_text(page)
    console.print(f'Updated {args.page}')


if __name__ == '__main__':
    main()
