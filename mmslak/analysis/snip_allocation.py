"""How SNIP distributes a sparsity over the layers of a config's model."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, set_random_seed
from PIL import Image
from torch import Tensor, nn

from ..engine.snip_training_batch import score_training_batch
from ..models import build_model
from ..sparsity import allocate, select_model_targets, snip_scores
from ..validation.layouts import check_datasets

#: Mean and standard deviation of ImageNet in RGB, as in the toolboxes.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SUFFIXES = ('.jpg', '.jpeg', '.png')


def labelled_images(folder: str | Path, count: int) -> list[tuple[Path, int]]:
    """Choose images from class directories, evenly over all of them.

    Args:
        folder (str or Path): Directory with one directory per class, as in ImageNet.
        count (int): Number of images to choose.

    Returns:
        list[tuple[Path, int]]: Each image with its label, the index of its class in sorted order.

    Raises:
        FileNotFoundError: If there are fewer images.
    """
    paths = sorted(p for p in Path(folder).glob('*/*') if p.suffix.lower() in SUFFIXES)
    if len(paths) < max(1, count):
        raise FileNotFoundError(
            f'--images {folder} has {len(paths)} images in class directories, but {count} are '
            'needed: give a directory with one directory per class, as in ImageNet, or fewer images'
        )
    classes = sorted({path.parent.name for path in paths})
    chosen = (paths[i * len(paths) // count] for i in range(count))
    return [(path, classes.index(path.parent.name)) for path in chosen]


def image_batch(paths: list[Path], size: int) -> Tensor:
    """Read images as a normalised batch of shape (N, 3, size, size)."""
    arrays = []
    for path in paths:
        with Image.open(path) as image:
            arrays.append(np.asarray(image.convert('RGB').resize((size, size)), np.float32))
    batch = (np.stack(arrays) - MEAN) / STD
    return torch.from_numpy(batch).permute(0, 3, 1, 2).float().contiguous()


def allocate_by_images(
    cfg: Config,
    images: list[tuple[Path, int]],
    sparsity: float,
    size: int = 224,
    seed: int = 0,
) -> dict[str, int]:
    """Allocate a sparsity by SNIP from labelled images, for a classifier of MMPretrain.

    The scores |g * w| are those of one batch, without Mixup and CutMix, with the loss of the
    config's head and random initialisation (paper, section 4, footnote 1).

    Args:
        cfg (Config): A config of MMPretrain.
        images (list[tuple[Path, int]]): The batch, from :func:`labelled_images`.
        sparsity (float): Share of the weights of backbone and head to mask.
        size (int): Side in pixels to which the images are resized.
        seed (int): Seed of the initialisation.

    Returns:
        dict[str, int]: Number of active weights of each layer, by the name of the weight, such as
        ``backbone.stages.0.0.pwconv1.weight``.
    """

    def score(model: nn.Module, weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        from mmpretrain.structures import DataSample

        batch = image_batch([path for path, _ in images], size)
        samples = [DataSample().set_gt_label(label) for _, label in images]
        model.train()
        return snip_scores(model, weights, lambda: sum(model(batch, samples, mode='loss').values()))

    torch.manual_seed(seed)
    # With Mixup and CutMix the scores would depend on how the images are paired.
    return _allocate(cfg, dict(cfg.model, train_cfg=None), sparsity, score)


def allocate_by_training_batch(
    cfg: Config, batch_size: int, sparsity: float, seed: int = 0
) -> dict[str, int]:
    """Allocate a sparsity by SNIP from one batch of a config's training data.

    Args:
        cfg (Config): A config of any of the three toolboxes; its training data must exist.
        batch_size (int): Number of training images to score.
        sparsity (float): See :func:`allocate_by_images`.
        seed (int): Seed of the initialisation, of the augmentation and of the images chosen.

    Returns:
        dict[str, int]: As :func:`allocate_by_images`.

    Raises:
        FileNotFoundError, ValueError: If the training data is missing or incomplete.
    """
    check_datasets(cfg, ('train',))
    settings = dict(cfg.train_dataloader, batch_size=batch_size)

    def score(model: nn.Module, weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        loader = Runner.build_dataloader(settings, seed=seed)
        return score_training_batch(model, loader, weights, seed)

    set_random_seed(seed)
    # As in MMEngine's runner: some configs have the preprocessor next to the model.
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    return _allocate(cfg, dict(cfg.model, data_preprocessor=preprocessor), sparsity, score)


def _allocate(
    cfg: Config,
    settings: Mapping,
    sparsity: float,
    score: Callable[[nn.Module, dict[str, nn.Parameter]], dict[str, Tensor]],
) -> dict[str, int]:
    model = build_model(cfg, settings, init_weights=True)
    weights = select_model_targets(model)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        scores = score(model, weights)
    return allocate(weights, sparsity, 'snip', scores)
