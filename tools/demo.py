"""Demo: make sample data, train UperNet + SLaK-nano on it, and show what it learnt.

python tools/demo.py
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from rich.console import Console

from mmslak.analysis.complexity import weight_uses
from mmslak.analysis.sheet import picture_sheet
from mmslak.checkpoints import read_checkpoint
from mmslak.cli.demo import (
    CAPTIONS,
    choose_pictures,
    make_scenes,
    number_table,
    parse_args,
    print_files,
    test,
    train,
)
from mmslak.cli.run import UNTRAINED
from mmslak.console import guarded
from mmslak.models import SLaK
from mmslak.sample_data import LAYOUTS
from mmslak.sparsity import unpack_masks

CONFIG = 'configs/sample/upernet_slak_nano_ade20k.py'


def commonest_class_miou(dataset: Path, classes: int) -> tuple[int, float]:
    """Compute the mIoU of predicting the most frequent class of the training set everywhere.

    Args:
        dataset (Path): Data in the layout of ADE20K: label 0 is unlabelled, classes start at 1.
        classes (int): Number of classes.

    Returns:
        tuple[int, float]: This class, from 0, and the mIoU in percent on the validation set: the
        mean over the IoU of this class and 0 for every other class that occurs.
    """

    def histogram(split: str) -> np.ndarray:
        counts = np.zeros(classes + 1, np.int64)
        for path in (dataset / 'annotations' / split).glob('*.png'):
            counts += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=classes + 1)
        return counts[1:]

    commonest = int(histogram('training').argmax())
    truth = histogram('validation')
    # It is predicted everywhere, so the union is all labelled pixels.
    iou = truth[commonest] / truth.sum()
    return commonest, 100 * float(iou / np.count_nonzero(truth))


def draw_sheet(dataset: Path, predictions: Path, metainfo: dict, path: Path) -> None:
    """Draw image, ground truth and prediction of some validation images."""
    palette = [0, 0, 0] + [value for colour in metainfo['palette'] for value in colour]
    rows = []
    for image in choose_pictures(sorted((dataset / 'images/validation').glob('*.jpg'))):
        truth = Image.open(dataset / 'annotations/validation' / f'{image.stem}.png')
        prediction = Image.open(predictions / f'{image.stem}.png').convert('P')
        for label_map in (truth, prediction):
            label_map.putpalette(palette)
        rows.append([Image.open(image), truth, prediction])
    legend = [
        ('unlabelled', (0, 0, 0)),
        *zip(metainfo['classes'], metainfo['palette'], strict=True),
    ]
    picture_sheet(rows, CAPTIONS, path, legend=legend)


def backbone_costs(checkpoint: str, side: int) -> dict[str, tuple[int, int]]:
    """Count parameters and multiply-adds of the backbone of a sparse checkpoint.

    Args:
        checkpoint (str): Checkpoint of a training with DynamicSparsityHook.
        side (int): Side of the image in pixels.

    Returns:
        dict: Parameters and multiply-adds, each with and without the masked weights.
    """
    state = read_checkpoint(checkpoint)
    masks = unpack_masks(state['dynamic_sparsity'])
    with torch.device('meta'):
        backbone = SLaK('nano')
        uses = weight_uses(backbone, lambda: backbone(torch.zeros(1, 3, side, side)))
    sizes = {name: parameter.numel() for name, parameter in backbone.named_parameters()}
    masked = {
        name: int((~masks[f'backbone.{name}']).sum()) if f'backbone.{name}' in masks else 0
        for name in sizes
    }
    return {
        'parameters': (sum(sizes.values()), sum(sizes.values()) - sum(masked.values())),
        'multiply-adds': (
            sum(n * sizes[name] for name, n in uses.items()),
            sum(n * (sizes[name] - masked[name]) for name, n in uses.items()),
        ),
    }


@guarded
def main() -> None:
    """Run the demo."""
    args = parse_args(__doc__.split('\n')[0], 'work_dirs/demo')
    started, console = time.monotonic(), Console()

    console.rule('1/4  sample data')
    make_scenes(args.data, console)
    dataset = args.data / LAYOUTS['ADE20K']

    console.rule('2/4  training')
    checkpoint = train(CONFIG, dataset, args.work_dir)

    console.rule('3/4  testing')
    predictions, log_dir = args.work_dir / 'predictions', args.work_dir / 'test'
    trained = test(CONFIG, checkpoint, dataset, log_dir, predictions)
    untrained = test(CONFIG, UNTRAINED, dataset, log_dir)

    console.rule('4/4  result')
    cfg = Config.fromfile(CONFIG)
    commonest, baseline = commonest_class_miou(dataset, len(cfg.metainfo.classes))
    scores = {
        f'always "{cfg.metainfo.classes[commonest]}", the commonest class': baseline,
        'UperNet + SLaK-nano, untrained': untrained['mIoU'],
        'UperNet + SLaK-nano, trained': trained['mIoU'],
    }
    rows = {name: [f'{score:.2f}'] for name, score in scores.items()}
    title = 'mIoU on the validation scenes, in percent'
    console.print(number_table(title, 'model', ['mIoU'], rows))
    height, width = cfg.crop_size
    costs = backbone_costs(checkpoint, height)
    rows = {name: [f'{count / 1e6:.3f} M' for count in counts] for name, counts in costs.items()}
    columns = ['dense', 'sparse, as trained']
    console.print(number_table(f'Cost at {height} x {width}', 'backbone', columns, rows))
    sheet = args.work_dir / 'sheet.png'
    draw_sheet(dataset, predictions, cfg.metainfo, sheet)
    (args.work_dir / 'scores.json').write_text(
        json.dumps(dict(miou=scores, backbone=costs), indent=2) + '\n'
    )
    print_files(console, sheet, [checkpoint])
    console.print(f'The whole demonstration took {(time.monotonic() - started) / 60:.1f} minutes.')


if __name__ == '__main__':
    main()
