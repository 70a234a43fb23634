"""Depth-wise convolution with large kernels on a GPU, as blocked Toeplitz products in Triton.

A feature map is a set of *lines* along the longer side of the kernel: rows for a wide kernel,
columns for a tall one. For tall kernels the strides are swapped, and the code is the same. A
kernel is a short list of lines of weights. Along a line, the convolution with one line of weights
is the product with a banded Toeplitz matrix,

    out[r, p] = sum over q of x[r, q] T[q, p],    T[q, p] = weight[q - p + length // 2].

The product of many lines with a block of the band is a matrix product for the tensor cores. The
output is the sum of these products over all lines of weights, each with the lines of the feature
map that it meets. Blocks outside the band are skipped.

With a dilation along the line, zeros are inserted between the weights for the forward pass, and
only every dilation-th diagonal is summed for the gradient. Tensor cores multiply whole blocks in
any case: 13 weights with a dilation of 5 are a band of 61 diagonals, as wide as one block. A
dilation across the lines costs nothing.

The gradient of one line of weights comes from the product M = G^T X over all lines: the gradient
of weight j is the sum of the diagonal q - p = j - length // 2 of M[p, q]. It costs as many
multiplications as the forward pass and loads inputs in long vectors. The alternative would be to
load X as a Toeplitz matrix, so that the product is the gradient itself. That product has only as
many rows as the kernel has lines (5, padded to 16 or 64), and it loads each input as many times as
the kernel is long. Partial sums are stored and added in a fixed order, without atomics, so that
the result is the same in every run.

Importing this module needs Triton. The kernels are tested in Triton's interpreter on CPU tensors,
and they were compiled for compute capabilities 8.0 and 9.0. The block sizes of :data:`TABLE` were
chosen from the reports of the compiler (registers, spills, shared memory, instructions), without a
GPU. ``measured.py`` times them and :data:`OTHERS` on the GPU where they run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from .precision import tf32_allowed
from .triton_launch import Plan, launch, planned

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
#: Smallest number of programs of the weight gradient, if there are enough lines: several for each
#: multiprocessor of a large GPU. It is a constant so that sums are the same on every GPU.
PROGRAMS = 2048
#: Longest side of the blocks in which a feature map is transposed.
TILE = 64
#: If neighbouring lines are adjacent in memory, the number of lines of an image is rounded up to a
#: multiple of this, so that the compiler can load them together.
NEIGHBOURS = 8


class Blocks(NamedTuple):
    """Block sizes of one program, powers of two from 16, and its launch settings."""

    lines: int
    outputs: int  #: positions p of outputs along a line
    inputs: int  #: positions q of inputs along a line
    warps: int
    stages: int  #: number of steps whose loads overlap
    #: Largest number of registers of a thread. Without a limit the compiler uses more registers
    #: than needed, and fewer programs share a multiprocessor.
    registers: int | None = None


#: Rows of (pass, precision, loads, line, kernel, capability) and the blocks for them. None matches
#: anything. The first row that matches is used, so special rows stand above general ones. Precision
#: is '16' for both 16-bit dtypes, 'tf32' or 'ieee'. Loads are 'vector' if neighbours along a line
#: are loaded together, otherwise 'scalar', which needs more registers. A line of more than 64
#: positions is 'long', otherwise 'short'. A kernel that spans at most 15 positions of a line is
#: 'small', otherwise 'large'. The capability is (major, minor).
TABLE = (
    (('forward', '16', 'vector', 'long', 'small', None), Blocks(128, 64, 32, 8, 3, 128)),
    (('forward', '16', 'vector', None, None, (9, 0)), Blocks(128, 64, 64, 8, 3, 80)),
    (('forward', '16', 'vector', None, None, None), Blocks(128, 64, 64, 8, 3, 128)),
    (('forward', '16', 'scalar', 'long', None, None), Blocks(64, 64, 32, 8, 3, 128)),
    (('forward', '16', 'scalar', None, None, None), Blocks(64, 64, 64, 8, 3, 128)),
    (('forward', 'tf32', None, None, None, None), Blocks(64, 64, 32, 8, 2)),
    (('forward', 'ieee', None, None, None, None), Blocks(64, 32, 32, 4, 2)),
    (('weight_gradient', '16', 'vector', None, None, None), Blocks(64, 64, 64, 4, 3)),
    (('weight_gradient', '16', 'scalar', 'long', None, None), Blocks(32, 64, 64, 8, 3, 128)),
    (('weight_gradient', '16', 'scalar', None, None, None), Blocks(64, 64, 64, 8, 3, 128)),
    (('weight_gradient', 'tf32', None, None, None, None), Blocks(32, 64, 64, 8, 2)),
    (('weight_gradient', 'ieee', None, None, None, None), Blocks(32, 32, 64, 4, 2)),
)

#: Other blocks that are worth a trial, by pass and by whether a dtype has 16 bits.
OTHERS = {
    ('forward', True): (
        Blocks(128, 64, 64, 4, 3),
        Blocks(64, 64, 64, 4, 3),
        Blocks(128, 64, 32, 4, 4),
        Blocks(64, 32, 32, 4, 3),
    ),
    ('forward', False): (
        Blocks(64, 64, 32, 4, 2),
        Blocks(64, 32, 32, 4, 3),
        Blocks(32, 32, 32, 4, 2),
    ),
    ('weight_gradient', True): (
        Blocks(64, 64, 64, 8, 3),
        Blocks(128, 64, 64, 4, 2),
        Blocks(32, 64, 64, 4, 4),
        Blocks(64, 32, 64, 4, 3),
    ),
    ('weight_gradient', False): (
        Blocks(64, 32, 32, 4, 2),
        Blocks(32, 64, 64, 4, 2),
        Blocks(32, 32, 32, 4, 2),
    ),
}


def available(x: Tensor) -> bool:
    """Return whether the kernels can run on this tensor."""
    if x.dtype not in DTYPES:
        return False
    if isinstance(_forward_kernel, InterpretedFunction):
        return True
    return (
        x.is_cuda
        and torch.version.hip is None
        and torch.cuda.get_device_capability(x.device) >= (8, 0)
    )


def candidates(
    task: str, x: Tensor, kernel: tuple[int, int], dilation: Sequence[int] = (1, 1)
) -> list[Blocks]:
    """Return the blocks that are worth a trial, first those of :data:`TABLE`.

    Args:
        task (str): ``forward`` or ``weight_gradient``.
        x (Tensor): Feature maps of shape (N, C, H, W).
        kernel (tuple[int, int]): Height and width of the kernel.
        dilation (Sequence[int]): Vertical and horizontal distance of neighbouring weights.
    """
    # Channels last is copied to a planar tensor first.
    strides = x.stride() if _is_planar(x) else torch.empty(x.shape, device='meta').stride()
    lines = _Lines.of(kernel, dilation, x.shape, x.element_size(), strides, strides)
    others = OTHERS[task, _precision(x.dtype) == '16']
    found = [_blocks(task, x, lines), *(_fitted(task, blocks, lines) for blocks in others)]
    return list(dict.fromkeys(found))


@torch.no_grad()
def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    add_to: Tensor | None = None,
    dilation: Sequence[int] = (1, 1),
    blocks: Blocks | None = None,
) -> Tensor:
    """Convolve as :func:`mmslak.ops.depthwise_conv2d` does, in float32, float16 or bfloat16.

    Args:
        x (Tensor): Feature maps of shape (N, C, H, W), of any strides.
        weight (Tensor): Kernels of shape (C, 1, kh, kw), kh and kw odd, of any strides and dtype;
            used in the dtype of ``x``.
        bias (Tensor, optional): Of shape (C,).
        add_to (Tensor, optional): Of the shape of ``x``; the result is added to it in place.
        dilation (Sequence[int]): Vertical and horizontal distance of neighbouring weights.
        blocks (Blocks, optional): Block sizes, made no larger than the lines need. Default: those
            of :data:`TABLE`.

    Returns:
        Tensor: ``add_to``, or a new tensor in the memory format of ``x``. Sums are in float32;
        float32 products are rounded to TF32 only if PyTorch allows it in matrix products. An
        infinite input or NaN makes all outputs of its block NaN, including those that the kernel
        does not connect to it.

    Raises:
        ValueError: If the shapes, dtypes or devices do not fit.
    """
    out = _convolve(x, weight, dilation, blocks)
    if bias is not None:
        out += bias.view(-1, 1, 1)
    return out if add_to is None else add_to.add_(out)


def _convolve(x: Tensor, weight: Tensor, dilation: Sequence[int], blocks: Blocks | None) -> Tensor:
    kernel = tuple(weight.shape[2:])
    _check(x, weight.shape, kernel)
    if weight.device != x.device:
        raise ValueError(f'weight must be on the device of x, {x.device}, got {weight.device}')
    out = torch.empty_like(x)
    if out.numel() == 0:
        return out
    x = _planar(x)
    planar = out if _is_planar(out) else x.new_empty(x.shape)
    plan = _plan('forward', x, planar, kernel, dilation, blocks)
    weights = plan.lines.along_lines(weight[:, 0]).to(x.dtype)
    step = plan.lines.dilation[1]
    if step > 1:
        spread = weights.new_zeros(*weights.shape[:2], plan.lines.extent)
        spread[..., ::step] = weights
        weights = spread
    padded = F.pad(weights, (plan.margin, plan.margin))
    launch(_forward_kernel, plan, x, padded, planar)
    if planar is out:
        return out
    return _transposed_into(out, planar) if _is_transposition(planar, out) else out.copy_(planar)


@torch.no_grad()
def converted(x: Tensor, dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    """Copy ``x`` with another dtype and memory format.

    Between planar and channels last this is a transposition of each image, for which PyTorch's copy
    reads or writes single elements far apart.

    Args:
        x (Tensor): Of shape (N, C, H, W), of a dtype in :data:`DTYPES`.
        dtype (torch.dtype): One of :data:`DTYPES`.
        memory_format (torch.memory_format): ``contiguous_format`` or ``channels_last``.
    """
    out = torch.empty_like(x, dtype=dtype, memory_format=memory_format)
    return _transposed_into(out, x) if _is_transposition(x, out) else out.copy_(x)


def _is_transposition(x: Tensor, out: Tensor) -> bool:
    """Return whether one tensor is planar and the other one channels last, without gaps."""
    planar, other = (x, out) if x.is_contiguous() else (out, x)
    return (
        x.numel() > 0
        and planar.is_contiguous()
        and not other.is_contiguous()
        and other.is_contiguous(memory_format=torch.channels_last)
    )


def _transposed_into(out: Tensor, x: Tensor) -> Tensor:
    """Copy ``x`` into ``out``, see :func:`_is_transposition`."""

    def make() -> Plan:
        images, channels, height, width = x.shape
        sizes = (channels, height * width) if x.is_contiguous() else (height * width, channels)
        sides = [min(TILE, max(16, triton.next_power_of_2(size))) for size in sizes]
        blocks = [triton.cdiv(size, side) for size, side in zip(sizes, sides, strict=True)]
        return Plan(
            images * blocks[0] * blocks[1],
            dict(
                rows=sizes[0], columns=sizes[1], row_blocks=blocks[0], column_blocks=blocks[1],
                ROWS=sides[0], COLUMNS=sides[1],
            ),
        )  # fmt: skip

    key = ('transpose', x.shape, x.is_contiguous(), x.dtype, out.dtype, x.device)
    launch(_transpose_kernel, planned(key, make), x, out)
    return out


def _plan_forward(x: Tensor, lines: '_Lines', blocks: Blocks) -> '_LinesPlan':
    short, long = lines.kernel[0], lines.extent
    row_blocks = triton.cdiv(lines.rows, blocks.lines)
    output_blocks = triton.cdiv(lines.length, blocks.outputs)
    # The weights are padded with zeros on both sides, so that every block of the band is loaded
    # without a mask. Blocks reach from outputs + 14 positions before the weights to
    # outputs + inputs - 2 positions after them.
    margin = blocks.outputs + blocks.inputs
    padded_length = margin + long + margin
    return _LinesPlan(
        # In one grid dimension, because the other two have at most 65535 programs.
        lines.channels * output_blocks * row_blocks,
        dict(
            **lines.arguments('x', 'out'),
            row_blocks=row_blocks,
            output_blocks=output_blocks,
            long=long,
            # Only lines of weights that connect two lines of the feature map.
            first_tap=max(0, short // 2 - (lines.count - 1) // lines.dilation[0]),
            last_tap=min(short, short // 2 + (lines.count - 1) // lines.dilation[0] + 1),
            weight_c=short * padded_length,
            weight_s=padded_length,
            MARGIN=margin,
            **_constants(x, blocks),
        ),
        **_launch_settings(blocks),
        lines=lines,
        margin=margin,
    )


@torch.no_grad()
def weight_gradient(
    x: Tensor,
    grad: Tensor,
    kernel_size: tuple[int, int],
    dilation: Sequence[int] = (1, 1),
    blocks: Blocks | None = None,
) -> Tensor:
    """Return the gradient of the kernels, bitwise the same in every run.

    Args:
        x (Tensor): Feature maps of shape (N, C, H, W), of any strides.
        grad (Tensor): Gradient of the output, of the shape and dtype of ``x``, of any strides.
        kernel_size (tuple[int, int]): Height and width of the kernel, both odd.
        dilation (Sequence[int]): Vertical and horizontal distance of neighbouring weights.
        blocks (Blocks, optional): As for :func:`forward`.

    Returns:
        Tensor: Of shape (C, 1, kh, kw), in the dtype of ``x``. Sums are in float32, products as
        in :func:`forward`.

    Raises:
        ValueError: If the shapes, dtypes or devices do not fit.
    """
    kernel = tuple(kernel_size)
    _check(x, (*x.shape[1:2], 1, *kernel), kernel)
    if (grad.shape, grad.dtype, grad.device) != (x.shape, x.dtype, x.device):
        raise ValueError(
            'grad must have the shape, dtype and device of x, '
            f'{tuple(x.shape)}, {x.dtype}, {x.device}, '
            f'got {tuple(grad.shape)}, {grad.dtype}, {grad.device}'
        )
    if x.numel() == 0:
        return x.new_zeros(x.shape[1], 1, *kernel)
    x, grad = _planar(x), _planar(grad)

    plan = _plan('weight_gradient', x, grad, kernel, dilation, blocks)
    sums = x.new_empty(plan.buffer, dtype=torch.float32)
    launch(_weight_gradient_kernel, plan, x, grad, sums)
    return plan.lines.along_lines(sums.sum(1)).to(x.dtype).unsqueeze(1).contiguous()


def _plan_weight_gradient(x: Tensor, lines: '_Lines', blocks: Blocks) -> '_LinesPlan':
    short, long = lines.kernel
    output_blocks = triton.cdiv(lines.length, blocks.outputs)
    half = lines.extent // 2
    # As in the kernel, the inputs of a block of outputs start at a multiple of 16.
    reach = (
        min(p + blocks.outputs + half, lines.length) - max(p - half, 0) // 16 * 16
        for p in range(0, lines.length, blocks.outputs)
    )
    input_blocks = triton.cdiv(max(reach), blocks.inputs)
    # If there are too few programs to fill a GPU, the lines are divided into parts.
    parts = triton.cdiv(PROGRAMS, lines.channels * short * output_blocks * input_blocks)
    part_rows = triton.cdiv(triton.cdiv(lines.rows, parts), blocks.lines) * blocks.lines
    parts = triton.cdiv(lines.rows, part_rows)
    pieces = parts * output_blocks * input_blocks
    return _LinesPlan(
        lines.channels * pieces * short,
        dict(
            **lines.arguments('x', 'grad'),
            long=long,
            LONG_STEP=lines.dilation[1],
            parts=parts,
            part_rows=part_rows,
            output_blocks=output_blocks,
            input_blocks=input_blocks,
            WEIGHTS=min(64, max(16, triton.next_power_of_2(long))),
            **_constants(x, blocks),
        ),
        **_launch_settings(blocks),
        lines=lines,
        buffer=(lines.channels, pieces, short, long),
    )


def _check(x: Tensor, weight_shape: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    if x.ndim != 4:
        raise ValueError(f'x must have shape (N, C, H, W), got {tuple(x.shape)}')
    if x.dtype not in DTYPES:
        raise ValueError(f'x.dtype must be one of {", ".join(map(str, DTYPES))}, got {x.dtype}')
    if len(weight_shape) != 4 or tuple(weight_shape[:2]) != (x.shape[1], 1):
        raise ValueError(
            f'weight must have shape ({x.shape[1]}, 1, kh, kw) for {x.shape[1]} channels, got '
            f'{tuple(weight_shape)}'
        )
    if any(size < 1 or size % 2 == 0 for size in kernel):
        raise ValueError(f'weight must have odd kernel sizes ("same" padding), got {kernel}')


def _is_planar(x: Tensor) -> bool:
    channels, *others = x.stride()[1:]
    return x.is_contiguous() or not 0 < channels < min(others)


def _planar(x: Tensor) -> Tensor:
    """Return ``x``, or a contiguous copy if its channels are adjacent in memory.

    A program works on one channel. Without the copy every load would fetch 32 bytes of several
    channels for the 2 or 4 bytes that it needs, and would do so again for each line of weights.
    """
    return x if _is_planar(x) else converted(x, x.dtype, torch.contiguous_format)


class _Lines(NamedTuple):
    """Two tensors of one shape, seen as lines along the longer side of a kernel."""

    tall: bool
    kernel: tuple[int, int]  #: short and long side of the kernel
    dilation: tuple[int, int]  #: along the short and the long side
    channels: int
    count: int  #: lines of one feature map
    length: int  #: positions of one line
    rows: int  #: lines of a channel over all images, padding included
    neighbours: int  #: the lines of one feature map are padded to a multiple of this
    unit: int  #: elements in which lengths and strides are counted
    strides: tuple[tuple[int, int, int, int], ...]  #: of images, channels, lines, along a line
    index: tl.dtype  #: type of positions within a channel; 64 bits cost registers

    @classmethod
    def of(
        cls,
        kernel: tuple[int, int],
        dilation: Sequence[int],
        shape: tuple[int, ...],
        element_size: int,
        *tensors: tuple[int, ...],
    ) -> '_Lines':
        """Describe tensors of a shape by their strides."""
        # With any larger dilation, too, only the central weights meet the feature map.
        dilation = [min(step, size) for step, size in zip(dilation, shape[2:], strict=True)]
        # Weights that never overlap the feature map do not matter.
        reach = [
            min(k, 2 * ((size - 1) // step) + 1)
            for k, step, size in zip(kernel, dilation, shape[2:], strict=True)
        ]
        tall = reach[0] > reach[1]

        def swapped(n, c, h, w):
            return (n, c, w, h) if tall else (n, c, h, w)

        images, channels, count, length = swapped(*shape)
        strides = [swapped(*steps) for steps in tensors]
        neighbours = NEIGHBOURS if strides[0][2] == 1 else 1
        rows = images * triton.cdiv(count, neighbours) * neighbours
        if rows > 2**31 - 2**10:
            raise ValueError(f'x has {rows} lines for each channel, more than 32 bits can count')
        # All that the compiler can know about an argument is that it is a multiple of 16. If
        # lengths and strides are passed in units of several elements, it loads and stores whole
        # units, for example 8 elements of 16 bits for feature maps of width 56.
        unit = 1
        if all(s[3] == 1 for s in strides):
            unit = gcd(16 // element_size, length, *(n for s in strides for n in s[:3]))
        last = max(
            sum((size - 1) * stride for size, stride in zip(shape, steps, strict=True))
            for steps in tensors
        )
        return cls(
            tall=tall,
            kernel=kernel[::-1] if tall else kernel,
            dilation=tuple(dilation[::-1] if tall else dilation),
            channels=channels,
            count=count,
            length=length,
            rows=rows,
            neighbours=neighbours,
            unit=unit,
            strides=tuple(strides),
            index=tl.int32 if last < 2**31 else tl.int64,
        )

    @property
    def extent(self) -> int:
        """Positions from the first to the last weight along a line."""
        return (self.kernel[1] - 1) * self.dilation[1] + 1

    def along_lines(self, weights: Tensor) -> Tensor:
        """Transpose weights of a tall kernel from (C, kh, kw) to (C, short, long), or back."""
        return weights.transpose(1, 2) if self.tall else weights

    def arguments(self, *names: str) -> dict:
        """Return the arguments that both kernels take, with strides under the tensors' names."""
        result = dict(
            rows=self.rows,
            lines=self.count,
            groups=triton.cdiv(self.count, self.neighbours),
            units=self.length // self.unit,
            short=self.kernel[0],
            SHORT_STEP=self.dilation[0],
            NEIGHBOURS=self.neighbours,
            UNIT=self.unit,
            INDEX=self.index,
        )
        for name, strides in zip(names, self.strides, strict=True):
            for axis, stride in zip('ncs', strides[:3], strict=True):
                result[f'{name}_{axis}'] = stride // self.unit
            result[f'{name}_l'] = strides[3]
        return result


