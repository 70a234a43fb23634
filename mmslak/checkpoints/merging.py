"""Merging the branches of the blocks in a trained model for inference."""

from collections.abc import Mapping

import torch
from mmengine.config import Config

from ..models import SLaK, branches_kept_apart, build_model
from .export import dataset_meta
from .fitting import load_weights


def merge_checkpoint(
    cfg: Config, checkpoint: Mapping, source: str = 'the checkpoint', size: int = 64
) -> tuple[dict, float]:
    """Fold the batch norms and small kernels of a model's backbone into its large kernels.

    Args:
        cfg (Config): Config of a classifier, detector or segmentor.
        checkpoint (Mapping): A checkpoint of a training, with ``state_dict``, or weights by name.
        source (str): Name of the checkpoint, for errors.
        size (int): Side in pixels of the random image on which the two networks are compared.

    Returns:
        tuple[dict, float]: A checkpoint with ``state_dict`` and ``meta`` for the same config
        with ``model.backbone.deploy=True``, and the largest difference between the outputs of
        the two backbones, relative to the largest output. ``meta.dataset_meta`` has the names and
        colours of the classes, if the checkpoint or the config has them.

    Raises:
        ValueError: If the backbone is not a SLaK, is already merged, or cannot be merged.
        CheckpointError: If the checkpoint does not fit the model.
    """
    if cfg.model.get('backbone', {}).get('deploy'):
        raise ValueError(
            'model.backbone.deploy must be False to merge a checkpoint, got True: checkpoints of '
            'this config are already merged'
        )
    model = build_model(cfg).eval()
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, SLaK):
        raise ValueError(
            f'model.backbone must be a mmslak.SLaK to be merged, got {type(backbone).__name__}'
        )
    load_weights(model, checkpoint, source)
    image = torch.randn(1, backbone.downsample_layers[0][0].in_channels, size, size)
    with torch.no_grad():
        with branches_kept_apart(backbone):
            before = backbone(image)
        after = backbone.switch_to_deploy()(image)
    difference = max(
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(after, before, strict=True)
    )
    meta: dict = dict(merged_from=source)
    if classes := dataset_meta(cfg, checkpoint):
        # The inferencers of the toolboxes read the class names from here.
        meta['dataset_meta'] = classes
    return dict(meta=meta, state_dict=model.state_dict()), difference
