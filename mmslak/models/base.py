"""What the networks take from MMEngine and MMCV, and what replaces it without them."""

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor, nn

HAS_MMENGINE = importlib.util.find_spec('mmengine') is not None
if HAS_MMENGINE:
    from mmengine.model import BaseModule

    from ..registry import FUNCTIONS, MODELS

    register = MODELS.register_module()
else:

    class BaseModule(nn.Module):
        """A module with the constructor of MMEngine's. Weights keep PyTorch's initialisation.

        Args:
            init_cfg (list, optional): Settings of MMEngine's initialisation.

        Raises:
            ValueError: If ``init_cfg`` names a checkpoint.
        """

        def __init__(self, init_cfg: list | None = None):
            super().__init__()
            if any('checkpoint' in cfg for cfg in init_cfg or []):
                raise ValueError(
                    'init_cfg with a checkpoint needs MMEngine and MMCV; install them, or load the '
                    'weights with load_state_dict'
                )
            self.init_cfg = init_cfg

    def register(cls: type) -> type:
        """Return the class; without MMEngine there is no registry."""
        return cls


def pretrained_function(name: str) -> Callable:
    """Return a function of ``mmslak.checkpoints``, which is above the networks, by its name.

    Args:
        name (str): Its name in the registry of functions.

    Raises:
        ImportError: If MMEngine is not installed.
    """
    if not HAS_MMENGINE:
        raise ImportError(
            'from_pretrained and save_pretrained need MMEngine and MMCV; install them'
        )
    return FUNCTIONS.get(f'mmslak.{name}')


def build_norm(norm_cfg: dict | None, channels: int) -> nn.Module:
    """Build the norm of a branch.

    Args:
        norm_cfg (dict, optional): Settings of MMCV's norms. Default: batch norm.
        channels (int): Channels C of the feature map.
    """
    if norm_cfg is None or norm_cfg == dict(type='BN'):
        return nn.BatchNorm2d(channels)
    from mmcv.cnn import build_norm_layer

    return build_norm_layer(norm_cfg, channels)[1]


class DropPath(nn.Module):
    """Drop samples of a residual branch at random in training, and scale up the others.

    Source: stochastic depth, Huang et al. 2016.

    Args:
        drop_prob (float): Probability of dropping a sample, in [0, 1).
    """

    def __init__(self, drop_prob: float):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples of ``x`` of shape (N, ...)."""
        if not self.training:
            return x
        shape = (x.shape[0], *(1 for _ in x.shape[1:]))
        kept = torch.rand(shape, dtype=x.dtype, device=x.device) + (1 - self.drop_prob)
        return x.div(1 - self.drop_prob) * kept.floor()

    def extra_repr(self) -> str:
        """Return the probability."""
        return f'drop_prob={self.drop_prob}'
