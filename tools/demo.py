"""The demonstration: make sample data, train UperNet + SLaK-nano on it, show what it learnt.

python tools/demo.py
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mmslak.analysis import picture_sheet
from mmslak.analysis.complexity import weight_uses
from mmslak.cli.run import UNTRAINED, run
from mmslak.console import guarded
from mmslak.models import SLaK
from mmslak.sample_data import write_sample_data
from mmslak.sparsity import unpack_masks

CONFIG = 'configs/sample/upernet_slak_nano_ade20k.py'
PICTURES = 8


def commonest_class_miou(dataset: Path, classes: int) -> tuple[int, float]:
    """Score the prediction of the training set's commonest class everywhere.

    Args:
        dataset (Path): Data in ADE20K's layout; 0 is unlabelled, classes count from 1.
        classes (int): Number of classes.

    Returns:
        tuple[int, float]: That class, from 0, and its mIoU in percent on the validation
        set: the IoU of that class, and 0 for every other one that occurs.
    """

    def histogram(split: str) -> np.ndarray:
        counts = np.zeros(classes + 1, np.int64)
        for path in (dataset / 'annotations' / split).glob('*.png'):
            counts += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=classes + 1)
        return counts[1:]

    commonest = int(histogram('training').argmax())
    truth = histogram('validation')
    # Predicted everywhere, its union is all that is labelled.
    iou = truth[commonest] / truth.sum()
    return commonest, 100 * float(iou / np.count_nonzero(truth))


def draw_sheet(dataset: Path, predictions: Path, metainfo: dict, path: Path) -> None:
    """Draw image, truth and prediction of eight validation images."""
    palette = [0, 0, 0] + [value for colour in metainfo['palette'] for value in colour]
    rows = []
    images = sorted((dataset / 'images/validation').glob('*.jpg'))
    # Evenly over the set, so that the choice is nobody's.
    for image in images[:: max(1, len(images) // PICTURES)][:PICTURES]:
        truth = Image.open(dataset / 'annotations/validation' / f'{image.stem}.png')
        prediction = Image.open(predictions / f'{image.stem}.png').convert('P')
        for label_map in (truth, prediction):
            label_map.putpalette(palette)
        rows.append([Image.open(image), truth, prediction])
    legend = [
        ('unlabelled', (0, 0, 0)),
        *zip(metainfo['classes'], metainfo['palette'], strict=True),
    ]
    picture_sheet(rows, ('image', 'truth', 'prediction'), path, legend=legend)


def backbone_costs(checkpoint: str, side: int) -> dict[str, tuple[int, int]]:
    """Count the backbone of a sparse checkpoint, dense and sparse.

    Args:
        checkpoint (str): File that training with DynamicSparsityHook wrote.
        side (int): Side of the image in pixels, for the multiply-adds.

    Returns:
        dict: Parameters and multiply-adds, each with and without the weights left out.
    """
    state = torch.load(checkpoint, 'cpu', weights_only=True)
    masks = unpack_masks(state['dynamic_sparsity'])
    with torch.device('meta'):
        backbone = SLaK('nano')
        uses = weight_uses(backbone, lambda: backbone(torch.zeros(1, 3, side, side)))
    sizes = {name: parameter.numel() for name, parameter in backbone.named_parameters()}
    left_out = {
        name: int((~masks[f'backbone.{name}']).sum()) if f'backbone.{name}' in masks else 0
        for name in sizes
    }
    return {
        'parameters': (sum(sizes.values()), sum(sizes.values()) - sum(left_out.values())),
        'multiply-adds': (
            sum(n * sizes[name] for name, n in uses.items()),
            sum(n * (sizes[name] - left_out[name]) for name, n in uses.items()),
        ),
    }


@guarded
def main() -> None:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data', default='data/sample', help='folder of the sample data')
    parser.add_argument('--work-dir', default='work_dirs/demo', help='folder of the results')
    args = parser.parse_args()
    started = time.monotonic()
    console = Console()
    work_dir = Path(args.work_dir)

    console.rule('1/4  sample data')
    data = write_sample_data(args.data)
    made = 'made' if data.written else 'already there'
    console.print(f'{sum(data.counts["ADE20K"].values())} scenes {made} in {args.data}')
    dataset = Path(args.data) / 'ADEChallengeData2016'
    common = ['--cfg-options', f'data_root={dataset}']

    console.rule('2/4  training')
    best = run('train', [CONFIG, '--work-dir', str(work_dir), *common])['best_ckpt']

    console.rule('3/4  testing')
    test = ['--work-dir', str(work_dir / 'test'), *common]
    predictions = work_dir / 'predictions'
    trained = run('test', [CONFIG, best, '--out', str(predictions), *test])
    untrained = run('test', [CONFIG, UNTRAINED, *test])

    console.rule('4/4  result')
    cfg = Config.fromfile(CONFIG)
    commonest, baseline = commonest_class_miou(dataset, len(cfg.metainfo.classes))
    table = Table('model', box=SIMPLE, title='mIoU on the validation scenes, in percent')
    table.add_column('mIoU', justify='right')
    scores = {
        f'always "{cfg.metainfo.classes[commonest]}", the commonest class': baseline,
        'UperNet + SLaK-nano, untrained': untrained['mIoU'],
        'UperNet + SLaK-nano, trained': trained['mIoU'],
    }
    for name, score in scores.items():
        table.add_row(name, f'{score:.2f}')
    console.print(table)
    costs = backbone_costs(best, cfg.crop_size[0])
    table = Table('backbone', box=SIMPLE, title=f'Cost at {cfg.crop_size[0]} x {cfg.crop_size[1]}')
    for column in ('dense', 'sparse, as trained'):
        table.add_column(column, justify='right')
    for name, counts in costs.items():
        table.add_row(name, *(f'{count / 1e6:.3f} M' for count in counts))
    console.print(table)
    sheet = work_dir / 'sheet.png'
    draw_sheet(dataset, predictions, cfg.metainfo, sheet)
    (work_dir / 'scores.json').write_text(
        json.dumps(dict(miou=scores, backbone=costs), indent=2) + '\n'
    )
    console.print(f'Image, truth and prediction of {PICTURES} scenes: {sheet}')
    console.print(f'Checkpoint: {best}')
    console.print(f'The whole demonstration took {(time.monotonic() - started) / 60:.1f} minutes.')


if __name__ == '__main__':
    main()
