"""How SNIP shares a sparsity over a classifier, from real images."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from torch import Tensor

from ..sparsity import allocate, snip_scores
from .complexity import sparse_weights

#: ImageNet's, in RGB, as everywhere in the toolboxes.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SUFFIXES = ('.jpg', '.jpeg', '.png')


def labelled_images(folder: str | Path, count: int) -> list[tuple[Path, int]]:
    """Choose images from a folder of class folders, evenly over all of them.

    Args:
        folder (str or Path): Holds one folder a class, as ImageNet does.
        count (int): Images to choose.

    Returns:
        list[tuple[Path, int]]: Image, and the number of its folder among all by name.

    Raises:
        FileNotFoundError: If there are fewer images.
    """
    paths = sorted(p for p in Path(folder).glob('*/*') if p.suffix.lower() in SUFFIXES)
    if len(paths) < max(1, count):
        raise FileNotFoundError(
            f'--images {folder} holds {len(paths)} images in class folders, and {count} are asked '
            'for: give a folder like that of ImageNet, or ask for fewer'
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


def snip_allocation(
    cfg: Config,
    images: list[tuple[Path, int]],
    sparsity: float,
    size: int = 224,
    seed: int = 0,
) -> dict[str, int]:
    """Count the weights that SNIP leaves each layer of an untrained classifier.

    The scores |g * w| are those of one batch through the loss of the config's own head, with
    the network as the config initialises it (paper, section 4, footnote 1).

    Args:
        cfg (Config): A config of MMPretrain.
        images (list[tuple[Path, int]]): From :func:`labelled_images`; the one batch.
        sparsity (float): Share of the weights of backbone and head left out.
        size (int): Side the images are resized to, in pixels.
        seed (int): Of the initialisation.

    Returns:
        dict[str, int]: By the name of the weight, such as ``backbone.stages.0.0.pwconv1.weight``.
    """
    settings = cfg.model.copy()
    # Mixup and CutMix would make the scores depend on how images are paired.
    settings.train_cfg = None
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        model = MODELS.build(settings)
        model.init_weights()
        from mmpretrain.structures import DataSample

        batch = image_batch([path for path, _ in images], size)
        samples = [DataSample().set_gt_label(label) for _, label in images]
        model.train()
        weights = sparse_weights(model)
        scores = snip_scores(
            model, weights, lambda: sum(model(batch, samples, mode='loss').values())
        )
    return allocate(weights, sparsity, 'snip', scores)
