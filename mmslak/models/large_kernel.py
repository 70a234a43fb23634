"""Spatial mixing with very large depth-wise kernels."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..ops import LargeKernelConv2d, decomposed_conv2d, depthwise_conv2d
from ..ops.branch_norms import has_hooks, sum_of_batch_norms
from ..ops.depthwise import add_centred
from ..ops.layout import prefers_planar, to_channels_last, to_planar
from .arguments import check_kernels
from .base import build_norm

#: mode -> kernels (height, width) of the parallel branches, for large kernel M and small kernel N.
#: A single branch is a convolution with a bias, as in ConvNeXt. If several branches are summed,
#: each has its own norm and no bias.
BRANCHES = {
    'decomposed': lambda m, n: {'tall': (m, n), 'wide': (n, m), 'small': (n, n)},
    'reparam': lambda m, n: {'large': (m, m), 'small': (n, n)},
    'naive': lambda m, n: {'large': (m, m)},
}


class SpatialMixing(nn.Module):
    """Depth-wise convolution with a large receptive field, as a sum of parallel branches.

    ``decomposed`` is the sum of M x N, N x M and N x N convolutions (paper, section 4, figure 1).
    ``reparam`` is the sum of M x M and N x N convolutions (the RepLKNet recipe). In both, each
    convolution is followed by its own norm. ``naive`` is one M x M convolution with a bias, as in
    ConvNeXt's block.

    In evaluation mode a batch norm is a fixed scale and shift. If ``fuse_in_eval`` is True, as by
    default, the norms are then folded into the kernels and the small kernel is added to a large
    one. This computes the same function in fewer passes over the feature map. Fused branches are
    not called, so forward hooks on them do not run; set ``fuse_in_eval`` to False if they should.

    Args:
        channels (int): Channels C of input and output.
        kernel_size (int): M, odd.
        small_kernel (int): N, odd and at most M; not used by ``naive``.
        mode (str): ``decomposed``, ``reparam`` or ``naive``.
        norm_cfg (dict, optional): Norm after each branch, for feature maps of shape (N, C, H, W).
            Default: batch norm.
        deploy (bool): Build the merged convolutions of :meth:`switch_to_deploy`: no norms, no small
            kernel, one bias.

    Attributes:
        deploy (bool): Whether the branches are merged.
        fuse_in_eval (bool): Whether to fuse the branches in evaluation mode, if all norms are batch
            norms with running statistics. It can be read and set at any time.

    Raises:
        ValueError: For an unknown mode, an even or non-positive kernel size, or a large kernel
            smaller than the small one.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        small_kernel: int = 5,
        mode: str = 'decomposed',
        norm_cfg: dict | None = None,
        deploy: bool = False,
    ):
        super().__init__()
        check_kernels(kernel_size, small_kernel, mode)
        kernels = BRANCHES[mode](kernel_size, small_kernel)
        alone = len(kernels) == 1
        if deploy and not alone:
            del kernels['small']
        for i, (name, kernel) in enumerate(kernels.items()):
            branch = nn.Sequential()
            bias = alone or (deploy and i == 0)
            branch.add_module('conv', LargeKernelConv2d(channels, channels, kernel, bias=bias))
            if not alone and not deploy:
                branch.add_module('norm', build_norm(norm_cfg, channels))
            self.add_module(name, branch)
        self.mode, self.deploy = mode, deploy
        self.branch_names = tuple(kernels)
        self.fuse_in_eval = True

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``x`` of shape (N, C, H, W) over space; the shape stays the same."""
        implementation = getattr(self, self.branch_names[0]).conv.implementation
        if prefers_planar(x, implementation):
            return to_channels_last(self._mix(to_planar(x)))
        return self._mix(x)

    def _mix(self, x: Tensor) -> Tensor:
        if self.fuse_in_eval and self._can_fuse():
            kernels, bias = self._merge()
            if len(kernels) == 2:
                implementation = self.tall.conv.implementation
                return decomposed_conv2d(x, **kernels, bias=bias, implementation=implementation)
            return depthwise_conv2d(x, kernels['large'], bias, self.large.conv.implementation)
        branches = [getattr(self, name) for name in self.branch_names]
        if all(map(_is_conv_and_norm, branches)):
            features = [branch.conv(x) for branch in branches]
            return sum_of_batch_norms(features, [branch.norm for branch in branches])
        return sum(branch(x) for branch in branches)

    def switch_to_deploy(self) -> None:
        """Replace the branches by merged convolutions, in place.

        The norms and the small kernel are folded into the large kernels. The output in evaluation
        mode stays the same up to rounding.

        Raises:
            ValueError: If a norm cannot be folded because it is not a batch norm with running
                statistics.
        """
        for name in self.branch_names:
            norm = self._norm(name)
            if norm is not None and not _folds(norm):
                raise ValueError(
                    'norm_cfg must be a batch norm with running statistics to be merged into '
                    f'the kernels, got {type(norm).__name__}'
                )
        with torch.no_grad():
            kernels, bias = self._merge()
        for name, kernel in kernels.items():
            branch = nn.Sequential()
            conv = getattr(self, name).conv
            merged = LargeKernelConv2d(
                conv.in_channels, conv.out_channels, conv.kernel_size,
                bias=bias is not None, implementation=conv.implementation,
                device=kernel.device, dtype=kernel.dtype,
            )  # fmt: skip
            merged.weight.data.copy_(kernel)
            if bias is not None:
                merged.bias.data.copy_(bias)
            branch.add_module('conv', merged.train(self.training))
            bias = None
            setattr(self, name, branch)
        for name in set(self.branch_names) - set(kernels):
            delattr(self, name)
        self.branch_names, self.deploy = tuple(kernels), True

    def _can_fuse(self) -> bool:
        """Return whether every norm is a batch norm that only scales and shifts its input."""
        if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
            # torch.onnx.export(dynamo=False) needs constant kernels, and folds the norms itself.
            return False
        norms = map(self._norm, self.branch_names)
        return all(norm is None or (_folds(norm) and not norm.training) for norm in norms)

    def _merge(self) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return the kernels and the bias of one or two convolutions that equal the branches."""
        kernels, bias = {}, None
        for name in self.branch_names:
            kernels[name], shift = _folded(getattr(self, name).conv, self._norm(name))
            if shift is not None:
                bias = shift if bias is None else bias + shift
        if 'small' in kernels:
            small, large = kernels.pop('small'), next(iter(kernels))
            kernels[large] = add_centred(kernels[large], small)
        return kernels, bias

    def _norm(self, name: str) -> nn.Module | None:
        """Return the norm of a branch, if it has one."""
        return getattr(getattr(self, name), 'norm', None)


