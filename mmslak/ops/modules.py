"""A module for depth-wise convolutions with large kernels."""

import torch
from torch import Tensor, nn

from .depthwise import depthwise_conv2d, resolve


class LargeKernelConv2d(nn.Conv2d):
    """``nn.Conv2d`` for depth-wise convolutions with large kernels, with the same state dict.

    Args:
        in_channels (int): Channels C of the input.
        out_channels (int): Equal to ``in_channels``.
        kernel_size (int or tuple[int, int]): Height and width of the kernel, odd.
        stride, padding, dilation, groups, bias, padding_mode: As for ``nn.Conv2d``. Only
            depth-wise convolutions with stride 1 and "same" zero padding are allowed, with any
            dilation; these are the defaults of ``padding`` and ``groups``.
        implementation (str): One of :data:`mmslak.ops.IMPLEMENTATIONS`.
        device (torch.device or str, optional): Device of the parameters.
        dtype (torch.dtype, optional): Dtype of the parameters.

    Raises:
        ValueError: For a convolution that is not supported, or an unknown implementation.
    """

    #: Default for a module that was created as ``nn.Conv2d``.
    implementation = 'auto'

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | str | tuple[int, int] = 'same',
        dilation: int | tuple[int, int] = 1,
        groups: int | None = None,
        bias: bool = True,
        padding_mode: str = 'zeros',
        implementation: str = 'auto',
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation,
            in_channels if groups is None else groups, bias, padding_mode, device, dtype,
        )  # fmt: skip
        reason = unsuitable(self)
        if reason:
            raise ValueError(f'LargeKernelConv2d does not support this convolution: {reason}')
        resolve(implementation)
        self.implementation = implementation

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``input`` of shape (N, C, H, W) or (C, H, W); the shape stays the same.

        Raises:
            ValueError: If ``input`` has another shape.
        """
        x = input  # The argument has the name that nn.Conv2d gives it.
        if x.dim() not in (3, 4) or x.shape[-3] != self.in_channels:
            raise ValueError(
                f'input must have shape (N, {self.in_channels}, H, W) or '
                f'({self.in_channels}, H, W), got {tuple(x.shape)}'
            )
        batch = x if x.dim() == 4 else x.unsqueeze(0)
        out = depthwise_conv2d(batch, self.weight, self.bias, self.implementation, self.dilation)
        return out if x.dim() == 4 else out.squeeze(0)

    def extra_repr(self) -> str:
        """Add the implementation."""
        return f'{super().extra_repr()}, implementation={self.implementation!r}'


def unsuitable(conv: nn.Conv2d) -> str:
    """Return why :func:`depthwise_conv2d` cannot compute a convolution, empty if it can."""
    same = tuple(k // 2 * step for k, step in zip(conv.kernel_size, conv.dilation, strict=True))
    if not conv.groups == conv.in_channels == conv.out_channels:
        return (
            f'not depth-wise ({conv.in_channels} input channels, {conv.out_channels} output '
            f'channels, {conv.groups} groups)'
        )
    if any(size % 2 == 0 for size in conv.kernel_size):
        return f'even kernel size {conv.kernel_size}'
    if tuple(conv.stride) != (1, 1):
        return f'stride {conv.stride} instead of 1'
    if conv.padding != 'same' and tuple(conv.padding) != same:
        return f'padding {conv.padding} instead of "same" padding {same}'
    if conv.padding_mode != 'zeros':
        return f"padding_mode {conv.padding_mode!r} instead of 'zeros'"
    return ''
