"""The operator: differentiable depth-wise convolution with large kernels on any device.

PyTorch knows it as ``mmslak::depthwise_conv2d``, a sum of depth-wise convolutions of one input. Its
gradient with respect to the input is the same operator with flipped kernels. Its gradient with
respect to a kernel is ``mmslak::depthwise_conv2d_weight_gradient``, which is bilinear. Gradients of
any order therefore consist of these two operators.
"""

import functools
import math
import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.flop_counter import register_flop_formula

from . import cpp, measured, native, pytorch

#: Values of ``implementation``: ``auto`` chooses by device, dtype and shape, on GPUs by timing
#: (``measured.py``); ``native`` is PyTorch's convolution; ``pytorch`` consists of other operators
#: of PyTorch; ``cpp`` is compiled for this CPU on first use; ``triton`` runs on GPUs.
IMPLEMENTATIONS = ('auto', 'native', 'pytorch', 'cpp', 'triton')
_HALF = (torch.float16, torch.bfloat16)
#: Without compiled kernels, wide kernels of more than so many columns are transposed.
SMALL_KERNEL = 7


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    implementation: str = 'auto',
    dilation: int | tuple[int, int] = 1,
) -> Tensor:
    """Convolve each channel with its own kernel, with stride 1 and "same" zero padding.

    It supports autocast, ``torch.compile``, ``torch.export``, activation checkpointing and
    gradients of any order. Inside the transforms of ``torch.func`` and for forward-mode
    derivatives it is computed by PyTorch's own convolution. On a CPU the result is bitwise
    reproducible and does not depend on the number of threads.

    Args:
        x (Tensor): Feature maps of shape (N, C, H, W), any strides.
        weight (Tensor): Kernels of shape (C, 1, kh, kw), kh and kw odd.
        bias (Tensor, optional): Of shape (C,).
        implementation (str): One of :data:`IMPLEMENTATIONS`; the environment variable
            ``MMSLAK_DEPTHWISE`` replaces ``auto``.
        dilation (int or tuple[int, int]): Vertical and horizontal distance of neighbouring
            weights, in positions of the feature map. The zero padding is
            ``dilation * (k - 1) / 2`` on each side.

    Returns:
        Tensor: Shape (N, C, H, W), in the memory format of ``x``.

    Raises:
        ValueError: For an unknown implementation, one that cannot run on this device, a dilation
            that is not positive, or tensors whose shapes, dtypes or devices do not fit.
    """
    return _sum_of_convolutions(x, [weight], bias, implementation, dilation)


def decomposed_conv2d(
    x: Tensor,
    tall: Tensor,
    wide: Tensor,
    small: Tensor | None = None,
    bias: Tensor | None = None,
    implementation: str = 'auto',
    dilation: int | tuple[int, int] = 1,
) -> Tensor:
    """Sum depth-wise convolutions with an M x N, an N x M and an N x N kernel (paper, section 4).

    The small kernel is added to the centre of the tall one, so that two convolutions remain.

    Args:
        x (Tensor): Feature maps of shape (N, C, H, W).
        tall (Tensor): Shape (C, 1, M, N).
        wide (Tensor): Shape (C, 1, N, M).
        small (Tensor, optional): Shape (C, 1, N, N), or any that fits inside ``tall``.
        bias (Tensor, optional): Of shape (C,).
        implementation (str): As for :func:`depthwise_conv2d`.
        dilation (int or tuple[int, int]): Of all three kernels, as for :func:`depthwise_conv2d`.

    Returns:
        Tensor: Shape (N, C, H, W), in the memory format of ``x``.

    Raises:
        ValueError: As for :func:`depthwise_conv2d`, and if ``small`` is larger than ``tall``.
    """
    if small is not None:
        tall = add_centred(tall, small)
    return _sum_of_convolutions(x, [tall, wide], bias, implementation, dilation)


