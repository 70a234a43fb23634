"""Depth-wise convolution with large kernels on a GPU, as blocked Toeplitz products in Triton.

A map is seen as *lines* along the longer side of the kernel: rows for a wide kernel, columns for
a tall one (the strides are swapped, the code is the same). Along a line, the convolution with
one line of weights is the product with a banded Toeplitz matrix,

    out[r, p] = sum over q of x[r, q] T[q, p],    T[q, p] = weight[q - p + length // 2],

so that many lines times a block of the band is a matrix product for the tensor cores; the short
side of the kernel is a sum of such products, each over lines shifted by one. Blocks that the
band does not reach are left out.

The weight gradient multiplies the other way round: for each line of weights, G^T X over all lines
is a block of M[p, q], and the gradient of weight j is the sum of the diagonal
q - p = j - length // 2. It costs as many multiplications as the forward pass and loads each input
once, in long vectors. The alternative, loading X in Toeplitz form so that the product is the
gradient itself, has only as many rows as the kernel has lines (5, padded to 16 or 64) and loads
each input as many times as the kernel is long. Sums over parts of the lines are
written out and added in a fixed order, without atomics: the result is the same in every run.

Importing this module needs Triton. It is tested in Triton's interpreter, on CPU tensors, and
compiled for compute capabilities 8.0 and 9.0; block sizes were chosen by what the compiler
reports (registers, shared memory), not by measured time.
"""

from math import gcd
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
#: Programs that the weight gradient is divided into, if the lines allow: several for each
#: multiprocessor of a large GPU. A constant, so that sums are the same on every GPU.
PROGRAMS = 1024
#: Lines of one image are counted in such multiples where they are neighbours in memory, which
#: lets the compiler see neighbours and load them together.
NEIGHBOURS = 8


class Blocks(NamedTuple):
    """Sizes of one program's block, each a power of two from 16, and how it is run."""

    lines: int  #: lines at a time
    outputs: int  #: outputs along a line (of the weight gradient: positions p)
    inputs: int  #: inputs along a line at a time (positions q)
    warps: int
    stages: int


#: (pass, precision, line, kernel, capability) -> Blocks. Precision is '16' for both 16-bit types,
#: 'tf32' or 'ieee'; line and kernel are buckets, see `_blocks`; capability is (major, minor) or
#: None for any. A row with the capability wins over one without.
TABLE = {
    ('forward', '16', 'short', 'large', None): Blocks(128, 64, 64, 4, 3),
    ('forward', '16', 'long', 'large', None): Blocks(128, 64, 64, 4, 3),
    ('forward', '16', 'short', 'small', None): Blocks(128, 64, 64, 4, 3),
    ('forward', '16', 'long', 'small', None): Blocks(128, 64, 32, 4, 3),
}
#: Where the table has no row.
DEFAULTS = {
    ('forward', '16'): Blocks(128, 64, 64, 4, 3),
    ('forward', 'tf32'): Blocks(64, 64, 32, 4, 2),
    ('forward', 'ieee'): Blocks(64, 32, 32, 4, 2),
    ('weight_gradient', '16'): Blocks(64, 64, 128, 4, 3),
    ('weight_gradient', 'tf32'): Blocks(32, 64, 64, 4, 2),
    ('weight_gradient', 'ieee'): Blocks(32, 32, 64, 4, 2),
}


def available(x: Tensor) -> bool:
    """Say whether the kernels can run on this tensor as it is."""
    if x.dtype not in DTYPES:
        return False
    if isinstance(_forward_kernel, InterpretedFunction):
        return True
    return x.is_cuda and torch.cuda.get_device_capability(x.device) >= (
        (8, 0) if x.dtype == torch.bfloat16 else (7, 0)
    )


