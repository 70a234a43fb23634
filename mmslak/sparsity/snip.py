"""SNIP: scores of the sensitivity of the loss to each weight (Lee et al. 2019)."""

import contextlib
from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn


def snip_scores(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    closure: Callable[[], Tensor],
    batches: int = 1,
) -> dict[str, Tensor]:
    """Compute SNIP's connection sensitivity |g * w| of weights.

    With several processes of ``torch.distributed`` the gradient g is first averaged over them. The
    model does not change: its ``.grad``, its buffers (statistics of batch norms), its training
    flags and PyTorch's random state are the same afterwards.

    Source: Lee et al. 2019.

    Args:
        model (nn.Module): The network itself, not its distributed wrapper.
        parameters (Mapping[str, nn.Parameter]): The weights to score. A weight that is frozen or
            does not influence the loss has the score 0.
        closure (Callable): Runs the model on one batch and returns the loss, a scalar.
        batches (int): Number of calls of ``closure``, over which the gradient is averaged. Only the
            activations of one batch are in memory at a time.

    Returns:
        dict[str, Tensor]: Scores by name, with the shapes and dtypes of the parameters.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    training = [(module, module.training) for module in model.modules()]
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    devices = {p.get_device() for p in parameters.values() if p.is_cuda}
    with contextlib.ExitStack() as stack:
        stack.callback(_restore, buffers, training)
        stack.enter_context(torch.random.fork_rng(devices=sorted(devices)))
        stack.enter_context(torch.enable_grad())
        gradients: dict[str, Tensor] = {}
        for _ in range(batches):
            found = torch.autograd.grad(closure(), list(trained.values()), allow_unused=True)
            for name, gradient in zip(trained, found, strict=True):
                if gradient is not None:
                    known = gradients.get(name)
                    gradients[name] = gradient if known is None else known + gradient
    distributed = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    scores = {}
    for name, parameter in parameters.items():
        gradient = gradients.get(name)
        if gradient is None:
            gradient = torch.zeros_like(parameter)
        gradient = gradient / batches
        if distributed:
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

    Args:
        shapes (Mapping[str, tuple]): Shapes of the weights by name.
        scores (Mapping[str, Tensor], optional): Their scores by name.

    Raises:
        ValueError: If scores are missing, of another shape, negative, not finite or all 0.
    """
    if scores is None:
        raise ValueError("allocation='snip' needs scores, such as those of snip_scores(), got None")
    for name, shape in shapes.items():
        if name not in scores or tuple(scores[name].shape) != shape:
            got = tuple(scores[name].shape) if name in scores else 'no scores'
            raise ValueError(f'scores of {name!r} must have shape {shape}, got {got}')
        if not torch.isfinite(scores[name]).all() or (scores[name] < 0).any():
            raise ValueError(f'scores of {name!r} must be finite and at least 0, like |g * w|')
    if not any((scores[name] > 0).any() for name in shapes):
        raise ValueError('scores must not all be 0; the loss does not depend on any of the weights')
