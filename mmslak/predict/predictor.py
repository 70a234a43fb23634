"""Predictions of a trained model for images, with the data samples of its toolbox."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image, ImageOps
from torch import nn

from ..analysis.drawing import (
    MIN_SCORE,
    draw_classification,
    draw_detection,
    draw_segmentation,
    instances_of,
)
from ..checkpoints import dataset_meta, load_weights, read_checkpoint
from ..cli.config import innermost_dataset, is_config, load_config
from ..models import SLaK, build_model
from ..pretrained import load_model
from ..validation.images import BadImageError, image_fault, set_pixel_limit

#: The model of the package that is used if none is named.
DEFAULT_MODEL = 'slak_nano_camvid'
TASKS = dict(mmseg='segmentation', mmdet='detection', mmpretrain='classification')


class Predictor:
    """Predict with a segmentor, detector or classifier.

    ``Predictor()(image)`` uses the model of the package; ``Predictor(CONFIG, CHECKPOINT)(image)``
    uses a trained one.

    Args:
        config (str, Path or Config, optional): Config of the model, as in ``tools/test.py``, or a
            file or name that ``tools/deploy/export.py`` made, which contains its config. Default:
            the model ``slak_nano_camvid`` of the package.
        checkpoint (str or Path, optional): Checkpoint of the config.
        device (str, optional): Device, such as ``cuda:0``. Default: a GPU if there is one.
        options (dict, optional): Values by dotted key, as from ``--cfg-options``.
        half (bool): Compute in 16 bits where autocast does: float16 on GPUs, bfloat16 on CPUs.
        merged (bool): Merge the branches of SLaK's blocks first, which makes it faster.
        tile (int, optional): Side in pixels of the tiles into which larger images are divided.
            Only for segmentation. Default: images are not divided.
        overlap (int, optional): Pixels that neighbouring tiles share. Default: a quarter of a tile.

    Attributes:
        model (nn.Module): In evaluation mode.
        task (str): ``segmentation``, ``detection`` or ``classification``.
        meta (dict): ``classes`` and, if known, ``palette``.

    Raises:
        FileNotFoundError: If the config or the checkpoint does not exist.
        CheckpointError: If the checkpoint does not fit the config.
        ValueError: For a config without one of the three tasks or without class names, and for
            options that do not fit the task.
    """

    def __init__(
        self,
        config: str | Path | Config | None = None,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        options: dict | None = None,
        half: bool = False,
        merged: bool = False,
        tile: int | None = None,
        overlap: int | None = None,
    ):
        device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        self.device, self.half = torch.device(device), half
        if checkpoint is None:
            self.model, cfg, self.meta = _load_exported(config, options)
        else:
            self.model, cfg, self.meta = _load_trained(config, checkpoint, options)
        self.task = TASKS[cfg.default_scope]
        self.tile, self.overlap = _check_tiles(self.task, tile, overlap)
        set_pixel_limit(cfg)
        init_default_scope(cfg.default_scope)
        load, *rest = _transforms(cfg)
        self._load, self._rest = Compose([load]), Compose(rest)
        if merged:
            _merge(self.model)
        self.model.to(self.device).eval()

    def __call__(self, images, batch_size: int = 1):
        """Predict for one image or several.

        Args:
            images: A path, an array of shape (H, W, 3) in BGR as of OpenCV, a PIL image, or a list
                of these.
            batch_size (int): Number of images that are computed at once.

        Returns:
            The data sample of the toolbox (``SegDataSample``, ``DetDataSample`` or
            ``DataSample``), or a list of them for a list of images.

        Raises:
            BadImageError: If an image cannot be read or has too many pixels.
        """
        several = isinstance(images, (list, tuple))
        found = list(self.predict(images if several else [images], batch_size))
        return found if several else found[0]

    def predict(
        self,
        images,
        batch_size: int = 1,
        on_tile: Callable[[int, int], None] = lambda done, count: None,
    ) -> Iterator:
        """Yield the data sample of each image, in their order.

        Args:
            images: An iterable of what ``__call__`` takes.
            batch_size (int): Number of images or tiles that are computed at once.
            on_tile (Callable): Called with the number of finished tiles of an image and their
                number.

        Raises:
            BadImageError: As for ``__call__``.
        """
        batch: list[dict] = []
        for i, image in enumerate(images):
            loaded = self._loaded(image, i)
            if self.tile and max(loaded['img'].shape[:2]) > self.tile:
                yield from self._run(batch)
                batch = []
                yield self._run_tiles(loaded, batch_size, on_tile)
                continue
            data = self._rest(loaded)
            # MMSegmentation needs images of one size in a batch.
            if batch and data['inputs'].shape != batch[0]['inputs'].shape:
                yield from self._run(batch)
                batch = []
            batch.append(data)
            if len(batch) == batch_size:
                yield from self._run(batch)
                batch = []
        yield from self._run(batch)

    def draw(self, image, sample, min_score: float = MIN_SCORE) -> Image.Image:
        """Draw a prediction.

        Args:
            image: The image, as in ``__call__``.
            sample: Its data sample.
            min_score (float): Objects with a lower score are not drawn.

        Returns:
            Image: Overlay and legend, boxes and masks, or the five best classes.
        """
        pixels = np.ascontiguousarray(as_array(image)[..., ::-1])
        if self.task == 'segmentation':
            labels = sample.pred_sem_seg.data[0].cpu().numpy()
            return draw_segmentation(pixels, labels, self.meta)
        if self.task == 'classification':
            return draw_classification(pixels, sample.pred_score.cpu().numpy(), self.meta)
        return draw_detection(pixels, instances_of(sample), self.meta, min_score)

    def network_input(self, image) -> tuple[torch.Tensor, tuple[int, int]]:
        """Return an image as the network receives it, and its size in it.

        Args:
            image: As in ``__call__``. It is not divided into tiles.

        Returns:
            tuple[Tensor, tuple[int, int]]: Normalised image of shape (1, C, H, W), and the height
            and width without padding at the bottom and on the right.

        Raises:
            BadImageError: As for ``__call__``.
        """
        data = self._rest(self._loaded(image, 0))
        size = data['data_samples'].img_shape[:2]
        return self.model.data_preprocessor(pseudo_collate([data]), False)['inputs'], tuple(size)

    def show(self, image, sample, min_score: float = MIN_SCORE) -> None:
        """Draw a prediction and show it in a window."""
        self.draw(image, sample, min_score).show()

    # -- inside ----------------------------------------------------------------------------

    def _loaded(self, image, index: int) -> dict:
        """Return an image as the pipeline's first transform does."""
        if isinstance(image, (str, Path)):
            if fault := image_fault(image):
                raise BadImageError(f'{image}: {fault}')
            loaded = self._load(dict(img_path=str(image), img_id=index))
            if loaded is None or loaded.get('img') is None:
                raise BadImageError(f'{image} cannot be decoded')
            return loaded
        return _results(as_array(image), index)

    def _run(self, batch: list[dict]) -> list:
        if not batch:
            return []
        autocast = contextlib.nullcontext()
        if self.half:
            dtype = torch.bfloat16 if self.device.type == 'cpu' else torch.float16
            autocast = torch.autocast(self.device.type, dtype)
        with torch.no_grad(), autocast:
            return self.model.test_step(pseudo_collate(batch))

    def _run_tiles(self, loaded: dict, batch_size: int, on_tile: Callable) -> object:
        """Predict tiles of one size, and put the middles of their label maps together."""
        image = loaded['img']
        rows, columns = (spans(size, self.tile, self.overlap) for size in image.shape[:2])
        tiles = [(row, column) for row in rows for column in columns]
        labels, sample = None, None
        for first in range(0, len(tiles), batch_size):
            part = tiles[first : first + batch_size]
            crops = [
                image[top : top + self.tile, left : left + self.tile]
                for (top, _, _), (left, _, _) in part
            ]
            # The shapes of tiles at the border of a small side are the same, too.
            batch = [self._rest(_results(np.ascontiguousarray(crop), 0)) for crop in crops]
            for sample, ((top, y1, y2), (left, x1, x2)) in zip(self._run(batch), part, strict=True):
                found = sample.pred_sem_seg.data[0]
                if labels is None:
                    kind = torch.uint8 if len(self.meta['classes']) <= 256 else torch.int16
                    labels = torch.empty(image.shape[:2], dtype=kind)
                labels[y1:y2, x1:x2] = found[y1 - top : y2 - top, x1 - left : x2 - left]
            on_tile(first + len(part), len(tiles))
        whole = type(sample)(metainfo=dict(img_path=loaded.get('img_path'), ori_shape=labels.shape))
        whole.pred_sem_seg = type(sample.pred_sem_seg)(data=labels[None])
        return whole


