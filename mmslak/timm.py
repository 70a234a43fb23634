"""SLaK as models of timm: importing this module registers them.

``timm.create_model('slak_tiny', num_classes=10)`` then builds a classifier, and with
``features_only=True`` a backbone. The network is :class:`mmslak.models.SLaK`, and the names in the
state dict are those of MMPretrain's classifier, so that checkpoints fit both.
"""

import importlib.util
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

if missing := [name for name in ('timm', 'mmengine') if importlib.util.find_spec(name) is None]:
    raise ImportError(
        f'mmslak.timm needs {" and ".join(missing)}; install what is missing with: '
        f'pip install {" ".join(missing)}'
    )

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import ClassifierHead, trunc_normal_
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    register_notrace_module,
)
from timm.models._features import feature_take_indices

from .checkpoints import from_official
from .models import SLaK, SLaKBlock

__all__ = ['SLaKClassifier']

#: Poolings that keep the number of channels, which the norm needs.
POOLINGS = ('avg', 'max', 'avgmax', '')

# FX records the call of a block instead of tracing it: the operators choose their implementation
# by the shape of their input.
register_notrace_module(SLaKBlock)


class SLaKClassifier(nn.Module):
    """SLaK with timm's interface: global average pooling, LayerNorm, dropout and linear layer.

    The LayerNorm is ``norm3`` of the backbone, as in MMPretrain's classifier.

    Args:
        in_chans (int): Channels of the images.
        num_classes (int): Number of classes; 0 builds no linear layer.
        global_pool (str): ``avg``, ``max``, ``avgmax``, or an empty string for no pooling. The
            linear layer is then a 1 x 1 convolution.
        drop_rate (float): Dropout rate before the linear layer.
        drop_path_rate (float): Drop path rate of the last block.
        **backbone: Other arguments of :class:`mmslak.models.SLaK`, such as ``arch``,
            ``kernel_sizes``, ``width_factor`` and ``mode``.

    Raises:
        ValueError: For another pooling, and for an argument of the backbone that has another name
            in timm or does not fit a classifier.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        **backbone,
    ):
        super().__init__()
        _check_pooling(global_pool)
        _check_arguments(backbone)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.backbone = SLaK(
            in_channels=in_chans,
            drop_path_rate=drop_path_rate,
            out_indices=(3,),
            gap_before_final_norm=True,
            **backbone,
        )
        self.num_features = self.head_hidden_size = self.backbone.widths[-1]
        self.feature_info = [
            dict(num_chs=width, reduction=4 * 2**i, module=f'backbone.stages.{i}')
            for i, width in enumerate(self.backbone.widths)
        ]
        self.head = ClassifierHead(
            self.num_features,
            num_classes,
            global_pool,
            drop_rate=drop_rate,
            use_conv=not global_pool,
        )
        self.apply(_init_weights)

    def group_matcher(self, coarse: bool = False) -> dict:
        """Return timm's groups for layer-wise learning-rate decay, as for its ConvNeXt.

        Args:
            coarse (bool): One group for each stage with its downsampling, instead of one for each
                block.

        Returns:
            dict: Patterns of the names of the parameters.
        """
        if coarse:
            blocks = r'^backbone\.(?:downsample_layers|stages)\.(\d+)'
        else:
            blocks = [
                (r'^backbone\.downsample_layers\.(\d+)', (0,)),
                (r'^backbone\.stages\.(\d+)\.(\d+)', None),
            ]
        return dict(stem=r'^backbone\.downsample_layers\.0', blocks=blocks)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the activations of every block in the backward pass, or store them."""
        for block in self.modules():
            if isinstance(block, SLaKBlock):
                block.with_cp = enable

    def get_classifier(self) -> nn.Module:
        """Return the linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer.

        Args:
            num_classes (int): Number of classes; 0 removes the layer.
            global_pool (str, optional): Another pooling.

        Raises:
            ValueError: If it is none of :data:`POOLINGS`.
        """
        if global_pool is not None:
            _check_pooling(global_pool)
            self.head.use_conv = not global_pool
        self.num_classes = num_classes
        # Pruning changes the number of features.
        self.head.in_features = self.num_features
        self.head.reset(num_classes, global_pool)
        self.head.fc.apply(_init_weights)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Compute the feature maps of several stages.

        Args:
            x (Tensor): Images of shape (N, C, H, W).
            indices (int or Sequence[int], optional): The last stages if it is a number, or these
                stages. Default: all.
            norm (bool): Has no effect, because the only norm follows the pooling.
            stop_early (bool): Stop after the last of these stages.
            output_fmt (str): ``NCHW``.
            intermediates_only (bool): Return only the feature maps.

        Returns:
            list[Tensor] or tuple[Tensor, list[Tensor]]: Feature maps of these stages, after the
            output of the last stage that was computed unless ``intermediates_only``.
        """
        if output_fmt != 'NCHW':
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        stages = len(self.backbone.stages)
        taken, last = feature_take_indices(stages, indices)
        features = self.backbone.forward_stages(x, last + 1 if stop_early else stages)
        chosen = [features[i] for i in taken]
        return chosen if intermediates_only else (features[-1], chosen)

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove what the feature maps of these stages do not need.

        Args:
            indices (int or Sequence[int]): As for :meth:`forward_intermediates`.
            prune_norm (bool): Has no effect, because the norm is part of the head.
            prune_head (bool): Remove the norm, the pooling and the linear layer. If stages are
                removed, these are always removed.

        Returns:
            list[int]: The stages, counted from 0.
        """
        backbone = self.backbone
        taken, last = feature_take_indices(len(backbone.stages), indices)
        shorter = last + 1 < len(backbone.stages)
        backbone.downsample_layers = backbone.downsample_layers[: last + 1]
        backbone.stages = backbone.stages[: last + 1]
        if prune_head or shorter:
            backbone.norm3 = nn.Identity()
            self.num_features = self.head_hidden_size = backbone.widths[last]
            self.reset_classifier(0, '')
        return taken

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the feature map of the last stage from images of shape (N, C, H, W)."""
        return self.backbone.forward_stages(x, len(self.backbone.stages))[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute the logits, or the input of the linear layer, from the last feature map."""
        x = self.head.global_pool(x)
        if self.head.global_pool.is_identity():
            x = self.backbone.norm3(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        else:
            x = self.backbone.norm3(x)
        x = self.head.drop(x)
        return x if pre_logits else self.head.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of images of shape (N, C, H, W)."""
        return self.forward_head(self.forward_features(x))


def _check_pooling(global_pool: str) -> None:
    """Check the pooling before the head is changed."""
    if global_pool not in POOLINGS:
        raise ValueError(
            f'global_pool must be one of {", ".join(map(repr, POOLINGS))}, got {global_pool!r}'
        )


def _check_arguments(backbone: Mapping) -> None:
    """Check arguments of the backbone before it is built."""
    if 'out_indices' in backbone:
        raise ValueError('out_indices needs features_only=True')
    if 'in_channels' in backbone:
        raise ValueError('in_channels must be given as in_chans, its name in timm')
    for name in ('gap_before_final_norm', 'init_cfg'):
        if name in backbone:
            raise ValueError(f'{name} is set by slak_* models of timm; remove it')


def _init_weights(module: nn.Module) -> None:
    """Initialise a layer as the backbone's ``init_weights`` does, without MMEngine's logging."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: nn.Module) -> Mapping:
    """Return the weights of a checkpoint under the names of this package.

    Args:
        state_dict (Mapping): Weights of a classifier of this package, or of the authors of SLaK or
            ConvNeXt.
        model (nn.Module): Not used; timm passes it.

    Returns:
        Mapping: Weights by name.
    """
    if any(name.startswith('backbone.') for name in state_dict):
        return state_dict
    return from_official(state_dict).state_dict


def _cfg(**kwargs) -> dict:
    """Return a default config of timm: the test pipeline of the recipe for ImageNet-1K."""
    return dict(
        num_classes=1000,
        input_size=(3, 224, 224),
        min_input_size=(3, 32, 32),
        pool_size=(7, 7),
        crop_pct=0.875,
        interpolation='bicubic',
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        first_conv='backbone.downsample_layers.0.0',
        classifier='head.fc',
        license='apache-2.0',
        paper_ids='arXiv:2207.03620',
        paper_name=('More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using Sparsity'),
        origin_url='https://github.com/VITA-Group/SLaK',
        **kwargs,
    )


default_cfgs = generate_default_cfgs(
    {f'slak_{arch}': _cfg() for arch in ('nano', 'tiny', 'small', 'base', 'large')}
)


def _create_slak(variant: str, pretrained: bool, **kwargs) -> nn.Module:
    return build_model_with_cfg(
        SLaKClassifier,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=dict(out_indices=(0, 1, 2, 3), feature_cls='getter'),
        arch=variant.removeprefix('slak_'),
        **kwargs,
    )


@register_model
def slak_nano(pretrained: bool = False, **kwargs) -> nn.Module:
    """SLaK-nano, which is not in the paper; it is for demonstrations and tests."""
    return _create_slak('slak_nano', pretrained, **kwargs)


@register_model
def slak_tiny(pretrained: bool = False, **kwargs) -> nn.Module:
    """SLaK-T (paper, section 4.1)."""
    return _create_slak('slak_tiny', pretrained, **kwargs)


@register_model
def slak_small(pretrained: bool = False, **kwargs) -> nn.Module:
    """SLaK-S (paper, section 4.1)."""
    return _create_slak('slak_small', pretrained, **kwargs)


@register_model
def slak_base(pretrained: bool = False, **kwargs) -> nn.Module:
    """SLaK-B (paper, section 4.1)."""
    return _create_slak('slak_base', pretrained, **kwargs)


@register_model
def slak_large(pretrained: bool = False, **kwargs) -> nn.Module:
    """SLaK with the depths and widths of ConvNeXt-L, times the width factor."""
    return _create_slak('slak_large', pretrained, **kwargs)
