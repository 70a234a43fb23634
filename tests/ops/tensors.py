"""Tensors in several memory layouts, and the accuracy that results must have."""

import torch

LAYOUTS = (
    'contiguous',
    'channels_last',
    'sliced',
    'strided',
    'strided_channels_last',
    'transposed',
    'expanded',
)
#: Allowed error relative to the largest value of the result.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}


def arrange(values, layout):
    """Copy a tensor of shape (N, C, H, W) into a memory layout, with NaN between the values.

    ``expanded`` repeats the values of the first channel and the first column.
    """
    n, c, h, w = values.shape

    def undefined(*shape):
        return values.new_full(shape, torch.nan)

    if layout == 'contiguous':
        return values
    if layout == 'channels_last':
        return values.contiguous(memory_format=torch.channels_last)
    if layout == 'expanded':
        return values[:, :1, :, :1].expand(values.shape)
    if layout == 'sliced':
        # 16 elements before and after each row, so that rows have aligned offsets.
        view = undefined(n + 1, c + 1, h + 2, 2 * w + 32)[1:, :c, 1 : h + 1, 16 : 16 + w]
    elif layout == 'strided':
        view = undefined(n, 2 * c, 2 * h, 3 * w)[:, ::2, 1::2, 2::3]
    elif layout == 'strided_channels_last':
        view = undefined(n, h, w, 2 * c)[..., ::2].permute(0, 3, 1, 2)
    else:
        assert layout == 'transposed'
        view = undefined(n, c, w, h).transpose(2, 3)
    return view.copy_(values)


def assert_accurate(value, expected, dtype):
    """Compare a result in ``dtype`` with the reference in float64."""
    assert value.dtype == dtype
    assert value.shape == expected.shape
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(
        value.double(), expected, rtol=0, atol=TOLERANCE[dtype] * scale * 4, check_stride=False
    )