def add_centred(weight: Tensor, small: Tensor) -> Tensor:
    """Add small kernels to the centre of larger ones.

    Args:
        weight (Tensor): Larger kernels of shape (C, 1, H, W), H and W odd.
        small (Tensor): Kernels of shape (C, 1, h, w), h and w odd.

    Returns:
        Tensor: Shape (C, 1, H, W).

    Raises:
        ValueError: If a small kernel is higher or wider than the larger one.
    """
    high, broad = (a - b for a, b in zip(weight.shape[-2:], small.shape[-2:], strict=True))
    if high < 0 or broad < 0:
        raise ValueError(
            f'a small kernel of size {tuple(small.shape[-2:])} does not fit inside a kernel of '
            f'size {tuple(weight.shape[-2:])}'
        )
    return weight + F.pad(small, (broad // 2, broad // 2, high // 2, high // 2))


#: Implementation that replaces ``auto`` in this process.
_DEFAULT = os.environ.get('MMSLAK_DEPTHWISE', 'auto')


def resolve(implementation: str) -> str:
    """Return the implementation; the environment variable ``MMSLAK_DEPTHWISE`` replaces ``auto``.

    Args:
        implementation (str): One of :data:`IMPLEMENTATIONS`.

    Raises:
        ValueError: If it is not one of :data:`IMPLEMENTATIONS`.
    """
    where, name = 'implementation', implementation
    if implementation == 'auto':
        where, name = 'MMSLAK_DEPTHWISE', _DEFAULT
    if name not in IMPLEMENTATIONS:
        allowed = ', '.join(map(repr, IMPLEMENTATIONS))
        raise ValueError(f'{where} must be one of {allowed}, got {name!r}')
    return name


def _sum_of_convolutions(
    x: Tensor,
    weights: list[Tensor],
    bias: Tensor | None,
    implementation: str,
    dilation: int | tuple[int, int],
) -> Tensor:
    implementation, dilation = resolve(implementation), _pair(dilation)
    device = x.device.type
    autocast = device != 'meta' and torch.is_autocast_enabled(device)
    if autocast and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        x, bias = x.to(dtype), None if bias is None else bias.to(dtype)
        weights = [weight.to(dtype) for weight in weights]
    _check_tensors(x, weights, bias)
    if implementation == 'native' or is_transformed():
        return _sum_of_native(x, weights, bias, dilation)
    if _is_exporting_to_onnx():
        return standard_operators(x, weights, bias, dilation=dilation)
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _Convolution.apply(x, bias, implementation, dilation, *weights)
    return _convolve(x, weights, bias, implementation, dilation)


def _pair(dilation: int | tuple[int, int]) -> tuple[int, int]:
    steps = (dilation, dilation) if isinstance(dilation, int) else tuple(dilation)
    if len(steps) != 2 or not all(isinstance(step, int) and step > 0 for step in steps):
        raise ValueError(f'dilation must be a positive int or two of them, got {dilation!r}')
    return steps


def _is_exporting_to_onnx() -> bool:
    # The first two are fast, and false outside of any export.
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return traced and torch.onnx.is_in_onnx_export()


def _needs_dispatcher(x: Tensor) -> bool:
    """Return whether PyTorch must see a call of the operator.

    Tracing, counting and other modes, subclasses of tensors, and gradients of gradients rely on
    it. Otherwise the implementation is called directly, because calling a Python function through
    the dispatcher takes longer than a small convolution.
    """
    return (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or type(x) not in (Tensor, torch.nn.Parameter)
        or x.device.type not in ('cpu', 'cuda')
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.is_legacy_batchedtensor(x)
        or torch.jit.is_tracing()
    )


def _convolve(
    x: Tensor,
    weights: list[Tensor],
    bias: Tensor | None,
    implementation: str,
    dilation: Sequence[int],
) -> Tensor:
    run = torch.ops.mmslak.depthwise_conv2d if _needs_dispatcher(x) else _forward
    return run(x, weights, bias, implementation, dilation)


def _differentiate(
    x: Tensor,
    grad: Tensor,
    height: int,
    width: int,
    implementation: str,
    dilation: Sequence[int],
) -> Tensor:
    """Return the gradient of one kernel."""
    run = torch.ops.mmslak.depthwise_conv2d_weight_gradient
    if not (_needs_dispatcher(x) or _needs_dispatcher(grad)):
        run = _weight_gradient
    return run(x, grad, height, width, implementation, dilation)


class _Convolution(torch.autograd.Function):
    """The operator with its rule of differentiation, for eager mode.

    ``torch.library`` adds the same rule below, for tracing and for gradients of gradients. It
    flattens lists of arguments in every call, which takes longer than a small convolution.
    """

    @staticmethod
    def forward(ctx, x, bias, implementation, dilation, *weights):
        _save(ctx, (x, weights, bias, implementation, dilation), None)
        return _convolve(x, weights, bias, implementation, dilation)

    @staticmethod
    def backward(ctx, grad):
        needs_x, needs_bias, _, _, *needs_weights = ctx.needs_input_grad
        x_grad, weight_grads, bias_grad = _gradients(ctx, grad, needs_x, needs_weights, needs_bias)
        return x_grad, bias_grad, None, None, *weight_grads


def is_transformed() -> bool:
    """Return whether a transform of ``torch.func`` or forward-mode differentiation is active.

    The operator has no rules for them, but PyTorch's own convolution has.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _check_tensors(x: Tensor, weights: list[Tensor], bias: Tensor | None) -> None:
    if x.dim() != 4:
        raise ValueError(f'x must have shape (N, C, H, W), got {tuple(x.shape)}')
    channels = x.shape[1]
    for weight in weights:
        if weight.dim() != 4 or weight.shape[0] != channels or weight.shape[1] != 1:
            raise ValueError(
                f'weight must have shape ({channels}, 1, kh, kw) for {channels} channels, got '
                f'{tuple(weight.shape)}'
            )
        if weight.shape[2] % 2 == 0 or weight.shape[3] % 2 == 0:
            raise ValueError(
                'weight must have odd kernel sizes ("same" padding), got '
                f'{tuple(weight.shape[-2:])}'
            )
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f'bias must have shape ({channels},), got {tuple(bias.shape)}')
    if not x.is_floating_point():
        raise ValueError(f'x must have a floating-point dtype, got {x.dtype}')
    for tensor in (*weights, *(() if bias is None else (bias,))):
        if tensor.dtype != x.dtype or tensor.device != x.device:
            raise ValueError(
                f'weight and bias must have the dtype and device of x, {x.dtype} on {x.device}, '
                f'got {tensor.dtype} on {tensor.device}'
            )


def _sum_of_native(
    x: Tensor, weights: list[Tensor], bias: Tensor | None, dilation: Sequence[int]
) -> Tensor:
    first, *others = weights
    out = native.forward(x, first, bias, dilation=dilation)
    for weight in others:
        out = out + native.forward(x, weight, dilation=dilation)
    return out


def standard_operators(
    x: Tensor,
    weights: list[Tensor],
    bias: Tensor | None,
    implementation: str = 'auto',
    dilation: Sequence[int] = (1, 1),
) -> Tensor:
    """Compute ``mmslak::depthwise_conv2d`` by operators of PyTorch, for exported networks.

    ``torch.onnx.export`` uses this function by itself. For other formats, replace the operator in a
    program of ``torch.export`` by
    ``program.run_decompositions({torch.ops.mmslak.depthwise_conv2d.default: standard_operators})``.

    Wide kernels are transposed, because not only PyTorch but also ONNX Runtime is faster with
    tall ones on a CPU (``tools/benchmark/onnx_runtime.py``).

    Args:
        x (Tensor): Feature maps of shape (N, C, H, W).
        weights (list[Tensor]): Kernels of shape (C, 1, kh, kw), kh and kw odd.
        bias (Tensor, optional): Of shape (C,).
        implementation (str): Not used.
        dilation (Sequence[int]): Steps between the weights along height and width.

    Returns:
        Tensor: The sum of the convolutions, of shape (N, C, H, W).
    """
    out = None
    for weight in weights:
        # Kernels with one row are faster as they are.
        transposed = max(weight.shape[-2:]) > SMALL_KERNEL and weight.shape[-2] > 1
        module = pytorch if transposed else native
        added = module.forward(x, weight, bias, dilation=dilation)
        out, bias = added if out is None else out + added, None
    return out


def choose(
    x: Tensor,
    kernel_size: tuple[int, int],
    gradient: bool = False,
    dilation: Sequence[int] = (1, 1),
) -> str:
    """Choose the implementation of ``auto`` by device, dtype and shape.

    Args:
        x (Tensor): The feature map, of shape (N, C, H, W).
        kernel_size (tuple[int, int]): Height and width of the kernel.
        gradient (bool): Choose for the gradient of the kernel instead of the convolution.
        dilation (Sequence[int]): Vertical and horizontal distance of neighbouring weights.

    Returns:
        str: ``native``, ``pytorch``, ``cpp``, or ``measured``, which chooses between ``native`` and
        ``triton`` by timing both.
    """
    if x.device.type == 'cuda':
        return 'measured' if measured.is_worthwhile(x, kernel_size, dilation) else 'native'
    if x.device.type != 'cpu' or x.dtype not in (*_HALF, torch.float32, torch.float64):
        return 'native'
    if not cpp.available():
        return 'pytorch' if max(kernel_size) > SMALL_KERNEL else 'native'
    if gradient:
        return 'cpp'
    # In tools/benchmark/large_kernel.py PyTorch's convolution was faster for small kernels with
    # channels last, and for tall kernels on small feature maps. With channels last and without
    # AVX-512 these are the smallest ones only.
    last = x.is_contiguous(memory_format=torch.channels_last)
    positions = 64 if last and not _has_avx512() else 256
    tall = kernel_size[0] > kernel_size[1] and x.shape[2] * x.shape[3] <= positions
    return 'native' if tall or (last and max(kernel_size) <= 3) else 'cpp'


@functools.cache
def _has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability() == 'AVX512'


_MODULES = {'native': native, 'pytorch': pytorch, 'cpp': cpp, 'measured': measured}


def _implementation(
    x: Tensor,
    kernel_size: tuple[int, int],
    asked: str,
    dilation: Sequence[int],
    gradient: bool = False,
):
    """Return the module of the implementation, with its ``forward`` and ``weight_gradient``."""
    name = choose(x, kernel_size, gradient, dilation) if asked == 'auto' else asked
    if name == 'cpp' and (x.device.type != 'cpu' or not cpp.available()):
        raise ValueError(
            "implementation='cpp' needs tensors on the CPU and a C++ compiler (g++, clang++, c++ "
            f'or the one in the environment variable CXX), got a tensor on {x.device}; '
            "implementation='auto' runs everywhere"
        )
    if name == 'triton' and not measured.triton_runs_on(x):
        raise ValueError(
            "implementation='triton' needs Triton and tensors of float16, bfloat16 or float32 on a "
            f"CUDA device, got {x.dtype} on {x.device}; implementation='auto' runs everywhere"
        )
    return measured.triton() if name == 'triton' else _MODULES[name]


def _widened(x: Tensor, implementation) -> bool:
    """Return whether an implementation computes 16-bit dtypes in float32."""
    return implementation in (cpp, pytorch) and x.dtype in _HALF


def _outside_autocast(function):
    """Run a function with autocast turned off.

    Autocast is still on inside an operator. PyTorch's convolution would return another dtype than
    that of its inputs, and the compiled kernels would write into memory of the wrong size.
    """

    @functools.wraps(function)
    def run(x: Tensor, *arguments):
        device = x.device.type
        # torch.autocast knows no meta device.
        if device == 'meta' or not torch.is_autocast_enabled(device):
            return function(x, *arguments)
        with torch.autocast(device, enabled=False):
            return function(x, *arguments)

    return run


@_outside_autocast
def _forward(
    x: Tensor,
    weights: list[Tensor],
    bias: Tensor | None,
    implementation: str,
    dilation: Sequence[int] = (1, 1),
) -> Tensor:
    if not x.numel():
        return torch.empty_like(x)
    modules = [_implementation(x, w.shape[-2:], implementation, dilation) for w in weights]
    if any(_widened(x, module) for module in modules):
        weights = [weight.float() for weight in weights]
        bias = None if bias is None else bias.float()
        out = _forward(x.float(), weights, bias, implementation, dilation)
        return _laid_out(out, x).to(x.dtype)
    out = None
    for module, weight in zip(modules, weights, strict=True):
        out = _laid_out(module.forward(x, weight, bias, out, dilation=dilation), x)
        bias = None
    return out


@_outside_autocast
def _weight_gradient(
    x: Tensor,
    grad: Tensor,
    height: int,
    width: int,
    implementation: str,
    dilation: Sequence[int] = (1, 1),
) -> Tensor:
    if not x.numel():
        return x.new_zeros(x.shape[1], 1, height, width)
    size = height, width
    module = _implementation(x, size, implementation, dilation, gradient=True)
    if _widened(x, module):
        return module.weight_gradient(x.float(), grad.float(), size, dilation=dilation).to(x.dtype)
    return module.weight_gradient(x, grad, size, dilation=dilation).contiguous()


def _laid_out(out: Tensor, x: Tensor) -> Tensor:
    """Return ``out`` with the strides of ``torch.empty_like(x)``, which the operator promises."""
    if out.stride() == x.stride() and (
        x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    ):
        return out
    like = torch.empty_like(x, device='meta', dtype=out.dtype)
    if out.stride() == like.stride():
        return out
    return torch.empty_like(x, dtype=out.dtype).copy_(out)


_library = torch.library.Library('mmslak', 'DEF')
_library.define(
    'depthwise_conv2d(Tensor x, Tensor[] weights, Tensor? bias, str implementation, '
    'int[2] dilation=[1, 1]) -> Tensor'
)
_library.define(
    'depthwise_conv2d_weight_gradient(Tensor x, Tensor grad, SymInt height, SymInt width, '
    'str implementation, int[2] dilation=[1, 1]) -> Tensor'
)
# For every device. Autograd and tracing have rules of their own below.
_EVERYWHERE = 'CompositeExplicitAutograd'
_library.impl('depthwise_conv2d', _forward, _EVERYWHERE)
_library.impl('depthwise_conv2d_weight_gradient', _weight_gradient, _EVERYWHERE)


@torch.library.register_fake('mmslak::depthwise_conv2d', lib=_library)
def _(x, weights, bias, implementation, dilation=(1, 1)):
    return torch.empty_like(x)


@torch.library.register_fake('mmslak::depthwise_conv2d_weight_gradient', lib=_library)
def _(x, grad, height, width, implementation, dilation=(1, 1)):
    return x.new_empty(x.shape[1], 1, height, width)


def _save(ctx, inputs, output) -> None:
    x, weights, _, ctx.implementation, ctx.dilation = inputs
    ctx.save_for_backward(x, *weights)


def _backward(ctx, grad):
    # The dispatcher leaves out the dilation if it equals its default.
    needs_x, needs_weights, needs_bias, *options = ctx.needs_input_grad
    return *_gradients(ctx, grad, needs_x, needs_weights, needs_bias), *(None for _ in options)


def _gradients(ctx, grad, needs_x, needs_weights, needs_bias):
    x, *weights = ctx.saved_tensors
    x_grad = bias_grad = None
    if needs_x:
        flipped = [weight.flip(2, 3) for weight in weights]
        x_grad = _convolve(grad, flipped, None, ctx.implementation, ctx.dilation)
    # Autograd expects one entry for each kernel, None where no gradient is needed.
    weight_grads = [
        _differentiate(x, grad, *weight.shape[-2:], ctx.implementation, ctx.dilation)
        if needed
        else None
        for weight, needed in zip(weights, needs_weights, strict=True)
    ]
    if needs_bias:
        bias_grad = grad.sum((0, 2, 3))
    return x_grad, weight_grads, bias_grad


def _save_for_second(ctx, inputs, output) -> None:
    x, grad, _, _, *ctx.options = inputs
    ctx.save_for_backward(x, grad)


def _second_backward(ctx, kernel):
    # <kernel, weight_gradient(x, grad)> = <conv(x, kernel), grad>, linear in both.
    x, grad = ctx.saved_tensors
    x_grad = grad_grad = None
    if ctx.needs_input_grad[0]:
        flipped = [kernel.flip(2, 3)]
        x_grad = torch.ops.mmslak.depthwise_conv2d(grad, flipped, None, *ctx.options)
    if ctx.needs_input_grad[1]:
        grad_grad = torch.ops.mmslak.depthwise_conv2d(x, [kernel], None, *ctx.options)
    return x_grad, grad_grad, None, None, None, None


torch.library.register_autograd(
    'mmslak::depthwise_conv2d', _backward, setup_context=_save, lib=_library
)
torch.library.register_autograd(
    'mmslak::depthwise_conv2d_weight_gradient',
    _second_backward,
    setup_context=_save_for_second,
    lib=_library,
)


def _folded(x: Tensor, dim: int | None, batch: int, into: int) -> Tensor:
    """Fold the batch dimension ``dim`` (None: not batched) into dimension ``into``."""
    if dim is None:
        x = x.unsqueeze(into).expand(*x.shape[:into], batch, *x.shape[into:])
    else:
        x = x.movedim(dim, into)
    return x.flatten(into, into + 1)


def _batched_forward(batch: int, dims, x, weights, bias, *options) -> tuple[Tensor, int]:
    """Convolve tensors with a batch dimension each (None: not batched)."""
    x_dim, weight_dims, bias_dim, *_ = dims
    # A batch of kernels becomes kernels of more channels. Otherwise there are only more images.
    more_channels = any(dim is not None for dim in (*weight_dims, bias_dim))
    into = 1 if more_channels else 0
    if more_channels:
        pairs = zip(weights, weight_dims, strict=True)
        weights = [_folded(weight, dim, batch, 0) for weight, dim in pairs]
        bias = None if bias is None else _folded(bias, bias_dim, batch, 0)
    x = _folded(x, x_dim, batch, into)
    out = torch.ops.mmslak.depthwise_conv2d(x, weights, bias, *options)
    return out.unflatten(into, (batch, out.shape[into] // batch)), into


def _batched_weight_gradient(batch: int, dims, x, grad, *options) -> tuple[Tensor, int]:
    """Return the weight gradient of each element of a batch, computed as of more channels."""
    x, grad = _folded(x, dims[0], batch, 1), _folded(grad, dims[1], batch, 1)
    out = torch.ops.mmslak.depthwise_conv2d_weight_gradient(x, grad, *options)
    return out.unflatten(0, (batch, out.shape[0] // batch)), 0


def _register_batching(name: str, rule) -> None:
    """Register the rule for ``torch.vmap`` and for the batched gradients of ``torch.autograd``."""
    torch.library.register_vmap(
        f'mmslak::{name}',
        lambda info, dims, *arguments: rule(info.batch_size, dims, *arguments),
        lib=_library,
    )

    # torch.autograd.grad(is_grads_batched=True) and functional.jacobian(vectorize=True) still use
    # an older vmap with other tensors and without a public interface.
    def batched_gradients(*arguments):
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        return at_level(level, arguments)

    def at_level(level: int, arguments):
        if not level:
            return getattr(torch.ops.mmslak, name)(*arguments)
        leaves, structure = tree_flatten(arguments)
        dims = [None] * len(leaves)
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                # A tensor that is not batched at this level gets a batch of this size, 0.
                plain = torch._remove_batch_dim(leaf, level, 0, 0)
                if plain.shape[0]:
                    leaves[i], dims[i], batch = plain, 0, plain.shape[0]
        if not any(dim is not None for dim in dims):
            return at_level(level - 1, arguments)
        out, dim = rule(batch, tree_unflatten(dims, structure), *tree_unflatten(leaves, structure))
        return torch._add_batch_dim(out, dim, level)

    _library.impl(name, batched_gradients, 'Batched')


_register_batching('depthwise_conv2d', _batched_forward)
_register_batching('depthwise_conv2d_weight_gradient', _batched_weight_gradient)


@register_flop_formula(torch.ops.mmslak.depthwise_conv2d)
def _(x_shape, weight_shapes, *options, out_shape=None, **kwargs) -> int:
    """Count two operations for each weight and position, as for PyTorch's convolutions."""
    return sum(2 * math.prod(x_shape) * math.prod(shape[-2:]) for shape in weight_shapes)


@register_flop_formula(torch.ops.mmslak.depthwise_conv2d_weight_gradient)
def _(x_shape, grad_shape, height, width, *options, out_shape=None, **kwargs) -> int:
    return 2 * math.prod(x_shape) * height * width
