"""Pruning and growing: which weights an update masks, and which it makes active."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .selection import lowest, random_stream
from .semi_structured import GROUP, KEPT, lowest_of_groups
from .structures import Units

#: Decay of the moving average of gradients in :class:`MomentumGrowth`.
MOMENTUM = 0.9
#: Rules for the moments of grown weights, see :class:`UpdateRule`.
MOMENTS = ('zero', 'layer')
#: Names of averages of squared gradients in PyTorch's optimisers.
SECOND_MOMENTS = ('exp_avg_sq', 'max_exp_avg_sq', 'square_avg')


def prune_and_grow(
    weights: Tensor, mask: Tensor, moves: int, priority: Tensor, two_four: bool = False
) -> Tensor:
    """Prune the weights of smallest magnitude and grow as many masked weights.

    Only weights that were masked before the update are grown, so that no weight is pruned and
    grown in the same update. With ``two_four`` every group of four grows as many weights as it
    lost. Among equal values the lowest index comes first. For larger units the arguments have one
    value for each unit.

    Args:
        weights (Tensor): Of shape (N,), weights or norms of units.
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

    def priority(self, units: Units, device: torch.device, seed: int, step: int) -> Tensor:
        """Return a value for each unit; the units with the lowest values grow.

        Args:
            units (Units): N units, such as the single weights of a tensor.
            device (torch.device): Device of the weights.
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

    def priority(self, units: Units, device: torch.device, seed: int, step: int) -> Tensor:
        """Return random values."""
        stream = random_stream(seed, step, units.name)
        return torch.rand(units.count, generator=stream).to(device)


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
        self._gradients = {}
        if due:
            self._gradients = {
                name: p.grad.detach().clone() for name, p in weights if p.grad is not None
            }

    def priority(self, units: Units, device: torch.device, seed: int, step: int) -> Tensor:
        """Return the negative norm of the gradients of each unit."""
        return _negative_norm(units, self._gradients, device)


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

    def priority(self, units: Units, device: torch.device, seed: int, step: int) -> Tensor:
        """Return the negative norm of the averages of each unit."""
        return _negative_norm(units, self._averages, device)

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


def _negative_norm(units: Units, gradients: Mapping[str, Tensor], device: torch.device) -> Tensor:
    # The loss does not depend on weights without a gradient.
    values = {
        part.name: gradients[part.name].float()
        if part.name in gradients
        else torch.zeros(part.shape, device=device)
        for part in units.parts
    }
    return -units.norm(values).nan_to_num(nan=0.0)


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


def start_moments_(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, grown: Tensor, active: Tensor
) -> None:
    """Set the second moments of grown weights to the mean of their layer, in place.

    Adam divides by the root of the second moment. Its bias correction depends on the number of
    steps of the training, so it does not correct a moment that starts at zero later, and the first
    steps of the weight would be too long. First moments do not change.

    Args:
        optimizer (Optimizer): Adam, RMSprop or any other optimiser; only the moments in
            :data:`SECOND_MOMENTS` change.
        parameter (nn.Parameter): The weights.
        grown (Tensor): Boolean, of the parameter's shape; True where to set the moments.
        active (Tensor): Boolean, of the parameter's shape; True where to take the mean.
    """
    state = optimizer.state.get(parameter, {})
    for key in SECOND_MOMENTS:
        value = state.get(key)
        if isinstance(value, Tensor) and value.shape == parameter.shape and active.any():
            value[grown.to(value.device)] = value[active.to(value.device)].float().mean().to(value)
