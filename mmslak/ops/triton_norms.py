"""The sum of several batch norms in training, in Triton.

A block of SLaK adds the batch norms of its parallel convolutions. PyTorch reads and writes each
feature map in several passes. Here one kernel computes the moments of all of them, and another one
the sum. The backward pass likewise has one kernel for the sums over positions and one for the
gradients.

Each program works on blocks of (IMAGES, POSITIONS) of one channel. Partial sums of the programs are
stored and added in a fixed order, so that the result is the same in every run. Variances are those
of the differences from one value of the channel, so that a large mean does not cancel digits.

Importing this module needs Triton.
"""

from collections.abc import Sequence
from math import gcd

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_launch import Plan, launch, planned

#: Smallest number of programs of a kernel, if there are enough blocks. It is a constant so that
#: sums are the same on every GPU.
PROGRAMS = 2048
#: Elements of a block: 16 bytes for each of the 128 threads of a program, in 16 bits.
BLOCK = 1024


@torch.no_grad()
def forward(
    features: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    running_means: Sequence[Tensor],
    running_variances: Sequence[Tensor],
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Add batch norms, with the statistics of the batch, and update the running statistics.

    Args:
        features (Sequence[Tensor]): Two or three feature maps of shape (N, C, H, W), contiguous, in
            float32, float16 or bfloat16.
        weights (Sequence[Tensor]): Of shape (C,), one for each feature map.
        biases (Sequence[Tensor]): Likewise.
        running_means (Sequence[Tensor]): Likewise; updated in place.
        running_variances (Sequence[Tensor]): Likewise; updated in place.
        momentum (float): Share of the batch in the new running statistics.
        eps (float): Added to the variance.

    Returns:
        tuple[Tensor, Tensor]: The sum, of the shape and dtype of the feature maps, and mean and
        reciprocal standard deviation for :func:`backward`, of shape (C, branches, 2) in float32.
    """
    x, branches = features[0], len(features)
    moments, apply, parts = _plans('forward', x, branches, momentum=momentum, eps=eps)
    channels = x.shape[1]
    sums = x.new_empty((channels, parts, branches, 3), dtype=torch.float32)
    launch(_moments_kernel, moments, *_three(features), sums)
    out = torch.empty_like(x)
    statistics = x.new_empty((channels, branches, 2), dtype=torch.float32)
    tensors = (weights, biases, running_means, running_variances)
    launch(
        _apply_kernel, apply, *_three(features), out, sums, statistics,
        *(tensor for group in zip(*map(_three, tensors), strict=True) for tensor in group),
    )  # fmt: skip
    return out, statistics


@torch.no_grad()
def backward(
    grad: Tensor, features: Sequence[Tensor], statistics: Tensor, weights: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return the gradients of the feature maps, the weights and the biases of :func:`forward`.

    Args:
        grad (Tensor): Gradient of the sum, contiguous, of the shape and dtype of the feature maps.
        features (Sequence[Tensor]): As given to :func:`forward`.
        statistics (Tensor): As returned by :func:`forward`.
        weights (Sequence[Tensor]): As given to :func:`forward`.

    Returns:
        tuple[list, list, list]: Of the shapes of the inputs; those of the weights and the biases in
        float32.
    """
    branches = len(features)
    reduce, apply, parts = _plans('backward', grad, branches)
    channels = grad.shape[1]
    sums = grad.new_empty((channels, parts, branches + 1), dtype=torch.float32)
    launch(_gradient_sums_kernel, reduce, *_three(features), grad, sums, statistics)
    grads = [torch.empty_like(x) for x in features]
    of_parameters = grad.new_empty((2, branches, channels), dtype=torch.float32)
    launch(
        _gradients_kernel, apply, *_three(features), *_three(grads), grad, sums, statistics,
        of_parameters, *_three(weights),
    )  # fmt: skip
    return grads, list(of_parameters[0]), list(of_parameters[1])


def _three(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the tensors, the last one repeated so that there are three."""
    return (*tensors, *tensors[-1:] * (3 - len(tensors)))


def _plans(name: str, x: Tensor, branches: int, **numbers: float) -> tuple[Plan, Plan, int]:
    """Return the plans of the two kernels of a pass, and the number of parts of a channel."""
    images, channels, height, width = x.shape
    size = height * width
    positions = min(BLOCK, triton.next_power_of_2(size))
    rows = min(BLOCK // positions, triton.next_power_of_2(images))
    blocks = triton.cdiv(images, rows) * triton.cdiv(size, positions)
    parts = min(blocks, triton.cdiv(PROGRAMS, channels))

    def make(second: bool) -> Plan:
        unit = gcd(size, 8)
        arguments = dict(
            images=images, channels=channels, units=size // unit,
            position_blocks=triton.cdiv(size, positions), blocks=blocks, parts=parts,
            BRANCHES=branches, IMAGES=rows, POSITIONS=positions, UNIT=unit,
        )  # fmt: skip
        if second:
            arguments.update(numbers, PARTS=triton.next_power_of_2(parts))
        return Plan(channels * parts, arguments)

    key = ('norms', name, x.shape, x.dtype, x.device, branches, *numbers.values())
    first = planned((*key, 1), lambda: make(False))
    return first, planned((*key, 2), lambda: make(True)), parts


# Arguments that differ between batches and feature maps. They must not cause a new compilation.
COUNTS = ('images', 'channels', 'units', 'position_blocks', 'blocks', 'parts')


@triton.jit
def _block(
    index, channel, images, channels, units, position_blocks,
    IMAGES: tl.constexpr, POSITIONS: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """Return the offsets of a block of one channel, and which of them are in the feature map."""
    size = units * UNIT
    image = index // position_blocks * IMAGES + tl.arange(0, IMAGES)
    position = index % position_blocks * POSITIONS + tl.arange(0, POSITIONS)
    start = (image.to(tl.int64) * channels + channel) * size
    inside = (image < images)[:, None] & (position < size)[None, :]
    return start[:, None] + position[None, :], inside


@triton.jit
def _shift(x_ptr, channel, units, POSITIONS: tl.constexpr, UNIT: tl.constexpr):
    """Return a value near the mean of a channel: the mean of the first block of the first image."""
    size = units * UNIT
    position = tl.arange(0, POSITIONS)
    x = tl.load(x_ptr + channel.to(tl.int64) * size + position, mask=position < size, other=0.0)
    return tl.sum(x.to(tl.float32), 0) / tl.minimum(size, POSITIONS)


@triton.jit
def _difference(x_ptr, offset, inside, shift):
    """Load a block and subtract a number; positions outside the feature map are 0."""
    x = tl.load(x_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    return tl.where(inside, x - shift, 0.0)


@triton.jit(do_not_specialize=COUNTS)
def _moments_kernel(
    x0_ptr, x1_ptr, x2_ptr, sums_ptr,
    images, channels, units, position_blocks, blocks, parts,
    BRANCHES: tl.constexpr, IMAGES: tl.constexpr, POSITIONS: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """Sum the differences from a shift and their squares over one part of a channel."""
    part = tl.program_id(0) % parts
    channel = tl.program_id(0) // parts
    shift0 = _shift(x0_ptr, channel, units, POSITIONS, UNIT)
    shift1 = _shift(x1_ptr, channel, units, POSITIONS, UNIT)
    sum0 = tl.zeros((IMAGES, POSITIONS), tl.float32)
    sum1, square0, square1 = sum0, sum0, sum0
    if BRANCHES == 3:
        shift2 = _shift(x2_ptr, channel, units, POSITIONS, UNIT)
        sum2, square2 = sum0, sum0
    for index in range(part, blocks, parts):
        offset, inside = _block(
            index, channel, images, channels, units, position_blocks, IMAGES, POSITIONS, UNIT
        )
        d0 = _difference(x0_ptr, offset, inside, shift0)
        d1 = _difference(x1_ptr, offset, inside, shift1)
        sum0 += d0
        sum1 += d1
        square0 += d0 * d0
        square1 += d1 * d1
        if BRANCHES == 3:
            d2 = _difference(x2_ptr, offset, inside, shift2)
            sum2 += d2
            square2 += d2 * d2
    out = sums_ptr + (channel * parts + part) * (3 * BRANCHES)
    tl.store(out, shift0)
    tl.store(out + 1, tl.sum(sum0))
    tl.store(out + 2, tl.sum(square0))
    tl.store(out + 3, shift1)
    tl.store(out + 4, tl.sum(sum1))
    tl.store(out + 5, tl.sum(square1))
    if BRANCHES == 3:
        tl.store(out + 6, shift2)
        tl.store(out + 7, tl.sum(sum2))
        tl.store(out + 8, tl.sum(square2))


@triton.jit
def _scale_and_shift(
    sums, statistics, weight_ptr, bias_ptr, mean_ptr, variance_ptr,
    channel, count, parts, momentum, eps, first,
    STEP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Return what a batch norm multiplies by and adds. The first program stores the statistics."""
    part = tl.arange(0, PARTS)
    known = part < parts
    total = tl.sum(tl.load(sums + part * STEP + 1, mask=known, other=0.0), 0)
    squares = tl.sum(tl.load(sums + part * STEP + 2, mask=known, other=0.0), 0)
    difference = total / count
    mean = tl.load(sums) + difference
    variance = tl.maximum(squares / count - difference * difference, 0.0)
    deviation = tl.rsqrt(variance + eps)
    if first:
        tl.store(statistics, mean)
        tl.store(statistics + 1, deviation)
        running = tl.load(mean_ptr + channel)
        new = running + momentum * (mean - running)
        tl.store(mean_ptr + channel, new.to(mean_ptr.dtype.element_ty))
        running = tl.load(variance_ptr + channel)
        new = running + momentum * (variance * (count / (count - 1)) - running)
        tl.store(variance_ptr + channel, new.to(variance_ptr.dtype.element_ty))
    scale = tl.load(weight_ptr + channel).to(tl.float32) * deviation
    return scale, tl.load(bias_ptr + channel).to(tl.float32) - mean * scale


@triton.jit(do_not_specialize=COUNTS)
def _apply_kernel(
    x0_ptr, x1_ptr, x2_ptr, out_ptr, sums_ptr, statistics_ptr,
    weight0_ptr, bias0_ptr, mean0_ptr, variance0_ptr,
    weight1_ptr, bias1_ptr, mean1_ptr, variance1_ptr,
    weight2_ptr, bias2_ptr, mean2_ptr, variance2_ptr,
    images, channels, units, position_blocks, blocks, parts, momentum, eps,
    BRANCHES: tl.constexpr, IMAGES: tl.constexpr, POSITIONS: tl.constexpr, UNIT: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    """Compute the sum of the batch norms for one part of a channel."""
    part = tl.program_id(0) % parts
    channel = tl.program_id(0) // parts
    first = part == 0
    count = (images.to(tl.int64) * units * UNIT).to(tl.float32)
    sums = sums_ptr + channel * parts * (3 * BRANCHES)
    statistics = statistics_ptr + channel * (2 * BRANCHES)
    scale0, add0 = _scale_and_shift(
        sums, statistics, weight0_ptr, bias0_ptr, mean0_ptr, variance0_ptr,
        channel, count, parts, momentum, eps, first, 3 * BRANCHES, PARTS,
    )  # fmt: skip
    scale1, add1 = _scale_and_shift(
        sums + 3, statistics + 2, weight1_ptr, bias1_ptr, mean1_ptr, variance1_ptr,
        channel, count, parts, momentum, eps, first, 3 * BRANCHES, PARTS,
    )  # fmt: skip
    add = add0 + add1
    if BRANCHES == 3:
        scale2, add2 = _scale_and_shift(
            sums + 6, statistics + 4, weight2_ptr, bias2_ptr, mean2_ptr, variance2_ptr,
            channel, count, parts, momentum, eps, first, 3 * BRANCHES, PARTS,
        )  # fmt: skip
        add += add2
    for index in range(part, blocks, parts):
        offset, inside = _block(
            index, channel, images, channels, units, position_blocks, IMAGES, POSITIONS, UNIT
        )
        total = tl.load(x0_ptr + offset, mask=inside, other=0.0).to(tl.float32) * scale0 + add
        total += tl.load(x1_ptr + offset, mask=inside, other=0.0).to(tl.float32) * scale1
        if BRANCHES == 3:
            total += tl.load(x2_ptr + offset, mask=inside, other=0.0).to(tl.float32) * scale2
        tl.store(out_ptr + offset, total.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=COUNTS)
def _gradient_sums_kernel(
    x0_ptr, x1_ptr, x2_ptr, grad_ptr, sums_ptr, statistics_ptr,
    images, channels, units, position_blocks, blocks, parts,
    BRANCHES: tl.constexpr, IMAGES: tl.constexpr, POSITIONS: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """Sum the gradient, and its products with the centred feature maps, over one part."""
    part = tl.program_id(0) % parts
    channel = tl.program_id(0) // parts
    statistics = statistics_ptr + channel * (2 * BRANCHES)
    mean0 = tl.load(statistics)
    mean1 = tl.load(statistics + 2)
    total = tl.zeros((IMAGES, POSITIONS), tl.float32)
    product0, product1 = total, total
    if BRANCHES == 3:
        mean2 = tl.load(statistics + 4)
        product2 = total
    for index in range(part, blocks, parts):
        offset, inside = _block(
            index, channel, images, channels, units, position_blocks, IMAGES, POSITIONS, UNIT
        )
        grad = tl.load(grad_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        total += grad
        product0 += grad * _difference(x0_ptr, offset, inside, mean0)
        product1 += grad * _difference(x1_ptr, offset, inside, mean1)
        if BRANCHES == 3:
            product2 += grad * _difference(x2_ptr, offset, inside, mean2)
    out = sums_ptr + (channel * parts + part) * (BRANCHES + 1)
    tl.store(out, tl.sum(total))
    tl.store(out + 1, tl.sum(product0))
    tl.store(out + 2, tl.sum(product1))
    if BRANCHES == 3:
        tl.store(out + 3, tl.sum(product2))


@triton.jit
def _factors(
    sums, statistics, weight_ptr, of_weight, channel, count, parts, first,
    STEP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Return the mean of a branch and the two factors of its gradient."""
    part = tl.arange(0, PARTS)
    product = tl.sum(tl.load(sums + part * STEP, mask=part < parts, other=0.0), 0)
    mean, deviation = tl.load(statistics), tl.load(statistics + 1)
    if first:
        tl.store(of_weight, product * deviation)
    scale = tl.load(weight_ptr + channel).to(tl.float32) * deviation
    return mean, scale, product * deviation * deviation / count


@triton.jit(do_not_specialize=COUNTS)
def _gradients_kernel(
    x0_ptr, x1_ptr, x2_ptr, grad0_ptr, grad1_ptr, grad2_ptr, grad_ptr, sums_ptr, statistics_ptr,
    parameters_ptr, weight0_ptr, weight1_ptr, weight2_ptr,
    images, channels, units, position_blocks, blocks, parts,
    BRANCHES: tl.constexpr, IMAGES: tl.constexpr, POSITIONS: tl.constexpr, UNIT: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of the feature maps for one part of a channel."""
    part = tl.program_id(0) % parts
    channel = tl.program_id(0) // parts
    first = part == 0
    count = (images.to(tl.int64) * units * UNIT).to(tl.float32)
    sums = sums_ptr + channel * parts * (BRANCHES + 1)
    statistics = statistics_ptr + channel * (2 * BRANCHES)
    of_weights = parameters_ptr + channel
    of_biases = parameters_ptr + BRANCHES * channels + channel
    index_of_part = tl.arange(0, PARTS)
    total = tl.sum(
        tl.load(sums + index_of_part * (BRANCHES + 1), mask=index_of_part < parts, other=0.0),
        0,
    )
    average = total / count
    if first:
        tl.store(of_biases, total)
        tl.store(of_biases + channels, total)
        if BRANCHES == 3:
            tl.store(of_biases + 2 * channels, total)
    mean0, scale0, slope0 = _factors(
        sums + 1, statistics, weight0_ptr, of_weights,
        channel, count, parts, first, BRANCHES + 1, PARTS,
    )  # fmt: skip
    mean1, scale1, slope1 = _factors(
        sums + 2, statistics + 2, weight1_ptr, of_weights + channels,
        channel, count, parts, first, BRANCHES + 1, PARTS,
    )  # fmt: skip
    if BRANCHES == 3:
        mean2, scale2, slope2 = _factors(
            sums + 3, statistics + 4, weight2_ptr, of_weights + 2 * channels,
            channel, count, parts, first, BRANCHES + 1, PARTS,
        )  # fmt: skip
    for index in range(part, blocks, parts):
        offset, inside = _block(
            index, channel, images, channels, units, position_blocks, IMAGES, POSITIONS, UNIT
        )
        grad = tl.load(grad_ptr + offset, mask=inside, other=0.0).to(tl.float32) - average
        x = tl.load(x0_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        value = scale0 * (grad - slope0 * (x - mean0))
        tl.store(grad0_ptr + offset, value.to(grad0_ptr.dtype.element_ty), mask=inside)
        x = tl.load(x1_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        value = scale1 * (grad - slope1 * (x - mean1))
        tl.store(grad1_ptr + offset, value.to(grad1_ptr.dtype.element_ty), mask=inside)
        if BRANCHES == 3:
            x = tl.load(x2_ptr + offset, mask=inside, other=0.0).to(tl.float32)
            value = scale2 * (grad - slope2 * (x - mean2))
            tl.store(grad2_ptr + offset, value.to(grad2_ptr.dtype.element_ty), mask=inside)