def _constants(x: Tensor, blocks: Blocks) -> dict:
    return dict(
        LINES=blocks.lines,
        OUTPUTS=blocks.outputs,
        INPUTS=blocks.inputs,
        PRECISION='tf32' if _precision(x.dtype) == 'tf32' else 'ieee',
        # The interpreter stores bfloat16 as integers and would multiply these integers.
        UPCAST=x.dtype == torch.bfloat16 and isinstance(_forward_kernel, InterpretedFunction),
    )


def _launch_settings(blocks: Blocks) -> dict:
    return dict(warps=blocks.warps, stages=blocks.stages, registers=blocks.registers)


def _precision(dtype: torch.dtype) -> str:
    if dtype != torch.float32:
        return '16'
    return 'tf32' if tf32_allowed()[0] else 'ieee'


def _capability(x: Tensor) -> tuple[int, int] | None:
    return torch.cuda.get_device_capability(x.device) if x.is_cuda else None


def _blocks(name: str, x: Tensor, lines: _Lines, asked: Blocks | None = None) -> Blocks:
    """Return the blocks asked for, or those in the table, no larger than the lines need."""
    if asked is not None:
        return _fitted(name, Blocks(*asked), lines)
    key = (
        name,
        _precision(x.dtype),
        'vector' if lines.unit > 1 else 'scalar',
        'long' if lines.length > 64 else 'short',
        'small' if lines.extent <= 15 else 'large',
        _capability(x),
    )
    blocks = next(
        blocks
        for row, blocks in TABLE
        if all(want in (None, got) for want, got in zip(row, key, strict=True))
    )
    return _fitted(name, blocks, lines)