def forward(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve each channel with its own kernel, stride 1, zeros outside ("same" padding).

    Args:
        x (Tensor): Of shape (N, C, H, W), float32, float16 or bfloat16, of any strides.
        weight (Tensor): Of shape (C, 1, kh, kw), kh and kw odd, of any strides; used in the
            precision of ``x``.

    Returns:
        Tensor: As ``torch.empty_like(x)``: of its shape, dtype and memory format. Sums are in
        float32. An infinite or undefined input makes outputs of its whole block undefined, not
        only those within the kernel's reach.

    Raises:
        ValueError: If the shapes, dtypes or devices do not fit.
    """
    kernel = tuple(weight.shape[2:])
    _check(x, weight.shape, kernel)
    if weight.device != x.device:
        raise ValueError(f'weight must be on the device of x, {x.device}, got {weight.device}')
    out = torch.empty_like(x)
    if out.numel() == 0:
        return out
    x = _planar(x)
    # The strides below are those of a planar result where the wanted one is not planar.
    planar = out if _is_planar(out) else torch.empty_like(x)

    tall = _is_tall(kernel, x.shape)
    images, channels, lines, length = _sizes(x, tall)
    short, long = kernel if not tall else kernel[::-1]
    # Lines of weights that reach from one line of the map to another.
    first_tap = max(0, short // 2 - (lines - 1))
    last_tap = min(short, short // 2 + lines)

    precision = _precision(x.dtype)
    neighbours = NEIGHBOURS if _strides(x, tall)[2] == 1 else 1
    groups = triton.cdiv(lines, neighbours)
    rows = images * groups * neighbours
    blocks = _blocks('forward', precision, rows, length, long, _capability(x))
    row_blocks = triton.cdiv(rows, blocks.lines)
    output_blocks = triton.cdiv(length, blocks.outputs)
    unit, (x_strides, out_strides), units = _units(
        length, _strides(x, tall), _strides(planar, tall), itemsize=x.element_size()
    )
    _launch(
        _forward_kernel,
        # One dimension: the others end at 65535.
        channels * output_blocks * row_blocks,
        blocks,
        dict(
            x_ptr=x,
            weight_ptr=weight,
            out_ptr=planar,
            rows=rows,
            lines=lines,
            groups=groups,
            units=units,
            row_blocks=row_blocks,
            output_blocks=output_blocks,
            first_tap=first_tap,
            last_tap=last_tap,
            short_half=short // 2,
            long=long,
            **_named('x', x_strides),
            **_named('out', out_strides),
            **_named('weight', _strides(weight, tall)[1:], 'csl'),
            LINES=blocks.lines,
            OUTPUTS=blocks.outputs,
            INPUTS=blocks.inputs,
            NEIGHBOURS=neighbours,
            UNIT=unit,
            PRECISION=_dot_precision(precision),
            UPCAST=_upcast(x.dtype),
        ),
    )
    return planar if planar is out else out.copy_(planar)


def input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the input: the convolution of the output's gradient with the flipped kernel.

    Args:
        grad (Tensor): Gradient of the output, (N, C, H, W).
        weight (Tensor): Of shape (C, 1, kh, kw), as in the forward pass.

    Returns:
        Tensor: As ``torch.empty_like(grad)``.

    Raises:
        ValueError: As `forward`.
    """
    return forward(grad, weight.flip((2, 3)))


def weight_gradient(x: Tensor, grad: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """Gradient of the weights, the same in every run.

    Args:
        x (Tensor): Input of the forward pass, (N, C, H, W), of any strides.
        grad (Tensor): Gradient of the output, of the shape and dtype of ``x``, of any strides.
        kernel_size (tuple[int, int]): Height and width of the kernel, both odd.

    Returns:
        Tensor: Of shape (C, 1, kh, kw), in the dtype of ``x``. Sums are in float32.

    Raises:
        ValueError: If the shapes, dtypes or devices do not fit.
    """
    kernel = tuple(kernel_size)
    _check(x, (x.shape[1] if x.ndim == 4 else 0, 1, *kernel), kernel)
    if (grad.shape, grad.dtype, grad.device) != (x.shape, x.dtype, x.device):
        raise ValueError(
            'grad must have the shape, dtype and device of x, '
            f'{tuple(x.shape)}, {x.dtype}, {x.device}, '
            f'got {tuple(grad.shape)}, {grad.dtype}, {grad.device}'
        )
    if x.numel() == 0:
        return x.new_zeros(x.shape[1], 1, *kernel)
    x, grad = _planar(x), _planar(grad)

    tall = _is_tall(kernel, x.shape)
    images, channels, lines, length = _sizes(x, tall)
    short, long = kernel if not tall else kernel[::-1]
    precision = _precision(x.dtype)
    neighbours = NEIGHBOURS if _strides(x, tall)[2] == 1 else 1
    groups = triton.cdiv(lines, neighbours)
    rows = images * groups * neighbours
    blocks = _blocks('weight_gradient', precision, rows, length, long, _capability(x))
    output_blocks = triton.cdiv(length, blocks.outputs)
    input_blocks = max(
        triton.cdiv(last - first, blocks.inputs)
        for first, last in (
            _reach(p, blocks.outputs, long // 2, length)
            for p in range(0, length, blocks.outputs)
        )
    )
    # Enough programs to fill a GPU, by dividing the lines where there are too few.
    parts = triton.cdiv(PROGRAMS, channels * short * output_blocks * input_blocks)
    part_rows = triton.cdiv(triton.cdiv(rows, parts), blocks.lines) * blocks.lines
    parts = triton.cdiv(rows, part_rows)
    pieces = parts * output_blocks * input_blocks
    sums = x.new_empty((channels, pieces, short, long), dtype=torch.float32)
    unit, (x_strides, grad_strides), units = _units(
        length, _strides(x, tall), _strides(grad, tall), itemsize=x.element_size()
    )
    _launch(
        _weight_gradient_kernel,
        channels * pieces * short,
        blocks,
        dict(
            x_ptr=x,
            grad_ptr=grad,
            sums_ptr=sums,
            rows=rows,
            part_rows=part_rows,
            lines=lines,
            groups=groups,
            units=units,
            output_blocks=output_blocks,
            input_blocks=input_blocks,
            short=short,
            long=long,
            **_named('x', x_strides),
            **_named('grad', grad_strides),
            LINES=blocks.lines,
            OUTPUTS=blocks.outputs,
            INPUTS=blocks.inputs,
            WEIGHTS=min(64, max(16, triton.next_power_of_2(long))),
            NEIGHBOURS=neighbours,
            UNIT=unit,
            PRECISION=_dot_precision(precision),
            UPCAST=_upcast(x.dtype),
        ),
    )
    total = sums.sum(1)
    if tall:
        total = total.transpose(1, 2)
    return total.to(x.dtype).unsqueeze(1).contiguous()


def _check(x: Tensor, weight_shape: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    if x.ndim != 4:
        raise ValueError(f'x must be of shape (N, C, H, W), got {tuple(x.shape)}')
    if x.dtype not in DTYPES:
        raise ValueError(f'x must be one of {", ".join(map(str, DTYPES))}, got {x.dtype}')
    if len(weight_shape) != 4 or tuple(weight_shape[:2]) != (x.shape[1], 1):
        raise ValueError(
            f'weight must be of shape ({x.shape[1]}, 1, kh, kw) for the {x.shape[1]} channels '
            f'of x, got {tuple(weight_shape)}'
        )
    if len(kernel) != 2 or any(size < 1 or size % 2 == 0 for size in kernel):
        raise ValueError(f'both sizes of the kernel must be odd, got {kernel}')


def _is_tall(kernel: tuple[int, int], shape: torch.Size) -> bool:
    """Say whether lines are columns; of a kernel, only what fits a map counts."""
    height, width = (min(k, 2 * size - 1) for k, size in zip(kernel, shape[2:], strict=True))
    return height > width


def _is_planar(x: Tensor) -> bool:
    return x.stride(1) != 1 or x.is_contiguous()


def _planar(x: Tensor) -> Tensor:
    """``x``, or a copy if its channels are neighbours in memory.

    A program works on one channel. Every load would fetch 32 bytes of neighbouring channels
    for the 2 or 4 it wants, in each line of weights; a copy does so once.
    """
    return x if _is_planar(x) else x.contiguous()


def _sizes(x: Tensor, tall: bool) -> tuple[int, int, int, int]:
    n, c, h, w = x.shape
    return (n, c, w, h) if tall else (n, c, h, w)


def _strides(x: Tensor, tall: bool) -> tuple[int, int, int, int]:
    """Strides of images, channels, lines, and positions along a line."""
    n, c, h, w = x.stride()
    return (n, c, w, h) if tall else (n, c, h, w)


def _named(prefix: str, strides: tuple[int, ...], axes: str = 'ncsl') -> dict[str, int]:
    return {f'{prefix}_{axis}': stride for axis, stride in zip(axes, strides, strict=True)}


def _units(
    length: int, *strides: tuple[int, ...], itemsize: int
) -> tuple[int, list[tuple[int, ...]], int]:
    """Express line length and strides in the largest unit that divides them, up to 16 bytes.

    The compiler knows of an argument only whether it is divisible by 16; multiplied by a
    constant it is seen to allow vectors of this many elements (8 in maps 56 wide).

    Returns:
        tuple: The unit in elements, the strides with all but the last in units, the length in
        units.
    """
    unit = 1
    if all(s[3] == 1 for s in strides):
        unit = gcd(16 // itemsize, length, *(part for s in strides for part in s[:3]))
    return unit, [(*(p // unit for p in s[:3]), s[3]) for s in strides], length // unit


def _reach(first: int, outputs: int, half: int, length: int) -> tuple[int, int]:
    """Inputs that a block of outputs needs, from a multiple of 16; as in the kernels."""
    return max(first - half, 0) // 16 * 16, min(first + outputs + half, length)


def _precision(dtype: torch.dtype) -> str:
    if dtype != torch.float32:
        return '16'
    # Read this way it may be set by PyTorch's older switch, `allow_tf32`, as well.
    return 'tf32' if torch.backends.cuda.matmul.fp32_precision == 'tf32' else 'ieee'


def _dot_precision(precision: str) -> str:
    return 'tf32' if precision == 'tf32' else 'ieee'


def _capability(x: Tensor) -> tuple[int, int] | None:
    return torch.cuda.get_device_capability(x.device) if x.is_cuda else None


def _blocks(
    name: str,
    precision: str,
    rows: int,
    length: int,
    long: int,
    capability: tuple[int, int] | None,
) -> Blocks:
    line = 'short' if length <= 64 else 'long'
    kernel = 'small' if long <= 15 else 'large'
    key = (name, precision, line, kernel)
    blocks = TABLE.get((*key, capability)) or TABLE.get((*key, None)) or DEFAULTS[key[:2]]

    def fitted(block: int, size: int) -> int:
        # No product is smaller than 16.
        return min(block, max(16, triton.next_power_of_2(size)))

    return blocks._replace(
        lines=fitted(blocks.lines, rows),
        outputs=fitted(blocks.outputs, length),
        inputs=fitted(blocks.inputs, length),
    )


def _upcast(dtype: torch.dtype) -> bool:
    """Triton's interpreter holds bfloat16 as integers and would multiply these."""
    return dtype == torch.bfloat16 and isinstance(_forward_kernel, InterpretedFunction)


def _launch(kernel, programs: int, blocks: Blocks, arguments: dict) -> None:
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device_of(arguments['x_ptr']):
        kernel[(programs,)](**arguments, num_warps=blocks.warps, num_stages=blocks.stages)


# In the kernels, positions of elements are of 64 bits: a tensor may have more than 2^31.


@triton.jit
def _forward_kernel(
    x_ptr,
    weight_ptr,
    out_ptr,
    rows,
    lines,
    groups,
    units,
    row_blocks,
    output_blocks,
    first_tap,
    last_tap,
    short_half,
    long,
    x_n,
    x_c,
    x_s,
    x_l,
    out_n,
    out_c,
    out_s,
    out_l,
    weight_c,
    weight_s,
    weight_l,
    LINES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    NEIGHBOURS: tl.constexpr,
    UNIT: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """One block of outputs along a block of lines of one channel."""
    program = tl.program_id(0)
    row_block = program % row_blocks
    output_block = program // row_blocks % output_blocks
    channel = (program // row_blocks // output_blocks).to(tl.int64)
    length = units * UNIT
    half = long // 2

    # All lines of a channel, those of every image after another.
    row = row_block * LINES + tl.arange(0, LINES)
    image = (row // (groups * NEIGHBOURS)).to(tl.int64)
    line = row % (groups * NEIGHBOURS)
    exists = (row < rows) & (line < lines)

    p_first = output_block * OUTPUTS
    p = p_first + tl.arange(0, OUTPUTS)
    q_first = tl.maximum(p_first - half, 0) // 16 * 16
    q_last = tl.minimum(p_first + OUTPUTS + half, length)

    x_rows = x_ptr + (image * x_n + channel * x_c) * UNIT
    weights = weight_ptr + channel * weight_c
    total = tl.zeros((LINES, OUTPUTS), tl.float32)
    for q_block in range(q_first, q_last, INPUTS):
        q = q_block + tl.arange(0, INPUTS)
        j = q[:, None] - p[None, :] + half
        in_band = (j >= 0) & (j < long)
        in_line = (q < length)[None, :]
        for tap in range(first_tap, last_tap):
            source = line + (tap - short_half)
            in_map = exists & (source >= 0) & (source < lines)
            x = tl.load(
                (x_rows + source.to(tl.int64) * x_s * UNIT)[:, None]
                + q.to(tl.int64)[None, :] * x_l,
                mask=in_map[:, None] & in_line,
                other=0.0,
            )
            band = tl.load(
                weights + tl.cast(tap, tl.int64) * weight_s + j.to(tl.int64) * weight_l,
                mask=in_band,
                other=0.0,
            ).to(x.dtype)
            if UPCAST:
                x = x.to(tl.float32)
                band = band.to(tl.float32)
            total = tl.dot(x, band, total, input_precision=PRECISION)

    out_rows = out_ptr + (image * out_n + channel * out_c + line.to(tl.int64) * out_s) * UNIT
    tl.store(
        out_rows[:, None] + p.to(tl.int64)[None, :] * out_l,
        total.to(out_ptr.dtype.element_ty),
        mask=exists[:, None] & (p < length)[None, :],
    )


@triton.jit
def _weight_gradient_kernel(
    x_ptr,
    grad_ptr,
    sums_ptr,
    rows,
    part_rows,
    lines,
    groups,
    units,
    output_blocks,
    input_blocks,
    short,
    long,
    x_n,
    x_c,
    x_s,
    x_l,
    grad_n,
    grad_c,
    grad_s,
    grad_l,
    LINES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    WEIGHTS: tl.constexpr,
    NEIGHBOURS: tl.constexpr,
    UNIT: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """What one part of the lines, in one block (p, q), adds to one line of weights."""
    program = tl.program_id(0)
    # Programs of the same inputs are neighbours, and share them in the cache.
    tap = program % short
    piece = program // short  # of all channels
    input_block = piece % input_blocks
    output_block = piece // input_blocks % output_blocks
    parts = tl.cdiv(rows, part_rows)
    part = piece // (input_blocks * output_blocks) % parts
    channel = (piece // (input_blocks * output_blocks) // parts).to(tl.int64)
    length = units * UNIT
    half = long // 2

    p_first = output_block * OUTPUTS
    p = p_first + tl.arange(0, OUTPUTS)
    q_first = tl.maximum(p_first - half, 0) // 16 * 16 + input_block * INPUTS
    q = q_first + tl.arange(0, INPUTS)
    p_offset = p.to(tl.int64) * grad_l
    q_offset = q.to(tl.int64) * x_l

    # product[p, q] = sum over lines of grad[line, p] x[line, q].
    product = tl.zeros((OUTPUTS, INPUTS), tl.float32)
    for first_row in range(part * part_rows, tl.minimum((part + 1) * part_rows, rows), LINES):
        row = first_row + tl.arange(0, LINES)
        image = (row // (groups * NEIGHBOURS)).to(tl.int64)
        line = row % (groups * NEIGHBOURS)
        source = line + (tap - short // 2)
        exists = (row < rows) & (line < lines) & (source >= 0) & (source < lines)
        grad_rows = (image * grad_n + channel * grad_c + line.to(tl.int64) * grad_s) * UNIT
        x_rows = (image * x_n + channel * x_c + source.to(tl.int64) * x_s) * UNIT
        grad = tl.load(
            grad_ptr + grad_rows[:, None] + p_offset[None, :],
            mask=exists[:, None] & (p < length)[None, :],
            other=0.0,
        )
        x = tl.load(
            x_ptr + x_rows[:, None] + q_offset[None, :],
            mask=exists[:, None] & (q < length)[None, :],
            other=0.0,
        )
        if UPCAST:
            grad = grad.to(tl.float32)
            x = x.to(tl.float32)
        product = tl.dot(tl.trans(grad), x, product, input_precision=PRECISION)

    # Each row of the product moved so that diagonals are columns, then summed.
    sums = sums_ptr + (tl.cast(piece, tl.int64) * short + tap) * long
    for first in range(0, long, WEIGHTS):
        j = first + tl.arange(0, WEIGHTS)
        column = p[:, None] + (j - half - q_first)[None, :]
        inside = (column >= 0) & (column < INPUTS)
        diagonals = tl.gather(product, tl.where(inside, column, 0), 1)
        tl.store(sums + j, tl.sum(tl.where(inside, diagonals, 0.0), 0), mask=j < long)