def spans(size: int, tile: int, overlap: int) -> list[tuple[int, int, int]]:
    """Divide a side of an image into tiles, all of the same length.

    Args:
        size (int): Length of the side in pixels.
        tile (int): Length of a tile.
        overlap (int): Least number of pixels that neighbouring tiles share.

    Returns:
        list[tuple[int, int, int]]: First pixel of each tile, and the first and the end of the
        pixels for which its prediction is used. They meet in the middle of the overlaps.
    """
    last = max(0, size - tile)
    starts = [*range(0, last, tile - overlap), last]
    ends = [(start + tile + after) // 2 for start, after in itertools.pairwise(starts)]
    return list(zip(starts, [0, *ends], [*ends, size], strict=True))


def _load_trained(config, checkpoint, options) -> tuple[nn.Module, Config, dict]:
    cfg = config if isinstance(config, Config) else load_config(config, options)
    if cfg.get('default_scope') not in TASKS:
        raise ValueError(
            f'default_scope of the config must be one of {", ".join(TASKS)}, '
            f'got {cfg.get("default_scope")!r}'
        )
    stored = read_checkpoint(checkpoint)
    meta = dataset_meta(cfg, stored)
    init_default_scope(cfg.default_scope)
    model = build_model(cfg)
    load_weights(model, stored, str(checkpoint))
    meta = meta or _classes_of_dataset(cfg)
    model.cfg, model.dataset_meta = cfg, meta
    return model, cfg, meta


def _load_exported(config, options) -> tuple[nn.Module, Config, dict]:
    if isinstance(config, Config) or (config is not None and is_config(str(config))):
        raise ValueError('a config needs a checkpoint: give CONFIG and CHECKPOINT')
    model = load_model(DEFAULT_MODEL if config is None else config)
    if options:
        model.cfg.merge_from_dict(options)
    return model, model.cfg, model.dataset_meta


def _classes_of_dataset(cfg: Config) -> dict:
    """Return the class names of the dataset's own type, such as those of COCO or ADE20K."""
    dataset = innermost_dataset(cfg, 'test')
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
            kind = registry.get(kind)
    meta = dict(getattr(kind, 'METAINFO', None) or {})
    if not meta.get('classes'):
        raise ValueError(
            'the class names are unknown: neither the checkpoint nor the config has them; add '
            'metainfo=dict(classes=[...]) to test_dataloader.dataset'
        )
    return {key: meta[key] for key in ('classes', 'palette') if key in meta}


def _transforms(cfg: Config) -> list[dict]:
    """Return the transforms of the test pipeline that do not read annotations."""
    pipeline = innermost_dataset(cfg, 'test').get('pipeline') or cfg.get('test_pipeline')
    if not pipeline:
        raise ValueError('the config must have test_dataloader.dataset.pipeline or test_pipeline')
    pipeline = [dict(step) for step in pipeline if 'Annotations' not in str(step['type'])]
    if 'LoadImage' not in str(pipeline[0]['type']):
        raise ValueError(
            f'the test pipeline must begin with LoadImageFromFile, got {pipeline[0]["type"]!r}'
        )
    return pipeline


def _check_tiles(task: str, tile: int | None, overlap: int | None) -> tuple[int | None, int]:
    if tile is None:
        if overlap is not None:
            raise ValueError('an overlap needs the side of the tiles: give --tile, too')
        return None, 0
    if task != 'segmentation':
        raise ValueError(f'--tile divides images for segmentation only, this model is for {task}')
    overlap = tile // 4 if overlap is None else overlap
    if tile < 1 or not 0 <= overlap < tile:
        raise ValueError(
            f'--tile must be positive and --overlap at least 0 and smaller than it, got {tile} '
            f'and {overlap}'
        )
    return tile, overlap


def _merge(model: nn.Module) -> None:
    backbones = [module for module in model.modules() if isinstance(module, SLaK)]
    if not backbones:
        raise ValueError(
            '--merged merges the blocks of a mmslak.SLaK, which this model does not have'
        )
    for backbone in backbones:
        backbone.eval().switch_to_deploy()


def as_array(image) -> np.ndarray:
    """Return an image as an array of shape (H, W, 3) in BGR, upright by its EXIF orientation.

    Args:
        image: A path, an array or a PIL image, as for :class:`Predictor`.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(image, (str, Path)):
        with Image.open(image) as opened:
            image = ImageOps.exif_transpose(opened).convert('RGB')
    if isinstance(image, Image.Image):
        return np.ascontiguousarray(np.asarray(image.convert('RGB'))[..., ::-1])
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(
            'an image must be a path, a PIL image, or an array of uint8 of shape (H, W, 3) in BGR, '
            f'got {array.dtype} of shape {array.shape}'
        )
    return array


def _results(image: np.ndarray, index: int) -> dict:
    """Return what a pipeline's first transform returns, for an image in memory."""
    shape = image.shape[:2]
    return dict(img=image, img_shape=shape, ori_shape=shape, img_id=index, img_path='')
