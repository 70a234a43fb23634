"""Building the network of a config outside a training, for analyses and conversions."""

import copy
from collections.abc import Mapping

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn


def build_model(cfg: Config, settings: Mapping | None = None, init_weights: bool = False):
    """Build the model of a config, or a part of it, on the CPU.

    Synchronised batch norms become ordinary ones because they run on accelerators only; in
    evaluation mode the two compute the same.

    Args:
        cfg (Config): A config of any toolbox. Types are looked up in its ``default_scope``.
        settings (Mapping, optional): Settings of the part to build, such as
            ``cfg.model.backbone`` with other arguments. Default: ``cfg.model``. They do not change.
        init_weights (bool): Initialise the weights by their ``init_cfg``.

    Returns:
        nn.Module: In training mode, as PyTorch builds modules.

    Raises:
        ValueError: If the config has no model.
    """
    if settings is None:
        settings = cfg.get('model')
        if settings and cfg.get('data_preprocessor'):
            # As the runner does. MMPretrain's configs normalise images there.
            settings = {'data_preprocessor': cfg.data_preprocessor, **settings}
    if not settings:
        raise ValueError(f'{cfg.filename or "the config"} has no model')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        model: nn.Module = MODELS.build(copy.deepcopy(dict(settings)))
        if init_weights and hasattr(model, 'init_weights'):
            model.init_weights()
    return revert_sync_batchnorm(model)
