"""Spatial mixing with very large depth-wise kernels."""

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

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

    Args:
        channels (int): Channels C of input and output.
        kernel_size (int): M, odd.
        small_kernel (int): N, odd and at most M; not used by ``naive``.
        mode (str): ``decomposed``, ``reparam`` or ``naive``.
        norm_cfg (dict): Norm after each branch, for maps of shape (N, C, H, W).

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
    ):
        super().__init__()
        check_kernels(kernel_size, small_kernel, mode)
        norm_cfg = norm_cfg or dict(type='BN')
        kernels = BRANCHES[mode](kernel_size, small_kernel)
        for name, kernel in kernels.items():
            branch = nn.Sequential()
            alone = len(kernels) == 1
            branch.add_module('conv', _depthwise_conv(channels, kernel, bias=alone))
            if not alone:
                branch.add_module('norm', build_norm_layer(norm_cfg, channels)[1])
            self.add_module(name, branch)
        self.mode = mode
        self.branch_names = tuple(kernels)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``x`` of shape (N, C, H, W) over space; the shape stays."""
        out = 0
        for name in self.branch_names:
            out = out + getattr(self, name)(x)
        return out


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


def _depthwise_conv(channels: int, kernel: tuple[int, int], bias: bool) -> nn.Conv2d:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels, bias=bias)
