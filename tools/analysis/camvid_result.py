"""Test a network on CamVid, and keep its scores, costs and curves as a small file, and a picture.

    python tools/analysis/camvid_result.py configs/upernet_slak_nano_camvid.py \\
        work_dirs/upernet_slak_nano_camvid --out docs/camvid/upernet_slak_nano_camvid.json

WORK_DIR is that of the training. The checkpoint with the best validation score is tested on the
233 test images at full resolution. Run this once for each network, after all choices are made.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image
from rich.box import SIMPLE
from rich.table import Table

from mmslak.analysis.complexity import config_costs, config_sparsity
from mmslak.analysis.curves import read_scalars
from mmslak.analysis.sheet import picture_sheet
from mmslak.cli.config import load_config
from mmslak.cli.demo import CAPTIONS, choose_pictures
from mmslak.cli.run import run
from mmslak.console import guarded, print_table

#: Height and width of the images.
SIZE = (360, 480)
#: Values of a curve that are kept.
POINTS = 200


def best_checkpoint(work_dir: Path) -> Path:
    """Return the checkpoint with the best validation score.

    Raises:
        FileNotFoundError: If the directory has none.
    """
    found = sorted(work_dir.glob('best_mIoU_iter_*.pth'), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f'{work_dir} has no best_mIoU_iter_*.pth: train the config first')
    return found[-1]


def class_scores(predictions: Path, cfg: Config) -> dict[str, float]:
    """Compute the IoU of each class in percent from label maps that were written by a test."""
    dataset = cfg.test_dataloader.dataset
    truth = Path(dataset.data_root) / dataset.data_prefix.seg_map_path
    classes = cfg.metainfo.classes
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    for path in sorted(predictions.glob('*.png')):
        label, prediction = (np.asarray(Image.open(file)) for file in (truth / path.name, path))
        labelled = label < len(classes)
        pairs = label[labelled].astype(np.int64) * len(classes) + prediction[labelled]
        confusion += np.bincount(pairs, minlength=confusion.size).reshape(confusion.shape)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return dict(zip(classes, (100 * confusion.diagonal() / union).round(2).tolist(), strict=True))


def draw_sheet(predictions: Path, cfg: Config, path: Path) -> None:
    """Draw image, truth and prediction of eight test images at equal distances."""
    dataset = cfg.test_dataloader.dataset
    root, prefix = Path(dataset.data_root), dataset.data_prefix
    names, colours = cfg.metainfo.classes, cfg.metainfo.palette
    # 255 is the label of unlabelled pixels.
    palette = [value for colour in colours for value in colour] + [0] * (768 - 3 * len(colours))
    rows = []
    for file in choose_pictures(sorted(predictions.glob('*.png'))):
        maps = [
            Image.open(folder / file.name) for folder in (root / prefix.seg_map_path, file.parent)
        ]
        maps = [label_map.convert('P') for label_map in maps]
        for label_map in maps:
            label_map.putpalette(palette)
        rows.append([Image.open(root / prefix.img_path / file.name), *maps])
    legend = [('unlabelled', (0, 0, 0)), *zip(names, colours, strict=True)]
    picture_sheet(rows, CAPTIONS, path, legend=legend)


def thinned(series: list[tuple[int, float]]) -> list[list[float]]:
    """Return at most ``POINTS`` points of a curve, at equal distances."""
    step = -(-len(series) // POINTS)
    return [[iteration, round(value, 4)] for iteration, value in series[::step]]


@guarded
def main() -> None:
    """Test the network, and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', metavar='CONFIG', help='config of the training')
    parser.add_argument('work_dir', type=Path, metavar='WORK_DIR', help='directory of the training')
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    parser.add_argument('--data', default='data/camvid', help='from tools/prepare_camvid.py')
    args = parser.parse_args()
    cfg = load_config(args.config, dict(data_root=args.data))
    checkpoint = best_checkpoint(args.work_dir)
    scalars = read_scalars(args.work_dir)
    with tempfile.TemporaryDirectory() as folder:
        arguments = [args.config, str(checkpoint), '--out', f'{folder}/predictions']
        arguments += ['--work-dir', f'{folder}/test', '--cfg-options', f'data_root={args.data}']
        scores = run('test', arguments)
        classes = class_scores(Path(folder) / 'predictions', cfg)
        draw_sheet(Path(folder) / 'predictions', cfg, args.out.with_suffix('.png'))
    costs = config_costs(cfg, SIZE, config_sparsity(cfg))
    result = dict(
        test=dict(mIoU=scores['mIoU'], accuracy=scores['aAcc'], classes=classes),
        checkpoint=checkpoint.stem,
        iterations=cfg.train_cfg.max_iters,
        costs={name: round(count) for name, count in costs.items()},
        validation=thinned(scalars.validation['mIoU']),
        loss=thinned(scalars.training['loss']),
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result) + '\n')
    table = Table('class', box=SIMPLE, title=f'{checkpoint.name} on the test images')
    table.add_column('IoU, %', justify='right')
    for name, score in classes.items():
        table.add_row(name, f'{score:.2f}')
    print_table(table)
    mean = np.mean(list(classes.values()))
    print(f"mIoU {mean:.2f} % (MMSegmentation's metric: {scores['mIoU']:.2f} %), ", end='')
    print(f'global accuracy {scores["aAcc"]:.2f} %')
    print(f'Written to {args.out}')


if __name__ == '__main__':
    main()
