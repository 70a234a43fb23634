"""Effective receptive fields (ERF): how much each pixel contributes to one output position."""

import copy
import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor, nn

from ..checkpoints import CheckpointError, compare, find_checkpoint, load_backbone, read_checkpoint
from ..models import SLaK, build_model

#: Thresholds t of the high-contribution area ratio in the paper's table 10.
THRESHOLDS = (0.2, 0.3, 0.5, 0.99)
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
#: Colours of pictures show this power of :func:`rescaled_log`.
GAMMA = 0.4
#: Mean and standard deviation of ImageNet in RGB, for configs without a data preprocessor.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def contribution_scores(
    backbone: nn.Module, image: Tensor, point: tuple[int, int] | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Compute how much each pixel contributes to one position of the last feature map.

    The score of a pixel is the gradient, with respect to the pixel, of the features at that
    position, rectified and summed over their channels. The gradient is rectified and summed over
    the channels of the image (paper, section 6.1; Luo et al., 2016; Ding et al., 2022).

    Args:
        backbone (nn.Module): Maps images of shape (1, C, H, W) to a feature map of shape
            (1, D, h, w), or to a sequence of feature maps, of which the last one is used. With
            :class:`PredictedScore` it is a whole segmentor, and the position a pixel.
        image (Tensor): Of shape (1, C, H, W).
        point (tuple[int, int], optional): Position (x, y) in the last feature map, from 0.
            Default: its centre, (w // 2, h // 2).

    Returns:
        tuple[np.ndarray, tuple[int, int]]: Scores of shape (H, W), float64 and not negative; and
        the size (h, w) of the last feature map.

    Raises:
        ValueError: If the backbone returns no feature map, or the point is outside of it.
    """
    image = image.detach().requires_grad_()
    features, (x, y) = _output(backbone, image, point)
    # autograd.grad does not work with the reentrant checkpointing of other backbones.
    features[0, :, y, x].relu().sum().backward()
    return image.grad[0].relu().sum(0).double().cpu().numpy(), tuple(features.shape[-2:])


class PredictedScore(nn.Module):
    """The score of the predicted class at each pixel, for :func:`contribution_scores`.

    It is relative to the mean score of all classes, because a softmax depends only on differences.
    It is therefore never negative. For a segmentor with a single score per pixel, which predicts
    by its sign, it is the absolute value.

    Args:
        segmentor (nn.Module): A segmentor of MMSegmentation. It processes the whole image at once,
            whatever ``test_cfg.mode`` is.
    """

    def __init__(self, segmentor: nn.Module):
        super().__init__()
        self.segmentor = segmentor

    def forward(self, image: Tensor) -> Tensor:
        """Map a normalised image of shape (1, C, H, W) to scores of shape (1, 1, H, W)."""
        shape = tuple(image.shape[-2:])
        scores = self.segmentor.encode_decode(image, [dict(img_shape=shape, ori_shape=shape)])
        if scores.shape[1] == 1:
            return scores.abs()
        return scores.amax(1, keepdim=True) - scores.mean(1, keepdim=True)


def check_backbone(
    backbone: nn.Module, shape: tuple[int, ...], point: tuple[int, int] | None = None
) -> None:
    """Run a blank image of the given shape (1, C, H, W) through a backbone, without gradients.

    Raises:
        ValueError: As :func:`contribution_scores`.
    """
    with torch.no_grad():
        _output(backbone, torch.zeros(shape), point)


def _output(
    backbone: nn.Module, image: Tensor, point: tuple[int, int] | None
) -> tuple[Tensor, tuple[int, int]]:
    """Return the last feature map of an image, and the position (x, y) in it."""
    features = backbone(image)
    if isinstance(features, (list, tuple)):
        features = features[-1]
    if not isinstance(features, Tensor) or features.dim() != 4:
        found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(
            f'the backbone must return a feature map of shape (N, C, H, W), got {found}; change '
            'the options of model.backbone or use another backbone'
        )
    height, width = features.shape[-2:]
    x, y = (width // 2, height // 2) if point is None else point
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(
            f'--point {x} {y} is outside the last feature map: x must be in 0..{width - 1}, '
            f'y in 0..{height - 1}'
        )
    return features, (x, y)


def rescaled_log(scores: np.ndarray) -> np.ndarray:
    """Compute ``log10(1 + scores)`` divided by its maximum, as in the paper's figure 3.

    The result depends on the scale of the gradients, which differs between networks.

    Args:
        scores (np.ndarray): Of shape (H, W), not negative.

    Returns:
        np.ndarray: Of shape (H, W), from 0 to 1; zeros where all scores are zero.
    """
    logs = np.log10(1.0 + scores)
    largest = logs.max()
    return logs / largest if largest > 0 else logs


def area_ratio(
    scores: np.ndarray, threshold: float, centre: tuple[int, int] | None = None
) -> float:
    """Compute the high-contribution area ratio, r in the paper.

    It is the area of the smallest square around the centre that contains more than ``threshold``
    of the sum of all scores, relative to the area of the image (paper, table 10; Ding et al.,
    2022). Squares have odd sides and are cropped at the borders of the image.

    Args:
        scores (np.ndarray): Of shape (H, W), not negative.
        threshold (float): Share of the sum, in [0, 1).
        centre (tuple[int, int], optional): Centre pixel (x, y) of the squares. Default:
            (W // 2, H // 2).

    Returns:
        float: Ratio in (0, 1].

    Raises:
        ValueError: If the threshold is out of range, or all scores are zero.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f'threshold must be a number in [0, 1), got {threshold!r}')
    height, width = scores.shape
    x, y = (width // 2, height // 2) if centre is None else centre
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = scores.cumsum(0, dtype=np.float64).cumsum(1)
    total = sums[-1, -1]
    if not total > 0:
        raise ValueError('no pixel contributes to this output position: all scores are zero')
    for reach in range(max(height, width)):
        top, bottom = max(0, y - reach), min(height, y + reach + 1)
        left, right = max(0, x - reach), min(width, x + reach + 1)
        inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        if inside / total > threshold:
            return (bottom - top) * (right - left) / (height * width)
    return 1.0


def build_backbone(cfg: Config, checkpoint: str | Path | None = None, seed: int = 0) -> nn.Module:
    """Build the backbone of a config of any toolbox, for gradients with respect to its input.

    It is in evaluation mode, its parameters do not require gradients, and it recomputes
    activations if it can (``with_cp``). Backbones that would return a pooled vector or a class
    token return the feature map instead.

    Args:
        cfg (Config): A config with ``model.backbone``.
        checkpoint (str or Path, optional): Weights of the whole model or of the backbone. Default:
            random initialisation, even if the config names a pre-trained file.
        seed (int): Seed of the initialisation.

    Raises:
        ValueError: If the config has no backbone, or the checkpoint does not fit.
        FileNotFoundError: If the checkpoint does not exist.
    """
    settings = backbone_settings(cfg)
    if checkpoint is not None:
        find_checkpoint(checkpoint)
    torch.manual_seed(seed)
    backbone = build_model(cfg, settings, init_weights=True)
    feature_map = {}
    if getattr(backbone, 'gap_before_final_norm', False):
        feature_map['gap_before_final_norm'] = False
    # By default MMPretrain's vision Transformers return the class token.
    if 'featmap' in getattr(backbone, 'OUT_TYPES', ()):
        feature_map['out_type'] = 'featmap'
    if feature_map:
        torch.manual_seed(seed)
        backbone = build_model(cfg, dict(settings, **feature_map), init_weights=True)
    if isinstance(backbone, SLaK) and checkpoint is not None:
        load_backbone(backbone, str(checkpoint))
    elif checkpoint is not None:
        _load(backbone, str(checkpoint))
    for module in backbone.modules():
        if hasattr(module, 'with_cp'):
            module.with_cp = True
    # Not chained, because train() of some backbones returns None.
    backbone.eval()
    return backbone.requires_grad_(False)


def backbone_settings(cfg: Config) -> dict:
    """Return the settings of a config's backbone without pre-trained weights.

    Raises:
        ValueError: If the config has no ``model.backbone``.
    """
    model = cfg.get('model') or {}
    if not model.get('backbone'):
        raise ValueError(f'{cfg.filename or "the config"} has no model.backbone')
    settings = copy.deepcopy(model['backbone'].to_dict())
    settings.pop('pretrained', None)
    init = settings.get('init_cfg')
    if init is not None:
        several = [init] if isinstance(init, dict) else init
        kept = [item for item in several if 'Pretrained' not in str(item.get('type'))]
        settings['init_cfg'] = kept or None
    return settings


def _load(backbone: nn.Module, source: str) -> None:
    """Load a backbone of another package, of which the file must contain every entry."""
    state = read_checkpoint(source)
    for key in ('state_dict', 'model'):
        if isinstance(state.get(key), dict):
            state = state[key]
    prefix = 'backbone.'
    if any(name.startswith(prefix) for name in state):
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    # Files of whole models without a prefix contain the entries of heads as well.
    wanted = backbone.state_dict()
    found = {name: value for name, value in state.items() if name in wanted}
    if differences := compare(found, wanted):
        raise CheckpointError(f'{source} does not fit model.backbone: {differences.first()}')
    backbone.load_state_dict(found, strict=False)


class InputReader:
    """Read images as the model of a config expects them.

    Args:
        cfg (Config): Its data preprocessor determines mean, standard deviation and channel order.
            Without a data preprocessor they are those of ImageNet in RGB.
        size (int): Side in pixels to which images are resized, as in the paper.
    """

    def __init__(self, cfg: Config, size: int):
        found = cfg.get('model', {}).get('data_preprocessor') or cfg.get('data_preprocessor') or {}
        # A preprocessor without a mean does not normalise.
        mean, std = ((0.0,) * 3, (1.0,) * 3) if found else (MEAN, STD)
        self.mean = np.asarray(found.get('mean') or mean, np.float32)
        self.std = np.asarray(found.get('std') or std, np.float32)
        self.rgb = not found or bool(found.get('bgr_to_rgb') or found.get('to_rgb'))
        self.size = size

    @property
    def settings(self) -> dict:
        """Everything besides the file that the tensors depend on."""
        return dict(mean=self.mean.tolist(), std=self.std.tolist(), rgb=self.rgb, size=self.size)

    def __call__(self, path: str | Path) -> Tensor:
        """Read one image as a tensor of shape (1, 3, size, size)."""
        with Image.open(path) as image:
            image = image.convert('RGB').resize((self.size, self.size), Image.Resampling.BICUBIC)
        pixels = np.asarray(image, np.float32)
        if not self.rgb:
            pixels = pixels[..., ::-1]
        pixels = (pixels - self.mean) / self.std
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def sample_images(folder: str | Path, count: int, seed: int = 0) -> list[Path]:
    """Sample images from a directory and its subdirectories.

    Args:
        folder (str or Path): The directory.
        count (int): Number of images.
        seed (int): Seed of the random order. With the same seed a larger sample begins with the
            images of a smaller one.

    Raises:
        FileNotFoundError: If the directory does not exist.
        ValueError: If it contains fewer images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'--images {folder} is not a directory')
    paths = sorted(p for p in folder.rglob('*') if p.suffix.lower() in IMAGE_SUFFIXES)
    if not 1 <= count <= len(paths):
        raise ValueError(
            f'--num must be from 1 to {len(paths)}, the number of images in {folder}, got {count}'
        )
    random.Random(seed).shuffle(paths)
    return paths[:count]


class ERFState:
    """The sum of the scores of all images so far, kept in a file so that a run can continue.

    Args:
        path (Path): The ``.npz`` file; it is created with the first image.
        settings (dict): Numbers and strings that the scores depend on besides the images.

    Raises:
        ValueError: If the file was made with other settings, naming them.
    """

    def __init__(self, path: str | Path, settings: dict):
        self.path, self.settings = Path(path), settings
        self.total: np.ndarray | None = None
        self.images: list[str] = []
        self.map_size: tuple[int, int] | None = None
        if not self.path.is_file():
            return
        with np.load(self.path, allow_pickle=False) as file:
            before = json.loads(str(file['settings']))
            self.total, self.images = file['total'], json.loads(str(file['images']))
            self.map_size = tuple(map(int, file['map_size']))
        wanted = json.loads(json.dumps(settings))
        changed = sorted(k for k in {*before, *wanted} if before.get(k) != wanted.get(k))
        if changed:
            raise ValueError(
                f'{self.path} was made with other settings ({", ".join(changed)}): give another '
                '--out, or delete the file to start over'
            )

    def left(self, paths: Sequence[Path]) -> list[Path]:
        """Return the images that are not in the sum yet.

        Raises:
            ValueError: If the sum contains other images than these.
        """
        names = [str(path) for path in paths]
        foreign = [name for name in self.images if name not in names]
        if foreign:
            raise ValueError(
                f'{self.path} contains {len(self.images)} images, and {foreign[0]} is not in this '
                'run: give the same --images and the same or a larger --num, give another --out, '
                'or delete the file to start over'
            )
        return [path for path in paths if str(path) not in self.images]

    @property
    def mean(self) -> np.ndarray:
        """Scores averaged over the images, of shape (H, W)."""
        return self.total / len(self.images)

    def centre(self, point: tuple[int, int] | None) -> tuple[int, int] | None:
        """Return the pixel (x, y) at the centre of a position in the last feature map.

        Args:
            point (tuple[int, int], optional): The position (x, y). Default: None is returned.
        """
        if point is None:
            return None
        (height, width), (rows, columns) = self.total.shape, self.map_size
        x, y = point
        return (2 * x + 1) * width // (2 * columns), (2 * y + 1) * height // (2 * rows)

    def add(self, name: str, scores: np.ndarray, map_size: tuple[int, int]) -> None:
        """Add the scores of one image, and replace the file in one step.

        Args:
            name (str): Name of the image.
            scores (np.ndarray): Of shape (H, W).
            map_size (tuple[int, int]): Size (h, w) of the last feature map.
        """
        self.map_size = map_size
        self.total = scores if self.total is None else self.total + scores
        self.images.append(name)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix('.partial.npz')
        np.savez(
            partial,
            total=self.total,
            images=json.dumps(self.images),
            settings=json.dumps(self.settings),
            map_size=self.map_size,
        )
        os.replace(partial, self.path)


def effective_receptive_field(
    build: Callable[[], nn.Module],
    read: Callable[[Path], Tensor],
    paths: Sequence[Path],
    state: ERFState,
    point: tuple[int, int] | None = None,
    device: str = 'cpu',
    progress: Callable[[], None] | None = None,
) -> np.ndarray:
    """Average the contribution scores over images, continuing from ``state``.

    Args:
        build (Callable): Builds the backbone, see :func:`contribution_scores`. It is only called
            if there are images that are not in ``state``.
        read (Callable): Reads an image as a tensor of shape (1, C, H, W).
        paths (Sequence[Path]): The images.
        state (ERFState): The sum of the scores; it is updated after each image.
        point (tuple[int, int], optional): See :func:`contribution_scores`.
        device (str): Device on which the backbone runs.
        progress (Callable, optional): Called after each image.

    Returns:
        np.ndarray: Scores of shape (H, W).

    Raises:
        ValueError: If ``state`` contains images that are not among ``paths``.
    """
    left = state.left(paths)
    backbone = build().to(device) if left else None
    for path in left:
        state.add(str(path), *contribution_scores(backbone, read(path).to(device), point))
        if progress:
            progress()
    return state.mean