def _fitted(name: str, blocks: Blocks, lines: _Lines) -> Blocks:
    """Return the blocks, made no larger than the lines need."""

    def fitted(block: int, size: int) -> int:
        # The sides of a matrix product are at least 16.
        return min(block, max(16, triton.next_power_of_2(size)))

    blocks = blocks._replace(
        lines=fitted(blocks.lines, lines.rows),
        outputs=fitted(blocks.outputs, lines.length),
        inputs=fitted(blocks.inputs, lines.length),
    )
    # With fewer than 16 sums per thread, 8 warps would not be busy.
    small = blocks.outputs * (blocks.lines if name == 'forward' else blocks.inputs) < 4096
    return blocks._replace(warps=4, registers=None) if small else blocks


@dataclass
class _LinesPlan(Plan):
    """The plan of a pass over lines."""

    lines: _Lines | None = None
    buffer: tuple[int, ...] | None = None  #: shape of the partial sums
    margin: int = 0  #: zeros before the weights


_PLANNERS = {'forward': _plan_forward, 'weight_gradient': _plan_weight_gradient}


def _plan(
    name: str,
    x: Tensor,
    other: Tensor,
    kernel: tuple[int, int],
    dilation: Sequence[int],
    asked: Blocks | None,
) -> _LinesPlan:
    """Return the plan of a pass over planar tensors ``x`` and ``other``."""

    def make() -> _LinesPlan:
        lines = _Lines.of(kernel, dilation, x.shape, x.element_size(), x.stride(), other.stride())
        return _PLANNERS[name](x, lines, _blocks(name, x, lines, asked))

    key = (
        name, x.shape, x.stride(), other.stride(), x.dtype, x.device, kernel, tuple(dilation),
        asked, _precision(x.dtype),
    )  # fmt: skip
    return planned(key, make)


