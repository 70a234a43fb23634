"""Write the tables and figures of docs/camvid.md and docs/sparsity.md from docs/camvid.

    python tools/analysis/camvid_report.py

docs/camvid has published.json (numbers of publications), a file of
tools/analysis/camvid_result.py for each network, scores.json and parameters.json of
tools/analysis/camvid_study.py, and ratios.json of tools/analysis/erf.py as erf_ratios.json. A table
replaces what stands between its two comments in the page. docs/sparsity.md has the tables of
structures.json, which tools/analysis/camvid_study.py --structures writes.
"""

import argparse
import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from mmslak.analysis.erf import THRESHOLDS
from mmslak.analysis.pages import insert_table
from mmslak.cli.kernel_grid import (
    CAMVID,
    CAMVID_PEER,
    difference_table,
    draw,
    score_table,
    summary,
)
from mmslak.cli.structure_grid import RESULTS, structure_tables
from mmslak.cli.study import mean_and_spread
from mmslak.console import guarded

#: Name of a result file without suffix, and of its network in tables.
NETWORKS = {
    'upernet_slak_nano_gpu_camvid': 'UperNet + SLaK-nano (ours)',
    'upernet_slak_micro_camvid': 'UperNet + SLaK-micro (ours)',
}
#: The same for earlier parts of the trainings, which are only in the figure of the curves.
PARTS = {
    'upernet_slak_nano_camvid': 'SLaK-nano, part 1',
    'upernet_slak_nano_finetune_camvid': 'SLaK-nano, part 2',
    'upernet_slak_nano_colour_camvid': 'SLaK-nano, part 3',
    'nano_part4': 'SLaK-nano, part 4',
    'upernet_slak_nano_final_camvid': 'SLaK-nano, part 5',
}
SOURCES = {
    'tiramisu': '[Tiramisu](https://arxiv.org/abs/1611.09326), table 3',
    'enet': '[ENet](https://arxiv.org/abs/1606.02147), as quoted in '
    '[CGNet](https://arxiv.org/abs/1811.08201), table 12',
}


def read_results(folder: Path, titles: dict[str, str]) -> dict[str, dict]:
    """Read the results that are there, by their titles."""
    files = {title: folder / f'{name}.json' for name, title in titles.items()}
    return {title: json.loads(file.read_text()) for title, file in files.items() if file.is_file()}


def comparison_table(published: list[dict], results: dict[str, dict]) -> Table:
    """Make the table of our networks among published ones, sorted by mIoU."""
    rows = [
        (
            row['miou'],
            row['name'],
            f'{row["parameters"]:g}',
            '-' if row['accuracy'] is None else f'{row["accuracy"]:.1f}',
            row['pretrained'],
            SOURCES[row['source']],
        )
        for row in published
    ]
    for name, result in results.items():
        dense, sparse = (result['costs'][f'params_{kind}'] / 1e6 for kind in ('dense', 'sparse'))
        test = result['test']
        rows.append(
            (
                test['mIoU'],
                f'**{name}**',
                f'{sparse:.2f} active of {dense:.2f}',
                f'{test["accuracy"]:.1f}',
                'no',
                'measured here',
            )
        )
    table = Table('network')
    for head in ('parameters, M', 'mIoU, %', 'global accuracy, %'):
        table.add_column(head, justify='right')
    table.add_column('pre-training')
    table.add_column('source')
    for miou, name, parameters, accuracy, pretrained, source in sorted(rows):
        table.add_row(name, parameters, f'{miou:.1f}', accuracy, pretrained, source)
    return table


def class_table(results: dict[str, dict]) -> Table:
    """Make the table of the IoU of each class."""
    table = Table('class')
    for name in results:
        table.add_column(name, justify='right')
    columns = [result['test']['classes'] for result in results.values()]
    for label in columns[0]:
        table.add_row(label, *(f'{column[label]:.1f}' for column in columns))
    return table


