"""The demonstration of detection: make sample data, train both detectors, show what they learnt.

python tools/demo_det.py
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image, ImageDraw, ImageFont
from pycocotools.coco import COCO
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mmslak.analysis import picture_sheet
from mmslak.cli.run import UNTRAINED, run
from mmslak.console import guarded
from mmslak.sample_data import write_sample_data

CASCADE = 'configs/sample/cascade_mask_rcnn_slak_nano_coco.py'
FASTER = 'configs/sample/faster_rcnn_slak_nano_voc.py'
#: What is reported: name in the table, the config, its data, key of the score.
SCORES = (
    ('Cascade Mask R-CNN, box AP', CASCADE, 'coco/bbox_mAP'),
    ('Cascade Mask R-CNN, box AP50', CASCADE, 'coco/bbox_mAP_50'),
    ('Cascade Mask R-CNN, mask AP', CASCADE, 'coco/segm_mAP'),
    ('Cascade Mask R-CNN, mask AP50', CASCADE, 'coco/segm_mAP_50'),
    ('Faster R-CNN, VOC mAP (11 points)', FASTER, 'pascal_voc/mAP'),
    ('Faster R-CNN, VOC mAP (area)', FASTER, 'pascal_voc_area/mAP'),
)
PICTURES = 8
#: Detections below this score are scored, but not drawn.
MIN_SCORE = 0.5
_SCALE = 3


def draw_objects(image: Image.Image, objects: list[dict], coco: COCO, colours: dict) -> Image.Image:
    """Draw objects over an image, enlarged so that the names can be read.

    Args:
        image (Image): The picture.
        objects (list[dict]): In COCO's form: ``category_id``, ``bbox``, ``segmentation`` and,
            for predictions, ``score``.
        coco (COCO): The annotations, which know the sizes of the images.
        colours (dict): (R, G, B) of each category.
    """
    size = (image.width * _SCALE, image.height * _SCALE)
    canvas = image.convert('RGB').resize(size, Image.Resampling.LANCZOS)
    for item in objects:
        mask = Image.fromarray(coco.annToMask(item) * 80).resize(size, Image.Resampling.BILINEAR)
        canvas.paste(Image.new('RGB', size, colours[item['category_id']]), mask=mask)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=22)
    for item in objects:
        x, y, width, height = (value * _SCALE for value in item['bbox'])
        colour = colours[item['category_id']]
        draw.rectangle((x, y, x + width, y + height), outline=colour, width=4)
        if 'score' in item:
            text = f'{item["score"]:.2f}'
            left, top, right, bottom = draw.textbbox((x + 5, y + 3), text, font=font)
            draw.rectangle((left - 5, top - 4, right + 4, bottom + 4), fill=colour)
            light = np.dot(colour, (0.299, 0.587, 0.114)) > 140
            draw.text((x + 5, y + 3), text, fill='black' if light else 'white', font=font)
    return canvas


def draw_sheet(dataset: Path, results: Path, metainfo: dict, path: Path) -> None:
    """Draw image, truth and prediction of eight validation images."""
    truth = COCO(str(dataset / 'annotations/instances_val2017.json'))
    found = truth.loadRes(str(results))
    colours = dict(zip(sorted(truth.cats), map(tuple, metainfo['palette']), strict=True))
    rows = []
    # Evenly over the set, so that the choice is nobody's.
    names = sorted(truth.imgs)
    for key in names[:: max(1, len(names) // PICTURES)][:PICTURES]:
        picture = Image.open(dataset / 'val2017' / truth.imgs[key]['file_name'])
        predicted = [item for item in found.imgToAnns[key] if item['score'] >= MIN_SCORE]
        # The surest lie on top.
        predicted.sort(key=lambda item: item['score'])
        rows.append(
            [
                picture,
                draw_objects(picture, truth.imgToAnns[key], truth, colours),
                draw_objects(picture, predicted, truth, colours),
            ]
        )
    legend = list(zip(metainfo['classes'], metainfo['palette'], strict=True))
    picture_sheet(rows, ('image', 'truth', 'prediction'), path, cell=224, legend=legend)


@guarded
def main() -> None:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data', default='data/sample', help='folder of the sample data')
    parser.add_argument('--work-dir', default='work_dirs/demo_det', help='folder of the results')
    args = parser.parse_args()
    started = time.monotonic()
    console = Console()
    work_dir = Path(args.work_dir)

    console.rule('1/4  sample data')
    data = write_sample_data(args.data)
    made = 'made' if data.written else 'already there'
    console.print(f'{sum(data.counts["COCO"].values())} scenes {made} in {args.data}')
    dataset = Path(args.data) / 'coco'
    roots = {CASCADE: dataset, FASTER: Path(args.data) / 'VOCdevkit'}

    results = work_dir / 'results.json'
    best, minutes, trained, untrained = {}, {}, {}, {}
    for step, config in enumerate(roots, 2):
        name = Path(config).stem
        common = ['--cfg-options', f'data_root={roots[config]}']
        console.rule(f'{step}/4  {name}')
        begin = time.monotonic()
        folder = str(work_dir / name)
        best[config] = run('train', [config, '--work-dir', folder, *common])['best_ckpt']
        minutes[name] = (time.monotonic() - begin) / 60
        test = ['--work-dir', str(work_dir / 'test'), *common]
        out = ['--out', str(results)] if config == CASCADE else []
        trained[config] = run('test', [config, best[config], *out, *test])
        untrained[config] = run('test', [config, UNTRAINED, *test])

    console.rule('4/4  result')
    table = Table('score', box=SIMPLE, title='On the 80 validation scenes, 0 to 1')
    for column in ('untrained', 'trained'):
        table.add_column(column, justify='right')
    scores = {}
    for name, config, key in SCORES:
        scores[name] = dict(untrained=untrained[config][key], trained=trained[config][key])
        table.add_row(name, *(f'{score:.3f}' for score in scores[name].values()))
    console.print(table)
    sheet = work_dir / 'sheet.png'
    draw_sheet(dataset, results, Config.fromfile(CASCADE).metainfo, sheet)
    (work_dir / 'scores.json').write_text(
        json.dumps(dict(scores=scores, training_minutes=minutes), indent=2) + '\n'
    )
    console.print(f'Image, truth and prediction of {PICTURES} scenes: {sheet}')
    for config in roots:
        console.print(f'Checkpoint: {best[config]}')
    training = ' and '.join(f'{value:.1f}' for value in minutes.values())
    console.print(f'Training took {training} minutes, everything ', end='')
    console.print(f'{(time.monotonic() - started) / 60:.1f} minutes.')


if __name__ == '__main__':
    main()
