"""Demo of detection: make sample data, train both detectors on it, and show what they learnt.

python tools/demo_det.py
"""

import json
import time
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image, ImageDraw, ImageFont
from pycocotools.coco import COCO
from rich.console import Console

from mmslak.analysis.sheet import picture_sheet
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
from mmslak.sample_data import LAYOUTS

CASCADE = 'configs/sample/cascade_mask_rcnn_slak_nano_coco.py'
FASTER = 'configs/sample/faster_rcnn_slak_nano_voc.py'
#: Rows of the table: name, config, and key of the score.
SCORES = (
    ('Cascade Mask R-CNN, box AP', CASCADE, 'coco/bbox_mAP'),
    ('Cascade Mask R-CNN, box AP50', CASCADE, 'coco/bbox_mAP_50'),
    ('Cascade Mask R-CNN, mask AP', CASCADE, 'coco/segm_mAP'),
    ('Cascade Mask R-CNN, mask AP50', CASCADE, 'coco/segm_mAP_50'),
    ('Faster R-CNN, VOC mAP (11 points)', FASTER, 'pascal_voc/mAP'),
    ('Faster R-CNN, VOC mAP (area)', FASTER, 'pascal_voc_area/mAP'),
)
#: Detections with a lower score count in the AP, but are not drawn.
MIN_SCORE = 0.5
#: Factor by which pictures are enlarged, so that scores can be read.
_SCALE = 3


def draw_objects(image: Image.Image, objects: list[dict], coco: COCO, colours: dict) -> Image.Image:
    """Draw masks, boxes and scores of objects over an enlarged image.

    Args:
        image (Image): The image.
        objects (list[dict]): Objects in COCO format: ``category_id``, ``bbox``, ``segmentation``
            and, for predictions, ``score``.
        coco (COCO): The annotations, which contain the sizes of the images.
        colours (dict): (R, G, B) of each category.

    Returns:
        Image: The enlarged picture.
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
    """Draw image, ground truth and prediction of some validation images."""
    truth = COCO(str(dataset / 'annotations/instances_val2017.json'))
    found = truth.loadRes(str(results))
    colours = dict(zip(sorted(truth.cats), map(tuple, metainfo['palette']), strict=True))
    rows = []
    for key in choose_pictures(sorted(truth.imgs)):
        picture = Image.open(dataset / 'val2017' / truth.imgs[key]['file_name'])
        predicted = [item for item in found.imgToAnns[key] if item['score'] >= MIN_SCORE]
        # The highest score is drawn last, on top.
        predicted.sort(key=lambda item: item['score'])
        rows.append(
            [
                picture,
                draw_objects(picture, truth.imgToAnns[key], truth, colours),
                draw_objects(picture, predicted, truth, colours),
            ]
        )
    legend = list(zip(metainfo['classes'], metainfo['palette'], strict=True))
    picture_sheet(rows, CAPTIONS, path, cell=224, legend=legend)


@guarded
def main() -> None:
    """Run the demo."""
    args = parse_args(__doc__.split('\n')[0], 'work_dirs/demo_det')
    started, console = time.monotonic(), Console()

    console.rule('1/4  sample data')
    make_scenes(args.data, console)
    dataset = args.data / LAYOUTS['COCO']
    roots = {CASCADE: dataset, FASTER: args.data / 'VOCdevkit'}

    results, log_dir = args.work_dir / 'results.json', args.work_dir / 'test'
    best, minutes, trained, untrained = {}, {}, {}, {}
    for step, (config, root) in enumerate(roots.items(), 2):
        name = Path(config).stem
        console.rule(f'{step}/4  {name}')
        begin = time.monotonic()
        best[config] = train(config, root, args.work_dir / name)
        minutes[name] = (time.monotonic() - begin) / 60
        out = results if config == CASCADE else None
        trained[config] = test(config, best[config], root, log_dir, out)
        untrained[config] = test(config, UNTRAINED, root, log_dir)

    console.rule('4/4  result')
    scores = {
        name: dict(untrained=untrained[config][key], trained=trained[config][key])
        for name, config, key in SCORES
    }
    rows = {name: [f'{score:.3f}' for score in pair.values()] for name, pair in scores.items()}
    title = 'On the 80 validation scenes, 0 to 1'
    console.print(number_table(title, 'score', ['untrained', 'trained'], rows))
    sheet = args.work_dir / 'sheet.png'
    draw_sheet(dataset, results, Config.fromfile(CASCADE).metainfo, sheet)
    (args.work_dir / 'scores.json').write_text(
        json.dumps(dict(scores=scores, training_minutes=minutes), indent=2) + '\n'
    )
    print_files(console, sheet, list(best.values()))
    training = ' and '.join(f'{value:.1f}' for value in minutes.values())
    total = (time.monotonic() - started) / 60
    console.print(f'Training took {training} minutes, everything {total:.1f} minutes.')


if __name__ == '__main__':
    main()