# Arguments that differ between batches and feature maps. They must not cause a new compilation.
COUNTS = (
    *('rows', 'lines', 'groups', 'units', 'short', 'long', 'row_blocks'),
    *('input_blocks', 'first_tap', 'last_tap', 'parts', 'part_rows', 'weight_c', 'weight_s'),
)

# Positions within a channel have the type INDEX; offsets of channels are added in 64 bits.


@triton.jit(do_not_specialize=COUNTS)
def _forward_kernel(
    x_ptr,
    weight_ptr,
    out_ptr,
    rows,
    lines,
    groups,
    units,
    short,
    long,
    x_n,
    x_c,
    x_s,
    x_l,
    out_n,
    out_c,
    out_s,
    out_l,
    row_blocks,
    output_blocks,
    first_tap,
    last_tap,
    weight_c,
    weight_s,
    LINES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    NEIGHBOURS: tl.constexpr,
    MARGIN: tl.constexpr,
    SHORT_STEP: tl.constexpr,
    UNIT: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    INDEX: tl.constexpr,
):
    """Compute a block of outputs for a block of lines of one channel."""
    program = tl.program_id(0)
    row_block = program % row_blocks
    output_block = program // row_blocks % output_blocks
    channel = (program // row_blocks // output_blocks).to(tl.int64)
    length = units * UNIT
    half = long // 2

    # The lines of a channel, image after image.
    row = row_block * LINES + tl.arange(0, LINES)
    image = (row // (groups * NEIGHBOURS)).to(INDEX)
    line = row % (groups * NEIGHBOURS)
    valid = (row < rows) & (line < lines)

    p_first = output_block * OUTPUTS
    p = p_first + tl.arange(0, OUTPUTS)
    q_first = tl.maximum(p_first - half, 0) // 16 * 16
    q_last = tl.minimum(p_first + OUTPUTS + half, length)

    x_channel = x_ptr + channel * x_c * UNIT
    x_rows = (image * x_n + line.to(INDEX) * x_s) * UNIT
    x_offset = x_rows[:, None] + (tl.arange(0, INPUTS).to(INDEX) * x_l)[None, :]
    weights = weight_ptr + channel * weight_c + (MARGIN + half - p_first)
    # In 64 bits even if 32 would suffice: the compiler then uses one address and constants.
    ahead = tl.arange(0, INPUTS).to(tl.int64)
    behind = tl.arange(0, OUTPUTS).to(tl.int64)
    band_offset = ahead[:, None] - behind[None, :]
    total = tl.zeros((LINES, OUTPUTS), tl.float32)
    for q_block in range(q_first, q_last, INPUTS):
        q = q_block + tl.arange(0, INPUTS)
        x_block = x_channel + tl.cast(q_block, tl.int64) * x_l
        band_block = weights + q_block + band_offset
        in_line = (q < length)[None, :]
        for tap in range(first_tap, last_tap):
            shift = (tl.cast(tap, tl.int32) - short // 2) * SHORT_STEP
            in_feature_map = valid & (line + shift >= 0) & (line + shift < lines)
            x = tl.load(
                x_block + shift.to(tl.int64) * x_s * UNIT + x_offset,
                mask=in_feature_map[:, None] & in_line,
                other=0.0,
            )
            band = tl.load(band_block + tap * weight_s)
            if UPCAST:
                x = x.to(tl.float32)
                band = band.to(tl.float32)
            total = tl.dot(x, band, total, input_precision=PRECISION)

    out_channel = out_ptr + channel * out_c * UNIT
    out_rows = (image * out_n + line.to(INDEX) * out_s) * UNIT
    tl.store(
        out_channel + (out_rows[:, None] + (p.to(INDEX) * out_l)[None, :]),
        total.to(out_ptr.dtype.element_ty),
        mask=valid[:, None] & (p < length)[None, :],
    )


@triton.jit(do_not_specialize=COUNTS)
def _weight_gradient_kernel(
    x_ptr,
    grad_ptr,
    sums_ptr,
    rows,
    lines,
    groups,
    units,
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
    parts,
    part_rows,
    output_blocks,
    input_blocks,
    LINES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    WEIGHTS: tl.constexpr,
    NEIGHBOURS: tl.constexpr,
    SHORT_STEP: tl.constexpr,
    LONG_STEP: tl.constexpr,
    UNIT: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    INDEX: tl.constexpr,
):
    """Sum the block (p, q) of the product over one part of the lines, for one line of weights."""
    program = tl.program_id(0)
    # Consecutive programs have the same inputs and share them in the cache.
    tap = program % short
    piece = program // short  # of all channels
    input_block = piece % input_blocks
    output_block = piece // input_blocks % output_blocks
    part = piece // (input_blocks * output_blocks) % parts
    channel = (piece // (input_blocks * output_blocks) // parts).to(tl.int64)
    length = units * UNIT
    half = long // 2 * LONG_STEP

    p_first = output_block * OUTPUTS
    p = p_first + tl.arange(0, OUTPUTS)
    q_first = tl.maximum(p_first - half, 0) // 16 * 16 + input_block * INPUTS
    q = q_first + tl.arange(0, INPUTS)
    p_offset = (p.to(INDEX) * grad_l)[None, :]
    q_offset = (q.to(INDEX) * x_l)[None, :]
    grad_channel = grad_ptr + channel * grad_c * UNIT
    x_channel = x_ptr + channel * x_c * UNIT

    # product[p, q] = sum over lines of grad[line, p] x[line, q].
    product = tl.zeros((OUTPUTS, INPUTS), tl.float32)
    for first_row in range(part * part_rows, tl.minimum((part + 1) * part_rows, rows), LINES):
        row = first_row + tl.arange(0, LINES)
        image = (row // (groups * NEIGHBOURS)).to(INDEX)
        line = row % (groups * NEIGHBOURS)
        source = line + (tap - short // 2) * SHORT_STEP
        valid = (row < rows) & (line < lines) & (source >= 0) & (source < lines)
        grad_rows = (image * grad_n + line.to(INDEX) * grad_s) * UNIT
        x_rows = (image * x_n + source.to(INDEX) * x_s) * UNIT
        grad = tl.load(
            grad_channel + (grad_rows[:, None] + p_offset),
            mask=valid[:, None] & (p < length)[None, :],
            other=0.0,
        )
        x = tl.load(
            x_channel + (x_rows[:, None] + q_offset),
            mask=valid[:, None] & (q < length)[None, :],
            other=0.0,
        )
        if UPCAST:
            grad = grad.to(tl.float32)
            x = x.to(tl.float32)
        product = tl.dot(tl.trans(grad), x, product, input_precision=PRECISION)

    # Rows of the product are shifted so that its diagonals become columns, which are summed.
    sums = sums_ptr + (tl.cast(piece, tl.int64) * short + tap) * long
    for first in range(0, long, WEIGHTS):
        j = first + tl.arange(0, WEIGHTS)
        column = p[:, None] + (j * LONG_STEP - half - q_first)[None, :]
        inside = (column >= 0) & (column < INPUTS)
        diagonals = tl.gather(product, tl.where(inside, column, 0), 1)
        tl.store(sums + j, tl.sum(tl.where(inside, diagonals, 0.0), 0), mask=j < long)


@triton.jit(do_not_specialize=('row_blocks', 'column_blocks'))
def _transpose_kernel(
    x_ptr,
    out_ptr,
    rows,
    columns,
    row_blocks,
    column_blocks,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Transpose a block of the matrix (rows, columns) of one image."""
    program = tl.program_id(0)
    row = program % row_blocks * ROWS + tl.arange(0, ROWS)
    column = program // row_blocks % column_blocks * COLUMNS + tl.arange(0, COLUMNS)
    image = (program // row_blocks // column_blocks).to(tl.int64) * rows * columns
    source = row.to(tl.int64)[:, None] * columns + column[None, :]
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    values = tl.load(x_ptr + image + source, mask=inside)
    values = tl.trans(values.to(out_ptr.dtype.element_ty))
    target = column.to(tl.int64)[:, None] * rows + row[None, :]
    tl.store(out_ptr + image + target, values, mask=tl.trans(inside))