def peer_table(scores: dict[str, dict], parameters: dict[str, float]) -> Table:
    """Make the table of MMPretrain's ConvNeXt and of the same network in this package."""
    table = Table('network')
    table.add_column('active parameters, M', justify='right')
    table.add_column('mIoU, %', justify='right')
    for title, name in (
        ("MMPretrain's ConvNeXt", CAMVID_PEER),
        ('SLaK, naive 7 x 7, dense', 'camvid-7-naive-dense'),
        ('SLaK, decomposed 51 x 51, sparse and wide', 'camvid-51-decomposed-sparse'),
    ):
        table.add_row(title, f'{parameters[name]:.3f}', summary(scores.get(name, {})))
    return table


def ratio_table(ratios: dict[str, dict]) -> Table:
    """Make the table of the high-contribution area ratios that ``tools/analysis/erf.py`` wrote."""
    table = Table('network')
    for threshold in THRESHOLDS:
        table.add_column(f't = {threshold:.0%}', justify='right')
    for name, by_scale in ratios.items():
        table.add_row(name, *(f'{ratio:.1%}' for ratio in by_scale['raw']))
    return table


def draw_curves(results: dict[str, dict], path: Path) -> None:
    """Draw the training loss and the validation score of our networks."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout='constrained')
    for name, result in results.items():
        left.plot(*zip(*result['loss'], strict=True), linewidth=1)
        label = name.removesuffix(' (ours)').replace('UperNet + ', '')
        right.plot(*zip(*result['validation'], strict=True), marker='o', markersize=3, label=label)
    left.set(xlabel='iteration', ylabel='training loss')
    right.set(xlabel='iteration', ylabel='validation mIoU, %')
    figure.legend(loc='outside lower center', ncols=2)
    for panel in (left, right):
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def update_page(path: Path, tables: dict[str, Table], console: Console) -> None:
    """Print tables and write them into a page."""
    page = path.read_text()
    for name, table in tables.items():
        page = insert_table(page, name, table)
        console.print(table)
    path.write_text(page)


@guarded
def main() -> None:
    """Write the tables and figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--page', type=Path, default=Path('docs/camvid.md'), help='page to update')
    parser.add_argument(
        '--sparsity-page',
        type=Path,
        default=Path('docs/sparsity.md'),
        help='page of the structures to update',
    )
    parser.add_argument(
        '--results', type=Path, default=Path('docs/camvid'), help='directory of the results'
    )
    args = parser.parse_args()
    matplotlib.use('Agg')
    published = json.loads((args.results / 'published.json').read_text())
    results = read_results(args.results, NETWORKS)
    tables = {'comparison': comparison_table(published, results)}
    if results:
        tables['classes'] = class_table(results)
        parts = read_results(args.results, PARTS)
        draw_curves({**parts, **results}, args.results / 'curves.png')
    if (args.results / 'scores.json').is_file():
        scores = json.loads((args.results / 'scores.json').read_text())
        parameters = json.loads((args.results / 'parameters.json').read_text())
        tables['study'] = score_table(scores, CAMVID, 'mIoU, %')
        tables['differences'] = difference_table(scores, CAMVID)
        tables['peer'] = peer_table(scores, parameters)
        peer = scores.get(CAMVID_PEER)
        lines = {"MMPretrain's ConvNeXt": mean_and_spread(peer.values())[0]} if peer else {}
        draw(scores, CAMVID, args.results / 'kernel_study.png', 'SLaK-nano on CamVid', lines)
    if (args.results / 'erf_ratios.json').is_file():
        ratios = json.loads((args.results / 'erf_ratios.json').read_text())
        tables['erf'] = ratio_table(ratios)
    console = Console(width=130)
    update_page(args.page, tables, console)
    if (args.results / RESULTS).is_file():
        structures = structure_tables(json.loads((args.results / RESULTS).read_text()))
        update_page(args.sparsity_page, structures, console)
    console.print(f'Updated {args.page}, figures in {args.results}')


if __name__ == '__main__':
    main()
