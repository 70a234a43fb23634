"""Merging the blocks of a trained detector, segmentor or classifier for inference."""

from collections.abc import Mapping

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from ..models import SLaK
from .reading import CheckpointError


def merge_checkpoint(
    cfg: Config, checkpoint: Mapping, source: str = 'the checkpoint', size: int = 64
) -> tuple[dict, float]:
    """Fold the batch norms and small kernels of a model's backbone into its large kernels.

    Args:
        cfg (Config): Config of the model, of any of the three toolboxes.
        checkpoint (Mapping): What training wrote: ``state_dict``, or weights by name.
        source (str): Name of the checkpoint, for errors.
        size (int): Side in pixels of the random image on which both forms are compared.

    Returns:
        tuple[dict, float]: A checkpoint with ``state_dict`` and ``meta`` for the same config
        with ``model.backbone.deploy=True``; and the largest difference between the outputs of
        the two forms of the backbone, relative to the largest output.

    Raises:
        ValueError: If the backbone is no SLaK, is merged already, or cannot be merged.
        CheckpointError: If the checkpoint does not fill the model.
    """
    settings = cfg.model.copy()
    if settings.get('backbone', {}).get('deploy'):
        raise ValueError('the config has model.backbone.deploy=True: its checkpoints are merged')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        model = revert_sync_batchnorm(MODELS.build(settings)).eval()
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, SLaK):
        raise ValueError(
            f'model.backbone must be a mmslak.SLaK to be merged, got {type(backbone).__name__}'
        )
    state = checkpoint.get('state_dict', checkpoint)
    state = {name.removeprefix('module.'): value for name, value in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[1].strip()
        raise CheckpointError(
            f'{source} does not fit the model of the config ({first}); give a checkpoint and a '
            'config that belong together'
        ) from None
    image = torch.randn(1, backbone.downsample_layers[0][0].in_channels, size, size)
    with torch.no_grad():
        before = _branch_by_branch(backbone, image)
        after = backbone.switch_to_deploy()(image)
    difference = max(
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(after, before, strict=True)
    )
    return dict(meta=dict(merged_from=source), state_dict=model.state_dict()), difference


def _branch_by_branch(backbone: SLaK, image: Tensor) -> tuple[Tensor, ...]:
    """Run the backbone without the folding that it does by itself in evaluation mode."""
    handles = [
        branch.register_forward_hook(lambda *_: None)
        for stage in backbone.stages
        for block in stage
        for branch in block.mixing.children()
    ]
    outputs = backbone(image)
    for handle in handles:
        handle.remove()
    return outputs
