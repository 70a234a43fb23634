"""SNIP: scores of weights by the sensitivity of the loss to them (Lee et al. 2019)."""

import contextlib
from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn


def snip_scores(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], closure: Callable[[], Tensor]
) -> dict[str, Tensor]:
    """Compute SNIP's connection sensitivity |g * w| of weights (Lee et al. 2019).

    The gradient g is averaged over the processes of ``torch.distributed`` first, where there
    are several. The model is left as it was: no ``.grad``, the buffers (statistics of batch
    norms), training flags and PyTorch's random state as before.

    Args:
        model (nn.Module): The network itself, not its distributed wrapper.
        parameters (Mapping[str, nn.Parameter]): The weights to score; one that is frozen or
            has no influence on the loss scores 0.
        closure (Callable): Runs the model on one batch and returns the loss, a scalar.

    Returns:
        dict[str, Tensor]: Scores of the parameters' shapes and dtypes.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    training = [(module, module.training) for module in model.modules()]
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    devices = {p.get_device() for p in parameters.values() if p.is_cuda}
    with contextlib.ExitStack() as stack:
        stack.callback(_restore, buffers, training)
        stack.enter_context(torch.random.fork_rng(devices=sorted(devices)))
        stack.enter_context(torch.enable_grad())
        found = torch.autograd.grad(closure(), list(trained.values()), allow_unused=True)
    gradients = dict(zip(trained, found, strict=True))
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    scores = {}
    for name, parameter in parameters.items():
        gradient = gradients.get(name)
        if gradient is None:
            gradient = torch.zeros_like(parameter)
        if several:
            gradient = gradient.contiguous()
            dist.all_reduce(gradient)
            gradient = gradient / dist.get_world_size()
        scores[name] = (gradient * parameter.detach()).abs()
    return scores


def _restore(buffers: list, training: list) -> None:
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    for module, flag in training:
        module.training = flag


def check_scores(shapes: Mapping[str, tuple], scores: Mapping[str, Tensor] | None) -> None:
    """Check the scores of weights for ``allocation='snip'``.

    Raises:
        ValueError: If scores are missing, of another shape, negative, not finite or all 0.
    """
    if scores is None:
        raise ValueError("allocation='snip' needs the scores of the weights, got none")
    for name, shape in shapes.items():
        if name not in scores or tuple(scores[name].shape) != shape:
            got = tuple(scores[name].shape) if name in scores else 'none'
            raise ValueError(f'scores of {name!r} must have its shape {shape}, got {got}')
        if not torch.isfinite(scores[name]).all() or (scores[name] < 0).any():
            raise ValueError(f'scores of {name!r} must be finite and at least 0, as |g * w| is')
    if not any((scores[name] > 0).any() for name in shapes):
        raise ValueError('scores must not all be 0: the loss depends on none of the weights')