def _is_conv_and_norm(branch: nn.Module) -> bool:
    """Return whether a branch consists of these two modules, and need not be called itself."""
    return (
        type(branch) is nn.Sequential
        and list(branch._modules) == ['conv', 'norm']
        and not has_hooks(branch)
    )


def _folds(norm: nn.Module) -> bool:
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None


def _folded(conv: nn.Conv2d, norm: _BatchNorm | None) -> tuple[Tensor, Tensor | None]:
    """Return the kernel and the bias of a convolution with its batch norm folded into them."""
    if norm is None:
        return conv.weight, conv.bias
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.affine:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.affine:
        shift = shift + norm.bias
    return conv.weight * scale.view(-1, 1, 1, 1), shift


@contextmanager
def branches_kept_apart(model: nn.Module) -> Iterator[None]:
    """Set ``fuse_in_eval`` to False inside the context, and restore it afterwards.

    Args:
        model (nn.Module): Any model; the flag of every :class:`SpatialMixing` in it is set.
    """
    mixings = [module for module in model.modules() if isinstance(module, SpatialMixing)]
    flags = [mixing.fuse_in_eval for mixing in mixings]
    for mixing in mixings:
        mixing.fuse_in_eval = False
    try:
        yield
    finally:
        for mixing, flag in zip(mixings, flags, strict=True):
            mixing.fuse_in_eval = flag
