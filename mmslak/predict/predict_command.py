"""The command ``mmslak predict``."""

import argparse
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.config import DictAction
from PIL import Image
from rich.progress import Progress

from ..analysis.drawing import MIN_SCORE
from ..checkpoints import SAFETENSORS, pretrained_names
from ..cli.config import is_config
from ..console import guarded, progress_bar
from .inputs import Source, Video, VideoWriter, check_sources, find_sources
from .predictor import DEFAULT_MODEL, Predictor
from .result_files import FORMATS, results_writer


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        description='Predict for images and videos, and write pictures and results. With CONFIG '
        'and CHECKPOINT a trained model is used, with MODEL one that tools/deploy/export.py '
        f'wrote, and otherwise the model {DEFAULT_MODEL} of the package.',
        usage='%(prog)s [options] [CONFIG CHECKPOINT | MODEL] INPUT [INPUT ...]',
    )
    found.add_argument(
        'arguments', nargs='+', metavar='INPUT',
        help='images, videos, directories of them, and patterns such as "photos/*.jpg"',
    )  # fmt: skip
    found.add_argument(
        '--out', type=Path, default=Path('predictions'), metavar='D',
        help='directory for the results, new or empty (default: predictions)',
    )  # fmt: skip
    found.add_argument('--no-pictures', action='store_true', help='write only the results')
    found.add_argument(
        '--format', choices=FORMATS, default='coco', help='format of boxes (default: coco)'
    )
    found.add_argument(
        '--score', type=float, default=MIN_SCORE, metavar='S',
        help='least score of the objects in pictures and in VOC files (default: %(default)s)',
    )  # fmt: skip
    found.add_argument(
        '--tile', type=int, metavar='N',
        help='segmentation: divide images into tiles of N x N pixels, so that images of any size '
        'fit into memory',
    )  # fmt: skip
    found.add_argument(
        '--overlap', type=int, metavar='N',
        help='pixels that neighbouring tiles share (default: a quarter of a tile)',
    )  # fmt: skip
    found.add_argument('--batch-size', type=int, default=1, metavar='N', help='images at once')
    found.add_argument('--half', action='store_true', help='compute in 16 bits')
    found.add_argument(
        '--merged', action='store_true', help="merge the branches of SLaK's blocks, for speed"
    )
    found.add_argument('--device', help='such as cuda:0 (default: a GPU if there is one)')
    found.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override settings of the config',
    )  # fmt: skip
    return found


@guarded
def main() -> None:
    """Predict, and write the results."""
    args = parser().parse_args()
    model, inputs = split_arguments(args.arguments)
    if args.batch_size < 1:
        raise ValueError(f'--batch-size must be at least 1, got {args.batch_size}')
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise FileExistsError(
            f'--out {args.out} already exists; give another directory or remove it'
        )
    sources = find_sources(inputs)
    check_sources(sources)
    predictor = Predictor(
        *model, device=args.device, options=args.cfg_options, half=args.half, merged=args.merged,
        tile=args.tile, overlap=args.overlap,
    )  # fmt: skip
    begin = time.perf_counter()
    with progress_bar() as bar:
        lines, count = _predict_all(predictor, sources, args, bar)
    seconds = time.perf_counter() - begin
    unit = 'image' if count == 1 else 'images'
    print(f'{count} {unit} in {seconds:.1f} s, {count / seconds:.2g} images per second')
    print('\n'.join(lines))


def model_arguments(first: str) -> int:
    """Return how many arguments name a model if this is the first of them.

    Args:
        first (str): An argument.

    Returns:
        int: 2 for a config, which a checkpoint follows, 1 for an exported model, otherwise 0.
    """
    if is_config(first):
        return 2
    return 1 if first in pretrained_names() or first.endswith(SAFETENSORS) else 0


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Separate what names the model from the inputs.

    Args:
        arguments (list[str]): The positional arguments.

    Returns:
        tuple[list[str], list[str]]: The first arguments of :class:`Predictor`, and the inputs.

    Raises:
        ValueError: If there is no input.
    """
    count = model_arguments(arguments[0])
    if len(arguments) <= count:
        names = ('', 'MODEL', 'CONFIG CHECKPOINT')[count]
        raise ValueError(f'no input: give {names} and then images, videos or directories')
    return arguments[:count], arguments[count:]


def _predict_all(
    predictor: Predictor, sources: list[Source], args: argparse.Namespace, bar: Progress
) -> tuple[list[str], int]:
    """Predict for all sources, and return lines for the user and the number of images."""
    total = sum(Video(source.path).frame_count if source.is_video else 1 for source in sources)
    task = bar.add_task('images', total=total)

    def on_tile(done: int, count: int) -> None:
        bar.update(task, description=f'images (tile {done} of {count})')

    writer = results_writer(predictor.task, args.out, predictor.meta, args.format, args.score)
    pictures = None if args.no_pictures else Pictures(args.out / 'pictures')
    waiting: list[Item] = []

    def images() -> Iterator:
        for item in items(sources):
            waiting.append(item)
            yield item.image

    count = 0
    for sample in predictor.predict(images(), args.batch_size, on_tile):
        item = waiting.pop(0)
        writer.add(item.name, item.file_name, sample)
        if pictures is not None:
            pictures.add(item, predictor.draw(item.image, sample, args.score))
        count += 1
        bar.advance(task)
    lines = [] if pictures is None else [pictures.close()]
    return [*lines, writer.close()], count


class Item(NamedTuple):
    """An image, or a frame of a video."""

    source: Source
    frame: int | None
    image: Path | np.ndarray

    @property
    def name(self) -> str:
        """Path of its results without suffix."""
        name = self.source.name
        return name if self.frame is None else f'{name}/{self.frame:06d}'

    @property
    def file_name(self) -> str:
        """Its file, and the number of the frame."""
        path = self.source.path
        return str(path) if self.frame is None else f'{path}#{self.frame}'


def items(sources: Iterable[Source]) -> Iterator[Item]:
    """Yield the images and the frames of the videos."""
    for source in sources:
        if source.is_video:
            for number, frame in enumerate(Video(source.path)):
                yield Item(source, number, frame)
        else:
            yield Item(source, None, source.path)


class Pictures:
    """Writes a PNG file for each image, and an MP4 file for each video.

    Args:
        folder (Path): Directory of the pictures.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._source, self._video = None, None

    def add(self, item: Item, picture: Image.Image) -> None:
        """Write the picture of an item."""
        if item.frame is None:
            path = self.folder / f'{item.source.name}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            return
        if item.source is not self._source:
            self.close()
            rate = Video(item.source.path).frames_per_second
            self._video = VideoWriter(self.folder / f'{item.source.name}.mp4', rate)
            self._source = item.source
        self._video.add(np.asarray(picture))

    def close(self) -> str:
        """Finish the last video, and return what was written, for the user."""
        if self._video is not None:
            self._video.close()
        return f'pictures: {self.folder}'
