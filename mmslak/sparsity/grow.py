"""Pruning and growing: which weights an update masks, and which it makes active."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .selection import lowest, random_stream
from .semi_structured import GROUP, KEPT, lowest_of_groups

#: Decay of the moving average of gradients in :class:`MomentumGrowth`.
MOMENTUM = 0.9


def prune_and_grow(
    weights: Tensor, mask: Tensor, moves: int, priority: Tensor, two_four: bool = False
) -> Tensor:
    """Prune the weights of smallest magnitude and grow as many masked weights.

    Only weights that were masked before the update are grown, so that no weight is pruned and
    grown in the same update. With ``two_four`` every group of four grows as many weights as it
    lost. Among equal values the lowest index comes first.

    Args:
        weights (Tensor): Of shape (N,).
        mask (Tensor): Boolean, of shape (N,), True where a weight is active.
        moves (int): Number of weights to prune and to grow; at most the number of active weights
            and at most the number of masked weights.
        priority (Tensor): Of shape (N,); the weights with the lowest values grow.
        two_four (bool): Keep two weights of every four.

    Returns:
        Tensor: The new mask, of shape (N,).
    """
    active = mask.nonzero().flatten()
    after = mask.clone()
    after[active[lowest(weights[active].abs(), moves)]] = False
    if two_four:
        lost = KEPT - after.reshape(-1, GROUP).sum(1)
        return after | lowest_of_groups(priority.masked_fill(mask, torch.inf), lost)
    masked = (~mask).nonzero().flatten()
    after[masked[lowest(priority[masked], moves)]] = True
    return after


class GrowthRule:
    """Which masked weights become active: interface of the growth rules."""

    def observe(
        self,
        weights: Sequence[tuple[str, nn.Parameter]],
        due: bool,
        grad_scale: Tensor | None = None,
    ) -> None:
        """Record the gradients, which are not masked yet.

        Args:
            weights (Sequence): Names and weights, with their ``.grad``.
            due (bool): Whether an update follows this step of the optimiser.
            grad_scale (Tensor, optional): The loss scale by which the gradients are multiplied.
        """

    def priority(self, name: str, weights: Tensor, seed: int, step: int) -> Tensor:
        """Return a value for each weight of a tensor; the weights with the lowest values grow.

        Args:
            name (str): Name of the weight tensor.
            weights (Tensor): The N weights, of any shape.
            seed (int): Seed of random growth.
            step (int): Step of the optimiser.

        Returns:
            Tensor: Of shape (N,).
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a resumed training needs, by name of the weight tensor."""
        return {}

    def load_state_dict(
        self, state: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter]
    ) -> None:
        """Load a state of :meth:`state_dict`, for these weights."""


class RandomGrowth(GrowthRule):
    """Grow uniformly at random, as SLaK and SET do (paper, section 4; Mocanu et al. 2018).

    The random values depend only on seed, step and name, so that all ranks draw the same.
    """

    def priority(self, name: str, weights: Tensor, seed: int, step: int) -> Tensor:
        """Return random values."""
        stream = random_stream(seed, step, name)
        return torch.rand(weights.numel(), generator=stream).to(weights.device)


class GradientGrowth(GrowthRule):
    """Grow the weights with the largest gradients in the step of the update.

    Source: RigL, Evci et al. 2020.
    """

    def __init__(self):
        self._gradients: dict[str, Tensor] = {}

    def observe(
        self,
        weights: Sequence[tuple[str, nn.Parameter]],
        due: bool,
        grad_scale: Tensor | None = None,
    ) -> None:
        """Record the gradients of a step that an update follows."""
        if due:
            self._gradients = {
                name: p.grad.detach().clone() for name, p in weights if p.grad is not None
            }

    def priority(self, name: str, weights: Tensor, seed: int, step: int) -> Tensor:
        """Return the negative magnitude of the gradients."""
        return _negative_magnitude(self._gradients.pop(name, None), weights)


class MomentumGrowth(GrowthRule):
    """Grow the weights with the largest average gradients.

    The moving average has a decay of 0.9 and takes four bytes per weight.

    Source: similar to sparse momentum, Dettmers and Zettlemoyer 2019.
    """

    def __init__(self):
        self._averages: dict[str, Tensor] = {}

    @torch.no_grad()
    def observe(
        self,
        weights: Sequence[tuple[str, nn.Parameter]],
        due: bool,
        grad_scale: Tensor | None = None,
    ) -> None:
        """Add the gradients to the averages, unless one of them is infinite or NaN."""
        pairs = [(name, p.grad) for name, p in weights if p.grad is not None]
        if not pairs:
            return
        # A loss scaler skips a step with infinite gradients; they must not enter the average.
        if not torch.stack(torch._foreach_norm([g for _, g in pairs], torch.inf)).isfinite().all():
            return
        for name, gradient in pairs:
            if name not in self._averages:
                self._averages[name] = torch.zeros_like(gradient, dtype=torch.float32)
            gradient = gradient.float()
            if grad_scale is not None:
                gradient = gradient / grad_scale.to(gradient.device)
            self._averages[name].lerp_(gradient, 1 - MOMENTUM)

    def priority(self, name: str, weights: Tensor, seed: int, step: int) -> Tensor:
        """Return the negative magnitude of the averages."""
        return _negative_magnitude(self._averages.get(name), weights)

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the averages."""
        return {name: average.clone() for name, average in self._averages.items()}

    def load_state_dict(
        self, state: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter]
    ) -> None:
        """Load the averages, onto the devices of the weights."""
        self._averages = {
            name: torch.zeros_like(weights[name], dtype=torch.float32).copy_(average)
            for name, average in state.items()
        }


#: Name in ``update.grow`` -> rule.
GROWTHS = {'random': RandomGrowth, 'gradient': GradientGrowth, 'momentum': MomentumGrowth}


def _negative_magnitude(gradient: Tensor | None, weights: Tensor) -> Tensor:
    if gradient is None:
        # The loss does not depend on these weights.
        return torch.zeros(weights.numel(), device=weights.device)
    return -gradient.reshape(-1).float().abs().nan_to_num(nan=0.0)


def reset_moments_(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, where: Tensor
) -> None:
    """Set the state of an optimiser for some of the weights to zero, in place.

    Args:
        optimizer (Optimizer): Any optimiser. The moments of Adam, the momentum buffer of SGD and
            all other tensors of its state that have the shape of the parameter are reset.
        parameter (nn.Parameter): The weights.
        where (Tensor): Boolean, of the parameter's shape; True where to reset.
    """
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(where.to(value.device), 0)
