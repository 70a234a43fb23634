"""The SLaK backbone: the norm and block, then the network, then its variants."""

from collections.abc import Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule, PretrainedInit
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..registry import MODELS
from .large_kernel import SpatialMixing, check_kernels
from .layer_depth import layer_depth

#: name -> depths and base widths of the four stages (paper, section 4.1). ``nano`` is this
#: package's own, for demonstrations and tests.
ARCHS = {
    'nano': dict(depths=(1, 1, 3, 1), widths=(16, 32, 64, 128)),
    'tiny': dict(depths=(3, 3, 9, 3), widths=(96, 192, 384, 768)),
    'small': dict(depths=(3, 3, 27, 3), widths=(96, 192, 384, 768)),
    'base': dict(depths=(3, 3, 27, 3), widths=(128, 256, 512, 1024)),
    'large': dict(depths=(3, 3, 27, 3), widths=(192, 384, 768, 1536)),
}
#: The paper's one width factor for all of its models ("expand more width", section 4.1).
WIDTH_FACTOR = 1.3
#: Strides 4, 8, 16 and 32: below this side the last map would be empty.
MIN_SIZE = 32


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map of shape (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each position of ``x``, (N, C, H, W), over its C channels."""
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class SLaKBlock(nn.Module):
    """One residual block: spatial mixing, LayerNorm, linear, GELU, linear, layer scale.

    Args:
        channels (int): Channels C of input and output.
        kernel_size (int): Large kernel M.
        small_kernel (int): Small kernel N.
        mode (str): How the large kernel is built, see :class:`SpatialMixing`.
        drop_path_rate (float): Chance to drop the residual branch of a sample in training.
        layer_scale_init_value (float): Initial layer scale; 0 builds the block without one.
        norm_cfg (dict): Norm of the branches of the spatial mixing.
        with_cp (bool): Recompute activations in the backward pass instead of keeping them.
        deploy (bool): Build the merged form, see :meth:`SpatialMixing.switch_to_deploy`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        small_kernel: int = 5,
        mode: str = 'decomposed',
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        norm_cfg: dict | None = None,
        with_cp: bool = False,
        deploy: bool = False,
    ):
        super().__init__()
        self.mixing = SpatialMixing(channels, kernel_size, small_kernel, mode, norm_cfg, deploy)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = (
            nn.Parameter(torch.full((channels,), float(layer_scale_init_value)))
            if layer_scale_init_value > 0
            else None
        )
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        self.with_cp = with_cp

    def _residual(self, x: Tensor) -> Tensor:
        # Channels come last from here on: a linear layer is then one matrix product.
        x = self.mixing(x).permute(0, 2, 3, 1)
        x = self.pwconv2(self.act(self.pwconv1(self.norm(x))))
        if self.gamma is not None:
            x = self.gamma * x
        return x.permute(0, 3, 1, 2)

    def _contexts(self) -> tuple:
        """Contexts of a checkpointed forward pass and of its recomputation."""
        return nullcontext(), _statistics_kept(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` of shape (N, C, H, W) to the same shape."""
        if self.with_cp and torch.is_grad_enabled():
            # A compiled graph recomputes without running its side effects again.
            keep = {} if torch.compiler.is_compiling() else dict(context_fn=self._contexts)
            residual = checkpoint(self._residual, x, use_reentrant=False, **keep)
        else:
            residual = self._residual(x)
        return x + self.drop_path(residual)


@contextmanager
def _statistics_kept(module: nn.Module):
    """Let batch norms below ``module`` normalise without updating running statistics.

    The recomputation of a checkpointed block sees the batch a second time; without this it
    would enter the running mean and variance twice.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        # Not track_running_stats=False: the recomputation must save the same tensors.
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


@MODELS.register_module()
class SLaK(BaseModule):
    """Sparse Large Kernel Network (paper, section 4.1), as a backbone for every toolbox.

    For dense prediction it returns one map per entry of ``out_indices``, of strides 4, 8, 16
    and 32, each through a LayerNorm of its own. As a classifier
    (``gap_before_final_norm=True, out_indices=(3,)``) it returns the pooled, normalised
    feature of shape (N, C) that MMPretrain's heads expect.

    Args:
        arch (str or dict): ``nano``, ``tiny``, ``small``, ``base`` or ``large``, or a dict
            of ``depths`` and ``widths``, four positive integers each.
        kernel_sizes (Sequence[int]): Large kernel M of each stage, odd.
        small_kernel (int): Small kernel N, odd.
        width_factor (float, optional): Widths are ``int(width * width_factor)``. Default:
            the paper's 1.3 for a named arch, 1.0 for a dict.
        mode (str): ``decomposed`` (M x N + N x M + N x N), ``reparam`` (M x M + N x N, the
            RepLKNet recipe) or ``naive`` (M x M; with 7 x 7 this is ConvNeXt).
        in_channels (int): Channels of the input.
        drop_path_rate (float): Stochastic depth of the last block; grows linearly from 0.
        layer_scale_init_value (float): Initial layer scale; 0 for none.
        out_indices (Sequence[int] or int): Stages to return, 0 to 3, or -1 for the last.
        frozen_stages (int): Stages held fixed, counted from the input, each with the
            downsampling before it. 0 (or -1): none.
        norm_eval (bool): Keep batch norms in evaluation mode while training.
        with_cp (bool): Activation checkpointing in every block.
        norm_cfg (dict): Norm of the branches in the blocks.
        gap_before_final_norm (bool): Pool each output over space before its norm.
        deploy (bool): Build the form that :meth:`switch_to_deploy` leaves, for checkpoints that
            were merged for inference.
        init_cfg (dict or list, optional): MMEngine's initialisation. Default: truncated
            normal of std 0.02 for convolutions and linear layers, biases 0.

    Raises:
        ValueError: Naming the argument, the value got and what is allowed.
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        kernel_sizes: Sequence[int] = (51, 49, 47, 13),
        small_kernel: int = 5,
        width_factor: float | None = None,
        mode: str = 'decomposed',
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        out_indices: Sequence[int] | int = (0, 1, 2, 3),
        frozen_stages: int = 0,
        norm_eval: bool = False,
        with_cp: bool = False,
        norm_cfg: dict | None = None,
        gap_before_final_norm: bool = False,
        deploy: bool = False,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg=_with_default_init(init_cfg))
        self.depths, self.widths = _resolve_arch(arch, width_factor)
        stages = len(self.depths)
        kernel_sizes = _as_tuple('kernel_sizes', kernel_sizes, stages)
        for kernel_size in kernel_sizes:
            check_kernels(kernel_size, small_kernel, mode)
        if not isinstance(in_channels, int) or in_channels < 1:
            raise ValueError(f'in_channels must be a positive integer, got {in_channels!r}')
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate must be in [0, 1), got {drop_path_rate!r}')
        if layer_scale_init_value < 0:
            raise ValueError(
                f'layer_scale_init_value must be 0 or positive, got {layer_scale_init_value!r}'
            )
        if frozen_stages not in range(-1, stages + 1):
            raise ValueError(f'frozen_stages must be in -1..{stages}, got {frozen_stages!r}')
        self.out_indices = _resolve_out_indices(out_indices, stages)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.gap_before_final_norm = gap_before_final_norm

        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        last = max(1, sum(self.depths) - 1)
        rates = iter(drop_path_rate * i / last for i in range(sum(self.depths)))
        previous = in_channels
        for depth, width, kernel_size in zip(self.depths, self.widths, kernel_sizes, strict=True):
            if not self.stages:
                downsample = nn.Sequential(
                    nn.Conv2d(previous, width, kernel_size=4, stride=4),
                    ChannelLayerNorm(width, eps=1e-6),
                )
            else:
                downsample = nn.Sequential(
                    ChannelLayerNorm(previous, eps=1e-6),
                    nn.Conv2d(previous, width, kernel_size=2, stride=2),
                )
            self.downsample_layers.append(downsample)
            self.stages.append(
                nn.Sequential(
                    *(
                        SLaKBlock(
                            width,
                            kernel_size,
                            small_kernel,
                            mode,
                            drop_path_rate=next(rates),
                            layer_scale_init_value=layer_scale_init_value,
                            norm_cfg=norm_cfg,
                            with_cp=with_cp,
                            deploy=deploy,
                        )
                        for _ in range(depth)
                    )
                )
            )
            previous = width
        for i in self.out_indices:
            norm = nn.LayerNorm if gap_before_final_norm else ChannelLayerNorm
            self.add_module(f'norm{i}', norm(self.widths[i], eps=1e-6))
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs of the stages in ``out_indices``.

        Args:
            x (Tensor): Images of shape (N, C, H, W), H and W at least 32.

        Returns:
            tuple[Tensor]: Maps of shape (N, width, H // stride, W // stride), or vectors of
            shape (N, width) with ``gap_before_final_norm``.

        Raises:
            ValueError: If the images are smaller than 32 x 32.
        """
        if min(x.shape[-2:]) < MIN_SIZE:
            raise ValueError(
                f'SLaK needs images of at least {MIN_SIZE} x {MIN_SIZE}, '
                f'got {x.shape[-2]} x {x.shape[-1]}'
            )
        outs = []
        for i in range(self.out_indices[-1] + 1):
            x = self.stages[i](self.downsample_layers[i](x))
            if i in self.out_indices:
                feature = x.mean((-2, -1)) if self.gap_before_final_norm else x
                # The norm leaves the channels last in memory, which convolutions pass on; MMCV's
                # RoIAlign reads such maps as if the channels came first.
                outs.append(getattr(self, f'norm{i}')(feature).contiguous())
        return tuple(outs)

    def switch_to_deploy(self) -> 'SLaK':
        """Merge the branches of every block for inference, in place.

        Batch norms and small kernels are folded into the large kernels, which leaves two
        convolutions and one bias to a decomposed block (paper, section 4) and one to the others.
        What the network computes in evaluation mode stays the same, to rounding; it should not
        be trained afterwards. Its checkpoint loads into ``SLaK(..., deploy=True)``.

        Returns:
            SLaK: The network itself.

        Raises:
            ValueError: If the branches have norms other than batch norms.
        """
        for module in self.modules():
            if isinstance(module, SpatialMixing):
                module.switch_to_deploy()
        return self

    def train(self, mode: bool = True) -> 'SLaK':
        """Switch to training mode, but for frozen stages and, by ``norm_eval``, batch norms."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says.

        ``dict(type='Pretrained', checkpoint=FILE)`` takes checkpoints of this package and those
        of the authors of SLaK and ConvNeXt, see :func:`mmslak.checkpoints.load_backbone`.

        Raises:
            FileNotFoundError: If such a file does not exist.
            ValueError: If it cannot be read safely or does not fit.
        """
        if self.is_init:
            return
        # Here, for the reader of checkpoints builds networks.
        from ..checkpoints import load_backbone

        settings = [self.init_cfg] if isinstance(self.init_cfg, dict) else self.init_cfg or []
        pretrained = [cfg for cfg in settings if _is_pretrained(cfg)]
        self.init_cfg = [cfg for cfg in settings if not _is_pretrained(cfg)]
        try:
            super().init_weights()
            for cfg in pretrained:
                load_backbone(self, cfg['checkpoint'], cfg.get('prefix'))
        finally:
            self.init_cfg = settings

    def _freeze(self) -> None:
        for i in range(self.frozen_stages):
            for module in (self.downsample_layers[i], self.stages[i]):
                module.eval().requires_grad_(False)

    def get_layer_depth(
        self, param_name: str, prefix: str = '', decay_type: str = 'layer_wise'
    ) -> tuple[int, int]:
        """Tell the learning-rate group of a parameter, as in the ConvNeXt family.

        Layer-wise: stem 0; stage 1: 1; second downsampling and stage 2: 2; third
        downsampling 3; stage 3 from 3, one more every three blocks; fourth downsampling and
        stage 4 the deepest; everything else one beyond. Stage-wise: downsampling 0, stage i:
        i, everything else the last group.

        Args:
            param_name (str): Name of the parameter in the whole model.
            prefix (str): What comes before the backbone's own names, such as ``backbone.``.
            decay_type (str): ``layer_wise`` or ``stage_wise``.

        Returns:
            tuple[int, int]: Group, and number of groups; the group's learning rate is
            ``lr * rate ** (groups - 1 - group)``.
        """
        # The deepest layer is 6 for a third stage of 9 blocks and 12 for one of 27.
        deepest = 4 + (self.depths[2] - 1) // 3
        return layer_depth(param_name, prefix, deepest, decay_type)


def _with_default_init(init_cfg: dict | list | None) -> list:
    """Put the network's own initialisation before a checkpoint's, which may lack some keys."""
    default = dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0)
    if init_cfg is None:
        return [default]
    init_cfg = init_cfg if isinstance(init_cfg, list) else [init_cfg]
    return init_cfg if any(not _is_pretrained(c) for c in init_cfg) else [default, *init_cfg]


def _is_pretrained(cfg: dict) -> bool:
    return cfg['type'] in ('Pretrained', PretrainedInit)


def _resolve_arch(
    arch: str | dict, width_factor: float | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if isinstance(arch, str):
        if arch not in ARCHS:
            allowed = ', '.join(map(repr, ARCHS))
            raise ValueError(
                f'arch must be one of {allowed} or a dict of depths and widths, got {arch!r}'
            )
        factor = WIDTH_FACTOR if width_factor is None else width_factor
        arch = ARCHS[arch]
    elif isinstance(arch, dict) and set(arch) == {'depths', 'widths'}:
        factor = 1.0 if width_factor is None else width_factor
    else:
        raise ValueError(f"arch as a dict must have exactly 'depths' and 'widths', got {arch!r}")
    depths = _as_tuple('depths', arch['depths'], 4)
    if not factor > 0:
        raise ValueError(f'width_factor must be positive, got {width_factor!r}')
    widths = tuple(int(width * factor) for width in _as_tuple('widths', arch['widths'], 4))
    for argument, values in (('depths', depths), ('widths', widths)):
        if not all(isinstance(value, int) and value > 0 for value in values):
            raise ValueError(f'{argument} must be positive integers, got {values}')
    return depths, widths


def _as_tuple(argument: str, values: Sequence, length: int) -> tuple:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != length:
        raise ValueError(f'{argument} must have {length} entries, one a stage, got {values!r}')
    return tuple(values)


def _resolve_out_indices(out_indices: Sequence[int] | int, stages: int) -> tuple[int, ...]:
    indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    resolved = [i + stages if isinstance(i, int) and i < 0 else i for i in indices]
    if not resolved or resolved != sorted(set(resolved)) or not set(resolved) <= set(range(stages)):
        raise ValueError(
            f'out_indices must be distinct stages in ascending order, each in 0..{stages - 1} '
            f'(or -{stages}..-1 from the end), got {out_indices!r}'
        )
    return tuple(resolved)
