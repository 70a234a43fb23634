"""Dynamic sparsity: sparse training whose masks are pruned and grown repeatedly."""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from .agreement import check_agreement
from .checks import check_choice, check_count
from .grow import GROWTHS, RandomGrowth, prune_and_grow, reset_moments_, start_moments_
from .initial_masks import INITS, initial_masks
from .masks import SparseMasks, pack_mask, unpack_mask, unpack_masks
from .schedule import UpdateRule, as_rule
from .selection import random_stream
from .structures import Units, find_units

MODES = ('dynamic', 'fixed')


@dataclass(frozen=True)
class Update:
    """The result of one update of the masks.

    Attributes:
        step (int): The optimiser step that the update followed.
        rate (float): Adaptation rate.
        moves (dict[str, int]): Number of weights pruned, and as many grown, by name.
        density (float): Share of the selected weights that are active, dense layers included.
        explored (float): Share of the selected weights that have ever been active (in-time
            over-parameterisation, Liu et al. 2021c), dense layers included.
        checksum (str): Checksum of the masks, the same on every rank.
    """

    step: int
    rate: float
    moves: dict[str, int]
    density: float
    explored: float
    checksum: str


class DynamicSparsity:
    """Sparse training of a network, from the first masks to the last update (paper, section 4).

    In every step of any training loop::

        sparsity = DynamicSparsity(select_targets(model), 0.4, 'erk', total_steps=100_000)
        ...
        loss.backward()
        sparsity.before_step()        # after unscaling, before clipping gradients
        optimizer.step()
        sparsity.step(optimizer)      # unless a loss scaler skipped the step

    Alternatively call ``sparsity.attach(optimizer)`` once, which makes both calls around every step
    of the optimiser. After each step masked weights are +0.0. Their gradients are masked before the
    step, so that they do not contribute to gradient clipping and their moments stay zero.

    An update prunes the weights of smallest magnitude in each layer and grows exactly as many
    (:func:`prune_and_grow`): ``round(rate * active)``, but at most the number of masked weights.
    The moments of pruned and grown weights are reset, and grown weights start at zero. Frozen
    weights do not change.

    A structure masks units of several weights, which hardware can skip:

    - ``neuron``: hidden units of the blocks. A unit is a row of the first linear layer, its bias
      and a column of the second linear layer. Biases are not counted.
    - ``tap``: positions of the large kernels. A unit is a position in the kernels of 8 neighbouring
      channels (:data:`TAP_CHANNELS`); fewer if these are the last channels.
    - ``2:4``: every linear layer whose number of inputs is divisible by 4 keeps two weights of
      every four. Its density is one half, whatever ``sparsity`` is. ``sparsity`` and
      ``allocation`` then apply only to the other layers. Counts include all layers.
    - ``dense``: all weights are active. The other layers are sparser, so that ``sparsity`` is still
      that of all weights.

    A unit is pruned by the L2 norm of its weights, and grown by that of their gradients. A neuron
    needs weights in the first layer to get a gradient: when it grows, these are drawn from a normal
    distribution as in the initialisation of SLaK, and those in the second layer are zero, so that
    the output does not change. The gradients of masked neurons are zero, so neurons grow at random
    with every growth rule.

    Args:
        parameters (Mapping[str, nn.Parameter]): From :func:`select_targets`, on the device
            that they are trained on.
        sparsity (float, optional): Share of the weights to mask, in [0, 1). Required for ``init``
            ``random`` and ``scores``.
        allocation (str or Mapping): Distribution of the active weights over the layers, see
            :func:`allocate`.
        update (Mapping or UpdateRule, optional): Settings of :class:`UpdateRule`.
        mode (str): ``dynamic``, or ``fixed`` to keep the first masks.
        init (str, Mapping or None): The first masks. ``random``: random masks with the allocated
            number of active weights in each layer, as in the paper. ``scores``: the weights with
            the highest scores in each layer; with ``snip`` these are the highest scores of the
            whole network. ``from_weights``: weights that are not zero are active. A mapping:
            boolean masks by name. None: all weights are active until :meth:`load_state_dict`.
        scores (Mapping[str, Tensor], optional): For ``allocation='snip'`` or
            ``init='scores'``, see :func:`snip_scores`.
        structure (str or Mapping[str, str]): ``unstructured``, ``neuron`` or ``2:4`` (linear
            layers), or ``tap`` (large kernels); the layers without this structure are unstructured.
            Or a structure for each kind of layer: ``linear``, ``large_kernels`` and ``others``,
            such as ``dict(linear='neuron', large_kernels='tap', others='dense')``. Linear layers
            that cannot have the structure, such as a head, have that of ``others``.
        model (nn.Module, optional): The network, for ``neuron`` and ``tap``.
        seed (int): Seed of random masks and random growth; the same on every rank.
        total_steps (int, optional): Optimiser steps of the whole training. Mode ``dynamic`` needs
            it unless the rate is constant and ``stop_at`` is not a share of the training.
        verify_every (int): With several processes, masks and learning rates are compared between
            the ranks after every ``verify_every`` updates.

    Raises:
        ValueError: Naming the key, the value got and what is allowed.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        sparsity: float | None = None,
        allocation: str | Mapping[str, Mapping[str, float]] = 'erk',
        update: Mapping | UpdateRule | None = None,
        *,
        mode: str = 'dynamic',
        init: str | Mapping[str, Tensor] | None = 'random',
        scores: Mapping[str, Tensor] | None = None,
        structure: str | Mapping[str, str] = 'unstructured',
        model: nn.Module | None = None,
        seed: int = 0,
        total_steps: int | None = None,
        verify_every: int = 1,
    ):
        check_choice('mode', mode, MODES)
        self._units, biases = find_units(parameters, structure, model)
        if init is not None and not isinstance(init, Mapping):
            check_choice('init', init, INITS)
        self.mode = mode
        self.rule = as_rule(update)
        check_count('verify_every', verify_every)
        self.verify_every = verify_every
        self.total_steps = total_steps
        self.seed = seed
        self.steps = 0
        if total_steps is not None:
            check_count('total_steps', total_steps)
        elif mode == 'dynamic' and (
            self.rule.schedule != 'constant' or isinstance(self.rule.stop_at, float)
        ):
            raise ValueError(
                f'total_steps must be given for update.schedule={self.rule.schedule!r} and '
                f'update.stop_at={self.rule.stop_at!r}, got None'
            )
        self._settings = dict(
            sparsity=sparsity,
            allocation=_plain(allocation),
            structure=_plain(structure),
        )
        if init is not None and not isinstance(init, Mapping):
            init = initial_masks(parameters, init, sparsity, allocation, scores, self._units, seed)
        self.masks = SparseMasks(parameters, init, biases)
        if init is not None:
            self._mask_biases(self._check_structure(self.masks))
        self._explored = {name: self.masks[name] for name in self.masks.masked}
        self._growth = GROWTHS[self.rule.grow]()
        self._ready, self._gradient = False, None
        self.masks.apply_()
        self.masks.verify_across_ranks()

    def _check_structure(self, masks: Mapping[str, Tensor] | SparseMasks) -> list[tuple]:
        """Return the units that are trained with their masks, after checking their structure."""
        trained = [one for one in self._units if one.trained(self.masks.parameters)]
        return [(one, one.contract(masks)) for one in trained]

    def _mask_biases(self, units: list[tuple[Units, Tensor]]) -> None:
        for one, mask in units:
            masks = one.expand(mask) if one.biases else {}
            for part in one.biases:
                self.masks[part.name] = masks[part.name]

    # -- training loop ---------------------------------------------------------------------

    def before_step(self, grad_scale: Tensor | None = None) -> None:
        """Mask the gradients; call it between the backward pass and gradient clipping.

        Before that, gradients must be averaged over the ranks and, with a loss scaler, unscaled.

        Args:
            grad_scale (Tensor, optional): The loss scale, if the gradients are not unscaled yet.
        """
        if self.mode == 'dynamic':
            names = {n: None for one in self._evolving() if _is_ranked(one) for n in one.names}
            weights = [(name, self.masks.parameters[name]) for name in names]
            self._growth.observe(weights, self.is_due(self.steps + 1), grad_scale)
        self.masks.mask_gradients_()
        gradient = self._first_gradient()
        self._ready = True
        self._gradient = None if gradient is None else weakref.ref(gradient)

    def _first_gradient(self) -> Tensor | None:
        gradients = (parameter.grad for parameter in self.masks.parameters.values())
        return next((gradient for gradient in gradients if gradient is not None), None)

    def _is_ready(self) -> bool:
        """Return whether :meth:`before_step` was called for the present gradients."""
        known = None if self._gradient is None else self._gradient()
        return self._ready and known is self._first_gradient()

    def step(self, optimizer: torch.optim.Optimizer | None = None) -> Update | None:
        """Mask the weights and, if an update is due, prune and grow; call it after the optimiser.

        Call it once for each step of the optimiser.

        Args:
            optimizer (Optimizer, optional): Its moments of pruned and grown weights are reset.

        Returns:
            Update or None: The update, if one was due.

        Raises:
            RuntimeError: If :meth:`before_step` was not called.
            RankDifferenceError: If masks or learning rates differ between ranks after an update.
        """
        if not self._ready:
            raise RuntimeError(
                'DynamicSparsity.before_step() must be called between the backward pass and the '
                'step of the optimiser; or call attach() once before training'
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

        Steps that a loss scaler skips do not count. If gradients are clipped, you must still call
        :meth:`before_step` before clipping; it is then not called again.

        Args:
            optimizer (Optimizer): The optimiser of the weights.
            on_update (Callable, optional): Called with each :class:`Update`.

        Returns:
            list: Two handles; ``remove()`` of both undoes this.
        """

        def before(optimizer, *_):
            # A loss scaler may have skipped the step after before_step(). The gradients are then
            # new ones, or the old ones set to zero.
            if self._is_ready():
                self.masks.mask_gradients_()
            else:
                # A loss scaler lets a fused optimiser unscale the gradients.
                self.before_step(getattr(optimizer, 'grad_scale', None))

        def after(optimizer, *_):
            # A fused optimiser is called even if the loss scaler found infinite gradients. It then
            # skips the step itself.
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
        """Return whether the masks are updated after optimiser step ``step``, counted from 1."""
        return self.mode == 'dynamic' and self.rule.is_due(step, self.total_steps)

    @property
    def rate(self) -> float:
        """Adaptation rate at the current step; 0 with fixed masks."""
        return self.rule.rate_at(self.steps, self.total_steps) if self.mode == 'dynamic' else 0.0

    def apply_to(self, module: nn.Module, prefix: str = '') -> None:
        """Mask a copy of the network by name, see :meth:`SparseMasks.apply_to`.

        For an average of the weights it suffices to call this at the start and after each
        update, because an average of zeros stays zero in between.
        """
        self.masks.apply_to(module, prefix)

    # -- updates ---------------------------------------------------------------------------

    def _evolving(self) -> list[Units]:
        masked = set(self.masks.masked)
        return [
            one
            for one in self._units
            if not masked.isdisjoint(one.names) and one.trained(self.masks.parameters)
        ]

    @torch.no_grad()
    def _update(self, optimizer: torch.optim.Optimizer | None) -> Update:
        rate, moves = self.rate, {}
        for units in self._evolving():
            for name, moved in self._prune_and_grow(units, rate, optimizer).items():
                moves[name] = moves.get(name, 0) + moved
        self.masks.apply_()
        # The count of updates is the same after resuming.
        if (self.steps // self.rule.every) % self.verify_every == 0:
            check_agreement(lambda: {**_learning_rates(optimizer), **self.masks.rank_values()})
        return Update(
            step=self.steps,
            rate=rate,
            moves=moves,
            density=1 - self.masks.sparsity,
            explored=self.explored,
            checksum=self.masks.checksum(),
        )

    def _prune_and_grow(
        self, units: Units, rate: float, optimizer: torch.optim.Optimizer | None
    ) -> dict[str, int]:
        """Update the masks of some units, and return the number of weights pruned by name."""
        parameters = self.masks.parameters
        mask = units.contract(self.masks)
        active = int(mask.count_nonzero())
        moves = min(round(rate * active), units.count - active)
        if not moves:
            return dict.fromkeys(units.names, 0)
        growth = self._growth if _is_ranked(units) else RandomGrowth()
        after = prune_and_grow(
            units.norm({name: parameters[name].detach() for name in units.names}),
            mask,
            moves,
            growth.priority(units, mask.device, self.seed, self.steps),
            units.structure == '2:4',
        )
        names = [part.name for part in (*units.parts, *units.biases)]
        before = {name: self.masks[name] for name in names}
        found = units.expand(after, {name: value.clone() for name, value in before.items()})
        for name, now in found.items():
            self.masks[name] = now
            if name in self._explored:
                self._explored[name] = self._explored[name].to(now.device) | now
            if optimizer is not None:
                parameter = self.masks.parameter(name)
                reset_moments_(optimizer, parameter, before[name] ^ now)
                if self.rule.moments == 'layer':
                    kept, grown = before[name] & now, now & ~before[name]
                    start_moments_(optimizer, parameter, grown, kept)
        stream = random_stream(self.seed, self.steps, f'{units.name}, fresh')
        units.initialise_(after & ~mask, parameters, stream)
        return {n: int((before[n] & ~found[n]).count_nonzero()) for n in units.names}

    # -- counting --------------------------------------------------------------------------

    @property
    def explored(self) -> float:
        """Share of the selected weights that have ever been active, dense layers included."""
        count = sum(self._explored_of(name) for name in self.masks.parameters)
        return count / max(1, self.masks.numel)

    def _explored_of(self, name: str) -> int:
        if name in self._explored:
            return int(self._explored[name].count_nonzero())
        return self.masks.kept(name)

    def summary(self) -> list[dict]:
        """Return one row for each selected weight tensor.

        Returns:
            list[dict]: ``name``, ``shape``, number of ``weights``, number of active weights
            ``kept``, ``density``, and ``explored``, the share that has ever been active.
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

    # -- saving and loading ----------------------------------------------------------------

    def state_dict(self) -> dict:
        """Return everything that a resumed training needs, as tensors and plain values.

        Masks and explored weights take one bit per weight. Random growth depends only on seed, step
        and name, so that no state of a random generator is needed.
        """
        return dict(
            settings=dict(self._settings),
            update=asdict(self.rule),
            steps=self.steps,
            rate=self.rate,
            seed=self.seed,
            explored={name: pack_mask(mask) for name, mask in self._explored.items()},
            averages=self._growth.state_dict(),
            **self.masks.state_dict(),
        )

    def load_state_dict(self, state: Mapping) -> None:
        """Load a state of :meth:`state_dict`, and set masked weights to zero.

        The weights of the network and the state of the optimiser must be restored separately. The
        settings of the updates do not change, but the seed is that of the saved state.

        Args:
            state (Mapping): From :meth:`state_dict`.

        Raises:
            ValueError: If the state is incomplete or damaged, or if network, targets, sparsity,
                allocation or structure differ, naming the differences. This object does not change
                then.
        """
        missing = [key for key in _STATE if key not in state]
        if missing:
            raise ValueError(
                f'the saved dynamic sparsity is incomplete: it has no {", ".join(missing)}'
            )
        differences = self.masks.differences(state)
        if self._settings['sparsity'] and not state['packed']:
            differences.append('the saved state has no masks')
        for key, value in self._settings.items():
            saved = state['settings'].get(key)
            if saved != value:
                differences.append(f'{key} is {saved!r} in the saved state and {value!r} here')
        if differences:
            raise ValueError(
                'the saved dynamic sparsity does not fit this training: ' + '; '.join(differences)
            )
        # All of the state is read before anything changes.
        parameters = self.masks.parameters
        units = self._check_structure(_saved_masks(state))
        explored = {
            name: unpack_mask(packed, parameters[name].shape).to(parameters[name].device)
            for name, packed in state['explored'].items()
        }
        growth = GROWTHS[self.rule.grow]()
        growth.load_state_dict(state['averages'], parameters)
        self.masks.load_state_dict(state)
        self._mask_biases(units)
        self.steps, self.seed = state['steps'], state['seed']
        self._explored, self._growth = explored, growth
        self._ready = False
        self.masks.apply_()


#: What a saved state must have.
_STATE = ('settings', 'steps', 'seed', 'explored', 'averages', 'shapes', 'packed')


def _is_ranked(units: Units) -> bool:
    """Return whether gradients can rank masked units."""
    return not units.needs_fresh_weights


def _saved_masks(state: Mapping) -> dict[str, Tensor]:
    """Return the masks of all weights in a saved state, also those of dense layers."""
    dense = {
        name: torch.ones(tuple(shape), dtype=torch.bool) for name, shape in state['shapes'].items()
    }
    return {**dense, **unpack_masks(state)}


def _learning_rates(optimizer: torch.optim.Optimizer | None) -> dict[str, str]:
    """Return the learning rates, for :func:`check_agreement`."""
    groups = [] if optimizer is None else optimizer.param_groups
    return {
        f'the learning rate of parameter group {index}': repr(float(group['lr']))
        for index, group in enumerate(groups)
    }


def _plain(settings):
    """Copy settings with plain dicts in place of MMEngine's, which do not load safely."""
    if isinstance(settings, Mapping):
        return {key: _plain(value) for key, value in settings.items()}
    return settings
