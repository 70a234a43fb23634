"""The sum of the batch norms of parallel convolutions, fused on GPUs in training."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import measured
from .depthwise import is_transformed


def sum_of_batch_norms(features: Sequence[Tensor], norms: Sequence[nn.Module]) -> Tensor:
    """Apply one norm to each feature map, and add the results.

    On a GPU two or three batch norms in training are computed together, and read each feature map
    less often. Sums are in float32 there. All other norms are called one after the other.

    Args:
        features (Sequence[Tensor]): Of shape (N, C, H, W), one for each norm.
        norms (Sequence[nn.Module]): The norms.

    Returns:
        Tensor: Of shape (N, C, H, W).
    """
    if features[0].is_cuda and can_fuse(features, norms):
        try:
            return fused(features, norms)
        except Exception as error:
            measured.fall_back(error)
    out = 0
    for norm, x in zip(norms, features, strict=True):
        out = out + norm(x)
    return out


def can_fuse(features: Sequence[Tensor], norms: Sequence[nn.Module]) -> bool:
    """Return whether :func:`fused` computes the same as the norms and Triton runs here.

    Args:
        features (Sequence[Tensor]): As for :func:`sum_of_batch_norms`.
        norms (Sequence[nn.Module]): Likewise.
    """
    first, norm = features[0], norms[0]
    return (
        len(norms) in (2, 3)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not is_transformed()
        and measured.available(first)
        and all(map(_is_plain, norms))
        and all((n.momentum, n.eps) == (norm.momentum, norm.eps) for n in norms)
        and all(
            type(x) is Tensor
            and (x.shape, x.dtype, x.device) == (first.shape, first.dtype, first.device)
            and x.is_contiguous()
            for x in features
        )
        # A variance needs two values.
        and first.numel() > first.shape[1]
    )


def has_hooks(module: nn.Module) -> bool:
    """Return whether a module must be called, because it has hooks."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _is_plain(norm: nn.Module) -> bool:
    """Return whether a norm is a batch norm in training, without hooks."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.running_mean is not None
        and norm.momentum is not None
        and not has_hooks(norm)
    )


def fused(features: Sequence[Tensor], norms: Sequence[nn.BatchNorm2d]) -> Tensor:
    """Compute the sum of batch norms in training by Triton, and update their statistics.

    Args:
        features (Sequence[Tensor]): Two or three contiguous feature maps of shape (N, C, H, W).
        norms (Sequence[nn.BatchNorm2d]): Batch norms of the same momentum and epsilon.

    Returns:
        Tensor: Of shape (N, C, H, W), in the dtype of the feature maps.
    """
    parameters = [p for norm in norms for p in (norm.weight, norm.bias)]
    out = _SumOfBatchNorms.apply(norms, *features, *parameters)
    torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)
    return out


class _SumOfBatchNorms(torch.autograd.Function):
    @staticmethod
    def forward(ctx, norms, *tensors):
        from . import triton_norms

        count = len(norms)
        features, parameters = tensors[:count], tensors[count:]
        out, statistics = triton_norms.forward(
            features,
            parameters[::2],
            parameters[1::2],
            [norm.running_mean for norm in norms],
            [norm.running_var for norm in norms],
            float(norms[0].momentum),
            norms[0].eps,
        )
        ctx.eps, ctx.count = norms[0].eps, count
        ctx.save_for_backward(statistics, *tensors)
        return out

    @staticmethod
    def backward(ctx, grad):
        statistics, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        again = torch.is_grad_enabled()
        if not again:
            try:
                return None, *_gradients(ctx.count, grad, statistics, tensors)
            except Exception as error:
                measured.fall_back(error)
        # Gradients of gradients need PyTorch's operators.
        with torch.enable_grad():
            inputs = [tensor for tensor, need in zip(tensors, needed, strict=True) if need]
            out = _composite(ctx.count, tensors, ctx.eps)
            found = iter(torch.autograd.grad(out, inputs, grad, create_graph=again))
        return None, *(next(found) if need else None for need in needed)


def _gradients(
    count: int, grad: Tensor, statistics: Tensor, tensors: Sequence[Tensor]
) -> list[Tensor]:
    """Return the gradients of the feature maps and the parameters, by Triton."""
    from . import triton_norms

    features, parameters = tensors[:count], tensors[count:]
    of_features, of_weights, of_biases = triton_norms.backward(
        grad.contiguous(), features, statistics, parameters[::2]
    )
    of_parameters = [g for pair in zip(of_weights, of_biases, strict=True) for g in pair]
    return [
        *of_features,
        *(g.to(p.dtype) for g, p in zip(of_parameters, parameters, strict=True)),
    ]


def _composite(count: int, tensors: Sequence[Tensor], eps: float) -> Tensor:
    """Compute the sum of batch norms by PyTorch's operators, without running statistics."""
    features, parameters = tensors[:count], tensors[count:]
    pairs = zip(parameters[::2], parameters[1::2], strict=True)
    return sum(
        F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)
        for x, (weight, bias) in zip(features, pairs, strict=True)
    )
