"""Spatial mixing with very large depth-wise kernels."""

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..ops import LargeKernelConv2d, decomposed_conv2d, depthwise_conv2d
from ..ops.depthwise import add_centred

# mode -> the kernels (height, width) of its parallel branches, for kernel size M and the
# small kernel N. Where a branch stands alone it is a plain convolution with a bias, as in
# ConvNeXt; where several are summed, each has a norm of its own and no bias.
BRANCHES = {
    'decomposed': lambda m, n: {'tall': (m, n), 'wide': (n, m), 'small': (n, n)},
    'reparam': lambda m, n: {'large': (m, m), 'small': (n, n)},
    'naive': lambda m, n: {'large': (m, m)},
}
MODES = tuple(BRANCHES)


class SpatialMixing(nn.Module):
    """Depth-wise convolution of a large receptive field, as a sum of parallel branches.

    ``decomposed`` is the sum of M x N, N x M and N x N kernels (paper, section 4, figure 1),
    ``reparam`` that of M x M and N x N (the RepLKNet recipe), each followed by its own norm;
    ``naive`` is one M x M kernel with a bias (ConvNeXt's block, enlarged).

    A batch norm that is not training only scales and shifts. Where all of them do, they are
    folded into the kernels before these are applied, and the small kernel is added to a large
    one: the same function, in fewer passes over the maps. Branches that somebody hooks into are
    run one by one, so that the hooks see what they expect.

    Args:
        channels (int): Channels C of input and output.
        kernel_size (int): M, odd.
        small_kernel (int): N, odd and at most M; not used by ``naive``.
        mode (str): ``decomposed``, ``reparam`` or ``naive``.
        norm_cfg (dict): Norm after each branch, for maps of shape (N, C, H, W).
        deploy (bool): Build what :meth:`switch_to_deploy` leaves: no norms, no small kernel,
            one bias.

    Raises:
        ValueError: For an unknown mode, an even or non-positive kernel, or a kernel smaller
            than the small one.
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
        norm_cfg = norm_cfg or dict(type='BN')
        kernels = BRANCHES[mode](kernel_size, small_kernel)
        alone = len(kernels) == 1
        if deploy and not alone:
            del kernels['small']
        for i, (name, kernel) in enumerate(kernels.items()):
            branch = nn.Sequential()
            bias = alone or (deploy and i == 0)
            branch.add_module('conv', LargeKernelConv2d(channels, channels, kernel, bias=bias))
            if not alone and not deploy:
                branch.add_module('norm', build_norm_layer(norm_cfg, channels)[1])
            self.add_module(name, branch)
        self.mode = mode
        self.branch_names = tuple(kernels)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``x`` of shape (N, C, H, W) over space; the shape stays."""
        if self._is_linear() and not self._is_hooked():
            kernels, bias = self._merge()
            if len(kernels) == 2:
                implementation = self.tall.conv.implementation
                return decomposed_conv2d(x, **kernels, bias=bias, implementation=implementation)
            return depthwise_conv2d(x, kernels['large'], bias, self.large.conv.implementation)
        out = 0
        for name in self.branch_names:
            out = out + getattr(self, name)(x)
        return out

    def switch_to_deploy(self) -> None:
        """Fold the norms and the small kernel into the large kernels, for good.

        The function computed in evaluation mode stays the same.

        Raises:
            ValueError: If a norm is no batch norm with running statistics, which alone can be
                folded.
        """
        for name in self.branch_names:
            norm = getattr(getattr(self, name), 'norm', None)
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
        self.branch_names = tuple(kernels)

    def _is_linear(self) -> bool:
        """Whether every branch only multiplies and adds constants."""
        norms = (getattr(getattr(self, name), 'norm', None) for name in self.branch_names)
        return all(norm is None or (_folds(norm) and not norm.training) for norm in norms)

    def _is_hooked(self) -> bool:
        branches = (getattr(self, name) for name in self.branch_names)
        return any(
            module._forward_hooks or module._forward_pre_hooks
            for branch in branches
            for module in (branch, *branch.children())
        )

    def _merge(self) -> tuple[dict[str, Tensor], Tensor | None]:
        """Kernels of one or two convolutions, and a bias, that compute what all branches do."""
        kernels, bias = {}, None
        for name in self.branch_names:
            branch = getattr(self, name)
            kernel, shift, norm = (
                branch.conv.weight,
                branch.conv.bias,
                getattr(branch, 'norm', None),
            )
            if norm is not None:
                scale = torch.rsqrt(norm.running_var + norm.eps)
                if norm.affine:
                    scale = scale * norm.weight
                shift = -norm.running_mean * scale
                if norm.affine:
                    shift = shift + norm.bias
                kernel = kernel * scale.view(-1, 1, 1, 1)
            kernels[name] = kernel
            if shift is not None:
                bias = shift if bias is None else bias + shift
        if 'small' in kernels:
            small, large = kernels.pop('small'), next(iter(kernels))
            kernels[large] = add_centred(kernels[large], small)
        return kernels, bias


def _folds(norm: nn.Module) -> bool:
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None


def check_kernels(kernel_size: int, small_kernel: int, mode: str) -> None:
    """Raise a ValueError naming the argument unless the three describe a block."""
    if mode not in BRANCHES:
        raise ValueError(f'mode must be one of {", ".join(map(repr, MODES))}, got {mode!r}')
    for argument, size in (('kernel_sizes', kernel_size), ('small_kernel', small_kernel)):
        if not isinstance(size, int) or isinstance(size, bool) or size < 1 or size % 2 == 0:
            raise ValueError(
                f'{argument} must be odd positive integers ("same" padding), got {size!r}'
            )
    if mode != 'naive' and kernel_size < small_kernel:
        raise ValueError(
            f'kernel_sizes must be at least small_kernel={small_kernel} in mode {mode!r}, '
            f'got {kernel_size}'
        )
