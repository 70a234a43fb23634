"""Dynamic sparsity: prune and grow while training, at a rate that follows a schedule."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor, nn

from .allocation import allocate
from .masks import (
    SparseMasks,
    lowest,
    pack_mask,
    random_stream,
    reset_moments_,
    unpack_mask,
)
from .semi_structured import GROUP, KEPT, STRUCTURES, can_be_two_four, is_two_four, lowest_of_groups

MODES = ('dynamic', 'fixed')
INITS = ('random', 'scores', 'from_weights')
SCHEDULES = ('cosine', 'linear', 'constant')
GROWTHS = ('random', 'gradient', 'momentum')
#: Decay of the average of dense gradients by which ``momentum`` grows.
MOMENTUM = 0.9


@dataclass(frozen=True)
class UpdateRule:
    """When to update the masks, how much of them, and by what to grow.

    Steps are the optimiser's, counted from 1. The rate decays over the whole training
    (paper, appendix G; Liu et al. 2021c):

    - ``cosine``: rate_min + (rate - rate_min) / 2 * (1 + cos(pi * step / total_steps))
    - ``linear``: rate + (rate_min - rate) * step / total_steps
    - ``constant``: rate

    Args:
        every (int): Steps between updates: at steps every, 2 * every and so on.
        rate (float): Share of a layer's existing weights to move at step 0, in [0, 1].
        rate_min (float): The same at the end of training, at most ``rate``.
        schedule (str): ``cosine``, ``linear`` or ``constant``.
        grow (str): ``random`` (SET), ``gradient`` (largest gradient of the missing weights at
            the step of the update, RigL) or ``momentum`` (largest average gradient, decay 0.9,
            kept of all weights: four bytes more for each; after Dettmers and Zettlemoyer
            2019).
        stop_at (int or float, optional): From this step on there are no more updates; as a
            float, a share of the training in (0, 1]. Default: the last step, whose grown
            weights would never be trained.

    Raises:
        ValueError: Naming the key, the value got and what is allowed.
    """

    every: int = 2000
    rate: float = 0.5
    rate_min: float = 0.005
    schedule: str = 'cosine'
    grow: str = 'random'
    stop_at: int | float | None = None

    def __post_init__(self):
        _check_count('update.every', self.every)
        if not _is_number(self.rate) or not 0 <= self.rate <= 1:
            raise ValueError(f'update.rate must be in [0, 1], got {self.rate!r}')
        if self.schedule != 'constant' and (
            not _is_number(self.rate_min) or not 0 <= self.rate_min <= self.rate
        ):
            raise ValueError(
                f'update.rate_min must be in [0, rate={self.rate}], got {self.rate_min!r}'
            )
        _check_choice('update.schedule', self.schedule, SCHEDULES)
        _check_choice('update.grow', self.grow, GROWTHS)
        stop_at = self.stop_at
        if isinstance(stop_at, float) and 0 < stop_at <= 1:
            return
        if stop_at is not None and (not isinstance(stop_at, int) or stop_at < 0):
            raise ValueError(
                f'update.stop_at must be a step, a share of the training in (0, 1] written as a '
                f'float, or None, got {stop_at!r}'
            )

    def rate_at(self, step: int, total_steps: int | None) -> float:
        """Return the rate at ``step`` of ``total_steps``, in [0, 1]."""
        if self.schedule == 'constant':
            return self.rate
        progress = min(1.0, step / total_steps)
        if self.schedule == 'linear':
            return self.rate + (self.rate_min - self.rate) * progress
        return self.rate_min + (self.rate - self.rate_min) / 2 * (1 + math.cos(math.pi * progress))

    def is_due(self, step: int, total_steps: int | None) -> bool:
        """Say whether the masks change after optimiser step ``step``."""
        stop_at = total_steps if self.stop_at is None else self.stop_at
        if isinstance(stop_at, float):
            stop_at = stop_at * total_steps
        return step > 0 and step % self.every == 0 and (stop_at is None or step < stop_at)


@dataclass(frozen=True)
class Update:
    """What one update of the masks did.

    Attributes:
        step: Optimiser step it followed.
        rate: Adaptation rate.
        moves: Weights pruned, and as many grown, by name.
        density: Share of the selected weights that exist, dense layers included.
        explored: Share of the selected weights that ever existed (in-time
            over-parameterisation, Liu et al. 2021c), dense layers included.
        checksum: Of the masks, the same on every rank.
    """

    step: int
    rate: float
    moves: dict[str, int]
    density: float
    explored: float
    checksum: str


def prune_and_grow(
    weights: Tensor, mask: Tensor, moves: int, priority: Tensor, two_four: bool = False
) -> Tensor:
    """Move existing weights to other places: the smallest go, as many come.

    Weights grow only where none was before, so none returns in the update that pruned it.
    With ``two_four`` every group of four gets back as many as it lost. Equal values are taken
    in the order of their index.

    Args:
        weights (Tensor): Of shape (N,).
        mask (Tensor): Boolean, of shape (N,), True where a weight exists.
        moves (int): How many; at most as many as exist, and at most as many as do not.
        priority (Tensor): Of shape (N,); where it is lowest weights grow first.
        two_four (bool): Keep two of every four.

    Returns:
        Tensor: The new mask, of shape (N,).
    """
    existing = mask.nonzero().flatten()
    after = mask.clone()
    after[existing[lowest(weights[existing].abs(), moves)]] = False
    if two_four:
        lost = KEPT - after.reshape(-1, GROUP).sum(1)
        return after | lowest_of_groups(priority.masked_fill(mask, torch.inf), lost)
    missing = (~mask).nonzero().flatten()
    after[missing[lowest(priority[missing], moves)]] = True
    return after


class DynamicSparsity:
    """Sparse training of a network, from the first masks to the last update.

    Once a step, in any training loop::

        sparsity = DynamicSparsity(select_targets(model), 0.4, 'erk', total_steps=100_000)
        ...
        loss.backward()
        sparsity.before_step()        # after unscaling, before clipping gradients
        optimizer.step()
        sparsity.step(optimizer)      # not where a loss scaler skipped the step

    or, for both calls around every step that the optimiser really makes,
    ``sparsity.attach(optimizer)``. After each step masked weights are +0.0; their gradients
    are masked before it, so that they have no part in the norm that clips and no moments. An
    update prunes the weights of smallest magnitude in each layer and grows exactly as many
    (:func:`prune_and_grow`), ``round(rate * existing)`` of them but no more than are missing;
    both start without moments, the grown ones at zero. Frozen weights stay as they are.

    With ``structure='2:4'`` every linear layer with a number of inputs divisible by 4 keeps
    two weights of every four, so that its density is one half whatever ``sparsity`` says.
    ``sparsity`` and ``allocation`` then concern the other layers alone: convolutions, and
    linear layers of other widths, which stay unstructured. Counts are over all of them.

    Args:
        parameters (Mapping[str, nn.Parameter]): From :func:`select_targets`, on the device
            they are trained on.
        sparsity (float, optional): Share of the weights to leave out, in [0, 1). Only
            where ``init`` gives the masks it may be left out.
        allocation (str or Mapping): How to share it over layers, see :func:`allocate`.
        update (Mapping or UpdateRule, optional): Settings of :class:`UpdateRule`.
        mode (str): ``dynamic``, or ``fixed`` to keep the first masks.
        init (str, Mapping or None): The first masks. ``random``: drawn with the number of
            weights allocated to each layer, as the paper constructs them whatever allocated
            the numbers. ``scores``: the highest scores of each layer; with ``snip`` these are
            the top of the whole network. ``from_weights``: weights that are not zero.
            A mapping of boolean masks by name. None: all dense, until
            :meth:`load_state_dict`.
        scores (Mapping[str, Tensor], optional): For ``allocation='snip'`` or
            ``init='scores'``, see :func:`snip_scores`.
        structure (str): ``unstructured`` or ``2:4``.
        seed (int): Of the random masks and of random growth; the same on every rank.
        total_steps (int, optional): Optimiser steps of the whole training; ``dynamic`` needs
            it unless the rate is constant and ``stop_at`` no share.

    Raises:
        ValueError: Naming the key, the value got and what is allowed.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        sparsity: float | None = None,
        allocation: str | Mapping[str, float] = 'erk',
        update: Mapping | UpdateRule | None = None,
        *,
        mode: str = 'dynamic',
        init: str | Mapping[str, Tensor] | None = 'random',
        scores: Mapping[str, Tensor] | None = None,
        structure: str = 'unstructured',
        seed: int = 0,
        total_steps: int | None = None,
    ):
        _check_choice('mode', mode, MODES)
        _check_choice('structure', structure, STRUCTURES)
        if init is not None and not isinstance(init, Mapping):
            _check_choice('init', init, INITS)
        self.mode = mode
        self.rule = _as_rule(update)
        self.total_steps = total_steps
        self.seed = seed
        self.steps = 0
        if total_steps is not None:
            _check_count('total_steps', total_steps)
        elif mode == 'dynamic' and (
            self.rule.schedule != 'constant' or isinstance(self.rule.stop_at, float)
        ):
            raise ValueError(
                f'total_steps must be given for update.schedule={self.rule.schedule!r} and '
                f'update.stop_at={self.rule.stop_at!r}, got None'
            )
        self._settings = dict(
            sparsity=sparsity,
            allocation=allocation if isinstance(allocation, str) else dict(allocation),
            structure=structure,
        )
        self._two_four = (
            {name for name, p in parameters.items() if can_be_two_four(p.shape)}
            if structure == '2:4'
            else set()
        )
        self.masks = SparseMasks(parameters, self._first_masks(parameters, init, scores))
        if init is not None:
            self._check_two_four()
        self._explored = {name: self.masks[name] for name in self.masks.masked}
        self._gradients: dict[str, Tensor] = {}
        self._averages: dict[str, Tensor] = {}
        self._ready = False
        self.masks.apply_()
        self.masks.verify_across_ranks()

    def _first_masks(self, parameters, init, scores) -> dict[str, Tensor]:
        if init is None:
            return {}
        if isinstance(init, Mapping):
            return dict(init)
        if init == 'from_weights':
            return {name: self._nonzero(name, p.detach()) for name, p in parameters.items()}
        if init == 'scores':
            for name, parameter in parameters.items():
                if scores is None or name not in scores or scores[name].shape != parameter.shape:
                    raise ValueError(
                        f"init='scores' needs the scores of {name!r}, of shape "
                        f'{tuple(parameter.shape)}'
                    )
        sparsity, allocation = self._settings['sparsity'], self._settings['allocation']
        others = {name: p for name, p in parameters.items() if name not in self._two_four}
        counts = allocate(others, sparsity, allocation, scores) if others else {}
        masks = {}
        for name, parameter in parameters.items():
            if counts.get(name) == parameter.numel():
                continue
            if init == 'scores':
                priority = -scores[name].detach().reshape(-1)
            else:
                stream = random_stream(self.seed, 0, name)
                priority = torch.rand(parameter.numel(), generator=stream)
            if name in self._two_four:
                mask = lowest_of_groups(priority, KEPT)
            else:
                mask = lowest(priority, counts[name])
            masks[name] = mask.reshape(parameter.shape)
        return masks

    def _nonzero(self, name: str, weights: Tensor) -> Tensor:
        if name in self._two_four and is_two_four(weights):
            # A weight that was grown and is still zero: which one of its group, nobody knows.
            mask = lowest_of_groups(-weights.reshape(-1).abs(), KEPT)
            return mask.reshape(weights.shape)
        return weights != 0

    def _check_two_four(self) -> None:
        for name in self.masks.parameters:
            if name not in self._two_four:
                continue
            if (self.masks[name].reshape(-1, GROUP).sum(1) != KEPT).any():
                raise ValueError(
                    f"structure='2:4' keeps exactly two of every four weights, but the mask of "
                    f'{name!r} does not'
                )

    # -- in the training loop --------------------------------------------------------------

    def before_step(self) -> None:
        """Mask the gradients; between the backward pass and gradient clipping.

        Gradients must be averaged over the ranks by now and, with a loss scaler, unscaled.
        """
        if self.mode == 'dynamic':
            if self.rule.grow == 'momentum':
                self._average_gradients()
            elif self.rule.grow == 'gradient' and self.is_due(self.steps + 1):
                self._gradients = {
                    name: p.grad.detach().clone()
                    for name, p in self._evolving()
                    if p.grad is not None
                }
        self.masks.mask_gradients_()
        self._ready = True

    def step(self, optimizer: torch.optim.Optimizer | None = None) -> Update | None:
        """Mask the weights and, where an update is due, prune and grow; after the optimiser.

        To be called once for each step the optimiser makes.

        Args:
            optimizer (Optimizer, optional): Forgets the moments of pruned and grown weights.

        Returns:
            Update or None: What changed, if this step was followed by an update.

        Raises:
            RuntimeError: If :meth:`before_step` was not called, or the masks of several
                processes differ after an update.
        """
        if not self._ready:
            raise RuntimeError(
                'before_step() must be called between the backward pass and the step of the '
                'optimiser (or attach() once for all)'
            )
        self._ready = False
        self.steps += 1
        self.masks.apply_()
        if not self.is_due(self.steps):
            return None
        return self._update(optimizer)

    def attach(
        self,
        optimizer: torch.optim.Optimizer,
        on_update: Callable[[Update], None] | None = None,
    ) -> list:
        """Call :meth:`before_step` and :meth:`step` around every step of an optimiser.

        Steps that a loss scaler skips are no steps. Where gradients are clipped, call
        :meth:`before_step` before clipping all the same; it is not repeated then.

        Args:
            optimizer (Optimizer): Of the weights.
            on_update (Callable, optional): Called with each :class:`Update`.

        Returns:
            list: Two handles whose ``remove()`` undoes this.
        """

        def before(*_):
            if not self._ready:
                self.before_step()

        def after(optimizer, *_):
            # Fused optimisers are called even where the loss scaler found an infinity, and
            # skip the step by themselves.
            found_inf = getattr(optimizer, 'found_inf', None)
            if found_inf is not None and float(found_inf) > 0:
                self._ready = False
                return
            update = self.step(optimizer)
            if update is not None and on_update is not None:
                on_update(update)

        return [
            optimizer.register_step_pre_hook(before),
            optimizer.register_step_post_hook(after),
        ]

    def is_due(self, step: int) -> bool:
        """Say whether the masks change after optimiser step ``step``, counted from 1."""
        return self.mode == 'dynamic' and self.rule.is_due(step, self.total_steps)

    @property
    def rate(self) -> float:
        """Adaptation rate at the current step; 0 with fixed masks."""
        return self.rule.rate_at(self.steps, self.total_steps) if self.mode == 'dynamic' else 0.0

    def apply_to(self, module: nn.Module, prefix: str = '') -> None:
        """Mask a copy of the network by name, see :meth:`SparseMasks.apply_to`.

        For an average of the weights it is enough to do so at the start and after each
        update: in between, the average of zeros stays zero.
        """
        self.masks.apply_to(module, prefix)

    # -- updates ---------------------------------------------------------------------------

    def _evolving(self) -> list[tuple[str, nn.Parameter]]:
        pairs = ((name, self.masks.parameters[name]) for name in self.masks.masked)
        return [(name, p) for name, p in pairs if p.requires_grad]

    @torch.no_grad()
    def _average_gradients(self) -> None:
        pairs = [(name, p.grad) for name, p in self._evolving() if p.grad is not None]
        if not pairs:
            return
        # A loss scaler skips a step with infinities; they must not enter the average.
        if not torch.stack(torch._foreach_norm([g for _, g in pairs], torch.inf)).isfinite().all():
            return
        for name, gradient in pairs:
            if name not in self._averages:
                self._averages[name] = torch.zeros_like(gradient, dtype=torch.float32)
            self._averages[name].lerp_(gradient.float(), 1 - MOMENTUM)

    @torch.no_grad()
    def _update(self, optimizer: torch.optim.Optimizer | None) -> Update:
        rate, moves = self.rate, {}
        for name, parameter in self._evolving():
            mask = self.masks[name]
            existing = self.masks.kept(name)
            moves[name] = min(round(rate * existing), mask.numel() - existing)
            if not moves[name]:
                continue
            after = prune_and_grow(
                parameter.detach().reshape(-1),
                mask.reshape(-1),
                moves[name],
                self._priority(name, parameter),
                name in self._two_four,
            ).reshape(mask.shape)
            self.masks[name] = after
            self._explored[name] = self._explored[name].to(after.device) | after
            if optimizer is not None:
                reset_moments_(optimizer, parameter, mask ^ after)
        self._gradients = {}
        self.masks.apply_()
        self.masks.verify_across_ranks()
        return Update(
            step=self.steps,
            rate=rate,
            moves=moves,
            density=1 - self.masks.sparsity,
            explored=self.explored,
            checksum=self.masks.checksum(),
        )

    def _priority(self, name: str, parameter: nn.Parameter) -> Tensor:
        if self.rule.grow == 'random':
            stream = random_stream(self.seed, self.steps, name)
            return torch.rand(parameter.numel(), generator=stream).to(parameter.device)
        source = self._gradients if self.rule.grow == 'gradient' else self._averages
        if name not in source:  # the loss did not depend on this weight
            return torch.zeros(parameter.numel(), device=parameter.device)
        return -source[name].reshape(-1).float().abs().nan_to_num(nan=0.0)

    # -- counting --------------------------------------------------------------------------

    @property
    def explored(self) -> float:
        """Share of the selected weights that ever existed, dense layers included."""
        count = sum(self._explored_of(name) for name in self.masks.parameters)
        return count / max(1, self.masks.numel)

    def _explored_of(self, name: str) -> int:
        if name in self._explored:
            return int(self._explored[name].count_nonzero())
        return self.masks.kept(name)

    def summary(self) -> list[dict]:
        """One row for each selected weight: name, shape, weights, kept, density, explored.

        ``explored`` is the share of the layer's weights that ever existed.
        """
        return [
            dict(
                name=name,
                shape=tuple(p.shape),
                weights=p.numel(),
                kept=self.masks.kept(name),
                density=self.masks.density(name),
                explored=self._explored_of(name) / max(1, p.numel()),
            )
            for name, p in self.masks.parameters.items()
        ]

    # -- storing ---------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """Everything a resumed training needs, in tensors and plain values.

        Masks take one bit a weight, and so does what was explored. Random growth depends on
        seed, step and name alone, so that those are the state of its generator.
        """
        return dict(
            settings=dict(self._settings),
            update=asdict(self.rule),
            steps=self.steps,
            rate=self.rate,
            seed=self.seed,
            explored={name: pack_mask(mask) for name, mask in self._explored.items()},
            averages={name: average.clone() for name, average in self._averages.items()},
            **self.masks.state_dict(),
        )

    def load_state_dict(self, state: Mapping) -> None:
        """Take up what :meth:`state_dict` gave, and set masked weights to zero.

        The network's weights and the optimiser's state are restored by themselves. Settings of
        the updates are this object's own, but for the seed.

        Raises:
            ValueError: Saying in what the network, the targets, the sparsity, its allocation
                or structure differ; nothing was changed then.
        """
        differences = self.masks.differences(state)
        for key, value in self._settings.items():
            saved = state['settings'].get(key)
            if saved != value:
                differences.append(f'{key} is {saved!r} in the saved state and {value!r} here')
        if differences:
            raise ValueError('the saved sparsity is not this one: ' + '; '.join(differences))
        self.masks.load_state_dict(state)
        self.steps, self.seed = state['steps'], state['seed']
        parameters = self.masks.parameters
        self._explored = {
            name: unpack_mask(packed, parameters[name].shape).to(parameters[name].device)
            for name, packed in state['explored'].items()
        }
        self._averages = {
            name: torch.zeros_like(parameters[name], dtype=torch.float32).copy_(average)
            for name, average in state['averages'].items()
        }
        self._gradients, self._ready = {}, False
        self.masks.apply_()


def _as_rule(update: Mapping | UpdateRule | None) -> UpdateRule:
    if isinstance(update, UpdateRule):
        return update
    update = dict(update or {})
    allowed = [field.name for field in fields(UpdateRule)]
    for key in update:
        if key not in allowed:
            raise ValueError(f'update takes {", ".join(allowed)}, got {key!r}')
    return UpdateRule(**update)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_count(key: str, value) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f'{key} must be a positive integer, got {value!r}')


def _check_choice(key: str, value, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f'{key} must be one of {", ".join(map(repr, allowed))}, got {value!r}')
