"""The SLaK backbone, read from top to bottom: the norm, the block, the network."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..ops.aligned import (
    PaddedParameters,
    add_scaled,
    feed_forward,
    padded_parameters,
    runs_aligned,
)
from ..ops.branch_norms import has_hooks
from .activation_checkpointing import checkpointed
from .arguments import (
    as_tuple,
    check_aligned,
    check_kernels,
    check_scalars,
    resolve_init_cfg,
    resolve_out_indices,
)
from .base import BaseModule, DropPath, pretrained_function, register
from .hidden_units import fold_scales, remove_constant_units, zero_units
from .large_kernel import SpatialMixing
from .layer_depth import last_stage_group, layer_depth
from .variants import resolve_arch

#: Smallest side of an image in pixels; a smaller one leaves an empty feature map at stride 32.
MIN_SIZE = 32


# FX records the call instead of tracing the branches, which depend on the shape.
@fx.wrap
def check_images(x: Tensor) -> None:
    """Check the shape of a batch of images.

    Args:
        x (Tensor): The batch.

    Raises:
        ValueError: If it has another number of dimensions than 4, or if the images are smaller than
            32 x 32.
    """
    if x.dim() != 4:
        raise ValueError(
            f'SLaK needs images of shape (N, C, H, W), got {tuple(x.shape)}; x.unsqueeze(0) '
            'makes a batch of one image'
        )
    if min(x.shape[-2:]) < MIN_SIZE:
        raise ValueError(
            f'SLaK needs images of at least {MIN_SIZE} x {MIN_SIZE}, '
            f'got {x.shape[-2]} x {x.shape[-1]}'
        )


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of a feature map of shape (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape (N, C, H, W) over its C channels at each position."""
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
        drop_path_rate (float): Probability of dropping the residual branch of a sample in
            training.
        layer_scale_init_value (float): Initial layer scale; 0 builds the block without layer
            scale.
        norm_cfg (dict, optional): Norm of the branches of the spatial mixing. Default: batch
            norm.
        with_cp (bool): Recompute activations in the backward pass instead of storing them.
        deploy (bool): Build the merged block of :meth:`switch_to_deploy`.
        aligned (bool or str): Whether the linear layers are computed on widths padded with zeros,
            see :class:`SLaK`.

    Attributes:
        active_units (Tensor or None): Indices of the hidden units that are computed in training
            mode, see :meth:`leave_out_zero_units`. None: all.
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
        aligned: bool | str = 'auto',
    ):
        super().__init__()
        check_aligned(aligned)
        self.mixing = SpatialMixing(channels, kernel_size, small_kernel, mode, norm_cfg, deploy)
        # A merged block has the affine part and the layer scale in its linear layers.
        self.norm = nn.LayerNorm(channels, eps=1e-6, elementwise_affine=not deploy)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = (
            nn.Parameter(torch.full((channels,), float(layer_scale_init_value)))
            if layer_scale_init_value > 0 and not deploy
            else None
        )
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        self.with_cp = with_cp
        self.aligned = aligned
        self.active_units: Tensor | None = None
        self._padded = PaddedParameters()

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x`` of shape (N, C, H, W); the shape stays the same."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpointed(self._transform, x, self)
        return self._transform(x)

    def _transform(self, x: Tensor) -> Tensor:
        # Channels come last from here on: a linear layer is then one matrix product.
        y = self.mixing(x).permute(0, 2, 3, 1)
        if self._calls_layers():
            return self._add(x, self.pwconv2(self.act(self.pwconv1(self.norm(y)))))
        weight1, bias1, weight2, bias2 = self._linear_parameters()
        if runs_aligned(y, [weight1, weight2], self.aligned):
            return self._add_aligned(x, y, (weight1, bias1, weight2, bias2))
        hidden = self.act(F.linear(self.norm(y), weight1, bias1))
        return self._add(x, F.linear(hidden, weight2, bias2))

    def _calls_layers(self) -> bool:
        """Return whether the layers must be called: they were replaced or have hooks."""
        layers = (self.norm, self.pwconv1, self.act, self.pwconv2)
        return not all(
            type(layer) in (nn.LayerNorm, nn.Linear, nn.GELU) and not has_hooks(layer)
            for layer in layers
        )

    def _linear_parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return weight and bias of both linear layers, of the hidden units to compute."""
        first, second, units = self.pwconv1, self.pwconv2, self.active_units
        if units is None or not self.training:
            return first.weight, first.bias, second.weight, second.bias
        return (
            first.weight.index_select(0, units),
            first.bias.index_select(0, units),
            second.weight.index_select(1, units),
            second.bias,
        )

    def _add(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the residual branch ``y`` of shape (N, H, W, C) to ``x``."""
        if self.gamma is not None:
            y = self.gamma * y
        return x + self.drop_path(y.permute(0, 3, 1, 2))

    def _add_aligned(self, x: Tensor, y: Tensor, linear: tuple[Tensor, ...]) -> Tensor:
        """Compute the layers after the mixing on padded widths, and add the result to ``x``."""
        parameters = (self.norm.weight, self.norm.bias, *linear)
        if self._keeps_padded(y):
            padded = self._padded.get(y, parameters)
        else:
            padded = padded_parameters(y, parameters)
        y = feed_forward(y, padded, self.norm.eps)
        scale = None if self.gamma is None else self.gamma.view(1, -1, 1, 1)
        if self.training and not isinstance(self.drop_path, nn.Identity):
            # Drop path multiplies samples by numbers, which are merged with the layer scale.
            kept = self.drop_path(x.new_ones(x.shape[0], 1, 1, 1))
            scale = kept if scale is None else kept * scale
        return add_scaled(x, y, scale)

    def _keeps_padded(self, y: Tensor) -> bool:
        """Return whether to keep the padded parameters, as merged networks do in inference."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        # On a CPU a second copy of the weights costs more memory than it saves time.
        worth = self.aligned is True or y.device.type != 'cpu'
        return worth and self.mixing.deploy and not self.training

    def leave_out_zero_units(self, leave_out: bool = True) -> None:
        """Leave hidden units whose weights are all zero out of the products in training mode.

        Outputs and gradients stay the same, because those of such units are zero. Call this again
        whenever the masks have changed.

        Args:
            leave_out (bool): False computes all units.
        """
        self.active_units = None
        if leave_out:
            zero = zero_units(self.pwconv1, self.pwconv2)
            if zero.any() and not zero.all():
                self.active_units = (~zero).nonzero().flatten()

    def switch_to_deploy(self) -> None:
        """Merge the block for inference, in place; see :meth:`SLaK.switch_to_deploy`."""
        if self.mixing.deploy:
            return
        self.mixing.switch_to_deploy()
        first, second = fold_scales(self.norm, self.pwconv1, self.pwconv2, self.gamma)
        self.pwconv1, self.pwconv2 = remove_constant_units(first, second)
        self.norm = nn.LayerNorm(
            self.norm.normalized_shape, eps=self.norm.eps, elementwise_affine=False
        )
        self.gamma = self.active_units = None
        self.train(self.training)

    def resize(self, hidden: int) -> None:
        """Give the block another number of hidden units, with uninitialised weights.

        Args:
            hidden (int): Number of hidden units H.
        """
        channels, like = self.pwconv1.in_features, self.pwconv1.weight
        options = dict(device=like.device, dtype=like.dtype)
        self.pwconv1 = nn.utils.skip_init(nn.Linear, channels, hidden, **options)
        self.pwconv2 = nn.utils.skip_init(nn.Linear, hidden, channels, **options)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        self.resize_for(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def resize_for(self, state_dict: Mapping[str, Tensor], prefix: str) -> None:
        """Give a merged block the number of hidden units that a checkpoint has.

        Args:
            state_dict (Mapping[str, Tensor]): Weights by name.
            prefix (str): Prefix of the block's weights, such as ``backbone.stages.0.0.``.
        """
        weight = state_dict.get(f'{prefix}pwconv1.weight')
        hidden = self.pwconv1.out_features if weight is None else weight.shape[0]
        if self.mixing.deploy and hidden != self.pwconv1.out_features:
            self.resize(hidden)

    def train(self, mode: bool = True) -> 'SLaKBlock':
        """Switch to training or evaluation mode."""
        self._padded.clear()
        return super().train(mode)

    def _apply(self, *args, **kwargs) -> 'SLaKBlock':
        # The module is moved or cast.
        self._padded.clear()
        return super()._apply(*args, **kwargs)


@register
class SLaK(BaseModule):
    """Sparse Large Kernel Network (paper, section 4.1), as a backbone for every toolbox.

    For dense prediction it returns one feature map for each entry of ``out_indices``, of strides
    4, 8, 16 and 32, each after a LayerNorm of its own. As a classifier
    (``gap_before_final_norm=True, out_indices=(3,)``) it returns the pooled and normalised
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
        drop_path_rate (float): Drop path rate of the last block; the rate grows linearly from 0
            at the first block.
        layer_scale_init_value (float): Initial layer scale; 0 builds blocks without layer scale.
        out_indices (Sequence[int] or int): Stages to return, 0 to 3, or -1 for the last.
        frozen_stages (int): Number of stages to freeze, counted from the input, each with the
            downsampling before it; 0 or -1 for none.
        norm_eval (bool): Keep batch norms in evaluation mode during training.
        with_cp (bool): Activation checkpointing in every block.
        norm_cfg (dict, optional): Norm of the branches in the blocks. Default: batch norm.
        gap_before_final_norm (bool): Pool each output over space before its norm.
        deploy (bool): Build the merged network, as after :meth:`switch_to_deploy`, to load
            checkpoints that were merged for inference.
        aligned (bool or str): Whether the linear layers of the blocks are computed on widths
            padded with zeros to what the hardware likes. Parameters and results stay the same, up
            to rounding. ``auto`` pads where it is faster; ``True`` pads every width that is not
            aligned, and a merged network keeps a padded copy of its weights, as on GPUs;
            ``False`` never pads.
        init_cfg (dict or list, optional): MMEngine's initialisation. Default: truncated
            normal with std 0.02 for convolutions and linear layers, biases 0.
            ``dict(type='Pretrained', checkpoint=FILE)`` takes checkpoints of this package and of
            the authors of SLaK and ConvNeXt, also by name (``slak://slak_tiny_300e_in1k``).

    Attributes:
        arguments (dict): The arguments except ``init_cfg``, for :meth:`save_pretrained`.

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
        aligned: bool | str = 'auto',
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg=resolve_init_cfg(init_cfg))
        self.depths, self.widths = resolve_arch(arch, width_factor)
        stages = len(self.depths)
        self.kernel_sizes = as_tuple('kernel_sizes', kernel_sizes, stages)
        for kernel_size in self.kernel_sizes:
            check_kernels(kernel_size, small_kernel, mode)
        check_scalars(stages, in_channels, drop_path_rate, layer_scale_init_value, frozen_stages)
        self.out_indices = resolve_out_indices(out_indices, stages)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.gap_before_final_norm = gap_before_final_norm
        self.arguments = dict(
            arch=arch if isinstance(arch, str) else {k: tuple(v) for k, v in arch.items()},
            kernel_sizes=self.kernel_sizes,
            small_kernel=small_kernel,
            width_factor=width_factor,
            mode=mode,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=layer_scale_init_value,
            out_indices=self.out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            norm_cfg=norm_cfg,
            gap_before_final_norm=gap_before_final_norm,
            deploy=deploy,
            aligned=aligned,
        )

        block = dict(
            small_kernel=small_kernel,
            mode=mode,
            layer_scale_init_value=layer_scale_init_value,
            norm_cfg=norm_cfg,
            with_cp=with_cp,
            deploy=deploy,
            aligned=aligned,
        )
        blocks = sum(self.depths)
        rates = [drop_path_rate * i / max(1, blocks - 1) for i in range(blocks)]
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        for i in range(stages):
            previous = self.widths[i - 1] if i else in_channels
            self.downsample_layers.append(self._make_downsample(i, previous))
            first = sum(self.depths[:i])
            self.stages.append(self._make_stage(i, rates[first : first + self.depths[i]], **block))
        for i in self.out_indices:
            norm = nn.LayerNorm if gap_before_final_norm else ChannelLayerNorm
            self.add_module(f'norm{i}', norm(self.widths[i], eps=1e-6))
        self._freeze()

    def _make_downsample(self, i: int, in_channels: int) -> nn.Sequential:
        """Make the stem (i = 0) or the downsampling before stage i, as in ConvNeXt (paper, 4.1)."""
        width = self.widths[i]
        if i == 0:
            conv = nn.Conv2d(in_channels, width, kernel_size=4, stride=4)
            return nn.Sequential(conv, ChannelLayerNorm(width, eps=1e-6))
        conv = nn.Conv2d(in_channels, width, kernel_size=2, stride=2)
        return nn.Sequential(ChannelLayerNorm(in_channels, eps=1e-6), conv)

    def _make_stage(self, i: int, drop_path_rates: Sequence[float], **block) -> nn.Sequential:
        """Make stage i, one block for each drop path rate."""
        return nn.Sequential(
            *(
                SLaKBlock(self.widths[i], self.kernel_sizes[i], drop_path_rate=rate, **block)
                for rate in drop_path_rates
            )
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs of the stages in ``out_indices``.

        Args:
            x (Tensor): Images of shape (N, C, H, W), H and W at least 32.

        Returns:
            tuple[Tensor]: Feature maps of shape (N, width, H // stride, W // stride), or vectors
            of shape (N, width) with ``gap_before_final_norm``.

        Raises:
            ValueError: If ``x`` has another number of dimensions, or if the images are smaller
                than 32 x 32.
        """
        outs = []
        for i, feature in enumerate(self.forward_stages(x, self.out_indices[-1] + 1)):
            if i in self.out_indices:
                if self.gap_before_final_norm:
                    feature = feature.mean((-2, -1))
                # The norm returns channels-last memory. MMCV's RoIAlign ignores strides and would
                # read the feature map wrongly.
                outs.append(getattr(self, f'norm{i}')(feature).contiguous())
        return tuple(outs)

    def forward_stages(self, x: Tensor, count: int) -> list[Tensor]:
        """Compute the feature maps of the first stages, without the norms of the outputs.

        Args:
            x (Tensor): Images of shape (N, C, H, W), H and W at least 32.
            count (int): Number of stages.

        Returns:
            list[Tensor]: Feature maps of shape (N, width, H // stride, W // stride), one for each.

        Raises:
            ValueError: As :meth:`forward`.
        """
        check_images(x)
        features = []
        for i in range(count):
            x = self.stages[i](self.downsample_layers[i](x))
            features.append(x)
        return features

    @property
    def fuse_in_eval(self) -> bool:
        """Whether all blocks fuse their branches in evaluation, see :class:`SpatialMixing`."""
        return all(mixing.fuse_in_eval for mixing in self._mixings())

    @fuse_in_eval.setter
    def fuse_in_eval(self, fuse: bool) -> None:
        for mixing in self._mixings():
            mixing.fuse_in_eval = fuse

    def switch_to_deploy(self) -> 'SLaK':
        """Merge the branches of every block for inference, in place.

        Batch norms and small kernels are folded into the large kernels. A decomposed block keeps
        two convolutions and one bias (paper, section 4), a block of another mode one convolution
        and one bias. The affine part of the LayerNorm and the layer scale are folded into the
        linear layers. Hidden units that are masked are removed. The outputs in evaluation mode stay
        the same up to rounding. The merged network should not be trained further. Its checkpoint
        loads into ``SLaK(..., deploy=True)``, which takes the numbers of hidden units from it.

        Returns:
            SLaK: The network itself.

        Raises:
            ValueError: If the branches have norms other than batch norms.
        """
        for block in self._blocks():
            block.switch_to_deploy()
        self.arguments['deploy'] = True
        return self

    @classmethod
    def from_pretrained(cls, name: str | Path, **arguments) -> 'SLaK':
        """Build a backbone with the arguments and weights of a saved or published one.

        Norms of outputs that the weights lack, as those of a classifier for the first three stages,
        are initialised randomly.

        Args:
            name (str or Path): A directory of :meth:`save_pretrained`; a checkpoint; the name of
                weights that the authors published, such as ``slak_tiny_300e_in1k``, or of a model
                in the package; or ``OWNER/NAME`` of a directory of :meth:`save_pretrained` on the
                Hugging Face hub.
            **arguments: Arguments of :class:`SLaK` to change, such as ``drop_path_rate``.

        Returns:
            SLaK: In training mode, as PyTorch builds modules. Its ``init_cfg`` names the weights,
            so that :class:`mmslak.engine.DynamicSparsityHook` finds the masks.

        Raises:
            FileNotFoundError: If there is nothing of this name, or if it cannot be downloaded.
            ImportError: If a download is needed and its library is not installed.
            CheckpointError: If a file is damaged, has changed or does not fit the arguments.
        """
        return pretrained_function('load_pretrained')(cls, name, arguments)

    def save_pretrained(self, folder: str | Path, masks: object | None = None) -> None:
        """Write weights and masks (safetensors), arguments (JSON) and a model card (Markdown).

        Args:
            folder (str or Path): Directory to write into. It is created if it is missing.
            masks (SparseMasks or Mapping, optional): The masks, or their saved state, such as
                ``dynamic_sparsity`` of a checkpoint. Default: weights that are zero are masked.

        Raises:
            ValueError: If the directory contains one of the files, or if masks or arguments cannot
                be saved.
        """
        pretrained_function('save_pretrained')(self, folder, masks)

    def __prepare_scriptable__(self):
        raise ValueError(
            'SLaK cannot be compiled by torch.jit.script because it chooses the implementation of '
            'its convolutions in Python; use torch.export or torch.compile'
        )

    def leave_out_zero_units(self, leave_out: bool = True) -> None:
        """Call :meth:`SLaKBlock.leave_out_zero_units` of every block."""
        for block in self._blocks():
            block.leave_out_zero_units(leave_out)

    def _blocks(self) -> list[SLaKBlock]:
        return [block for stage in self.stages for block in stage]

    def _mixings(self) -> list[SpatialMixing]:
        return [block.mixing for block in self._blocks()]

    def train(self, mode: bool = True) -> 'SLaK':
        """Switch to training mode, except frozen stages and, with ``norm_eval``, batch norms."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        for i in range(self.frozen_stages):
            for module in (self.downsample_layers[i], self.stages[i]):
                module.eval().requires_grad_(False)

    def get_layer_depth(
        self, param_name: str, prefix: str = '', decay_type: str = 'layer_wise'
    ) -> tuple[int, int]:
        """Return the learning-rate group of a parameter, as MMPretrain's backbones do.

        :func:`mmslak.models.layer_depth.layer_depth` has the table of the groups.

        Args:
            param_name (str): Name of the parameter in the whole model.
            prefix (str): Prefix of the names of the backbone, such as ``backbone.``.
            decay_type (str): ``layer_wise`` or ``stage_wise``.

        Returns:
            tuple[int, int]: The group, counted from 0, and the number of groups.

        Raises:
            ValueError: If ``decay_type`` is unknown.
        """
        return layer_depth(param_name, prefix, last_stage_group(self.depths[2]), decay_type)
