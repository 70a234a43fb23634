"""Structures: groups of weights that are masked together, so that hardware can skip them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .checks import check_choice
from .selection import lowest
from .semi_structured import GROUP, KEPT, can_be_two_four, lowest_of_groups
from .targets import active_weights, is_large_kernel

STRUCTURES = ('unstructured', 'neuron', 'tap', '2:4')
#: Kind of layer -> the structures that it can have.
KINDS = {
    'linear': ('unstructured', 'neuron', '2:4', 'dense'),
    'large_kernels': ('unstructured', 'tap', 'dense'),
    'others': ('unstructured', 'dense'),
}
#: Names of the two linear layers of a block, in SLaK and in the ConvNeXt of MMPretrain.
PAIRS = (('pwconv1', 'pwconv2'), ('pointwise_conv1', 'pointwise_conv2'))
#: Channels of a tap: the floats in a vector of AVX2, of which the kernels for CPUs compute one or,
#: with AVX-512, two at a time.
TAP_CHANNELS = 8
#: Standard deviation of the first layer of a grown neuron, as in the initialisation of SLaK.
FRESH_STD = 0.02


@dataclass(frozen=True)
class Part:
    """The weights of some units in one tensor.

    Args:
        name (str): Name of the tensor.
        shape (tuple[int, ...]): Shape of the tensor.
        view (tuple[int, ...]): Shape in which the tensor is seen. One dimension runs over the
            weights of a unit, the others over the units.
        dim (int): The dimension of ``view`` that runs over the weights of a unit.
        start (int): First row of the tensor that belongs to these units.
        stop (int, optional): First row after them. Default: the end of the tensor.
    """

    name: str
    shape: tuple[int, ...]
    view: tuple[int, ...]
    dim: int
    start: int = 0
    stop: int | None = None

    @property
    def rows(self) -> slice:
        """The rows of the tensor that belong to the units."""
        return slice(self.start, self.stop)

    @property
    def size(self) -> int:
        """Number of weights of a unit in this tensor."""
        return self.view[self.dim]

    @property
    def numel(self) -> int:
        """Number of weights of all units in this tensor."""
        return math.prod(self.view)

    def seen(self, tensor: Tensor) -> Tensor:
        """Return the weights of the units, in the shape ``view``."""
        return tensor[self.rows].reshape(self.view)

    def spread(self, values: Tensor) -> Tensor:
        """Return the value of each weight's unit, in the shape of the tensor's rows."""
        units = (*self.view[: self.dim], 1, *self.view[self.dim + 1 :])
        return values.reshape(units).expand(self.view).reshape(-1, *self.shape[1:])


@dataclass(frozen=True)
class Units:
    """Units that compete with each other: groups of equally many weights that are masked together.

    Without a structure a unit is one weight. The order of the units is that of ``view`` in the
    first part.

    Args:
        name (str): Name of the first tensor, which is also the key of random numbers; with a suffix
            if the tensor has other units, too.
        parts (tuple[Part, ...]): Where the weights of the units are.
        biases (tuple[Part, ...]): Biases that are masked with the units, but not counted.
        structure (str): ``unstructured``, ``neuron``, ``tap``, ``2:4`` or ``dense``.
    """

    name: str
    parts: tuple[Part, ...]
    biases: tuple[Part, ...] = ()
    structure: str = 'unstructured'

    @classmethod
    def weights(cls, name: str, shape: Sequence[int], structure: str = 'unstructured') -> 'Units':
        """Return the units of a tensor whose weights are masked one by one."""
        shape = tuple(shape)
        return cls(name, (Part(name, shape, (math.prod(shape), 1), 1),), structure=structure)

    @property
    def size(self) -> int:
        """Number of weights of a unit."""
        return sum(part.size for part in self.parts)

    @property
    def count(self) -> int:
        """Number of units."""
        return self.parts[0].numel // self.parts[0].size

    @property
    def numel(self) -> int:
        """Number of weights of all units."""
        return self.count * self.size

    @property
    def names(self) -> list[str]:
        """Names of the weight tensors."""
        return [part.name for part in self.parts]

    @property
    def allocated(self) -> bool:
        """Whether the number of active units is chosen by the allocation."""
        return self.structure != '2:4'

    @property
    def needs_fresh_weights(self) -> bool:
        """Whether a grown unit would get no gradient if all its weights were zero.

        The gradients of masked units are zero then, too, so that they cannot be ranked by them.
        """
        return self.structure == 'neuron'

    def expand(self, mask: Tensor, into: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the masks of the weights and biases by name.

        Args:
            mask (Tensor): Boolean, of shape (count,), True for active units.
            into (dict[str, Tensor], optional): Masks by name to change. Default: new ones, in which
                weights of other units are masked.
        """
        masks = {} if into is None else into
        for part in (*self.parts, *self.biases):
            if part.name not in masks:
                masks[part.name] = mask.new_zeros(part.shape)
            masks[part.name][part.rows] = part.spread(mask)
        return masks

    def reduce(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the values of each unit's weights, of shape (count,).

        Args:
            values (Mapping[str, Tensor]): By name, in the shapes of the tensors.
        """
        sums = []
        for part in self.parts:
            seen = part.seen(values[part.name])
            # A sum of one value would change the dtype of integers.
            sums.append((seen.sum(part.dim) if part.size > 1 else seen.squeeze(part.dim)).flatten())
        return sum(sums[1:], sums[0])

    def norm(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the L2 norm of the values of each unit's weights, of shape (count,).

        The square of the norm is the change of the network's weights if a unit is masked. Units
        that compete have equally many weights, so that the norms are comparable.
        """
        if self.size == 1:
            # The square of a small number would be zero.
            return self.reduce(values).abs()
        return self.reduce({name: values[name].float().square() for name in self.names}).sqrt()

    def contract(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Return which units are active, of shape (count,).

        Args:
            masks (Mapping[str, Tensor]): Masks of the weights by name.

        Raises:
            ValueError: If a mask does not have this structure.
        """
        units = torch.ones(0)
        for i, part in enumerate(self.parts):
            seen = part.seen(masks[part.name])
            first = seen.select(part.dim, 0)
            mixed = part.size > 1 and bool((seen != first.unsqueeze(part.dim)).any())
            first = first.flatten()
            units = units if i else first
            if mixed or not torch.equal(units, first):
                raise ValueError(
                    f'structure={self.structure!r} needs masks of whole {self.structure}s, but the '
                    f'mask of {part.name!r} keeps parts of them'
                )
        if self.structure == '2:4' and (units.reshape(-1, GROUP).sum(1) != KEPT).any():
            raise ValueError(
                f"structure='2:4' needs masks that keep exactly two of every four weights, but "
                f'the mask of {self.name!r} does not'
            )
        if self.structure == 'dense' and not units.all():
            raise ValueError(
                f"structure 'dense' needs all weights, but the mask of {self.name!r} masks some"
            )
        return units

    def recover(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return which units are active if no mask was saved: those that are not zero.

        All units of dense layers are active.
        """
        if self.structure == 'dense':
            return torch.ones(self.count, dtype=torch.bool, device=weights[self.name].device)
        active = self.reduce({name: active_weights(weights[name]) for name in self.names}) > 0
        if self.structure == '2:4':
            filled = lowest_of_groups(-self.norm(weights), KEPT)
            # A group may have fewer than two non-zero weights, because a grown weight can still be
            # zero. Such a group is filled up with its first zeros.
            if not (active & ~filled).any():
                return filled
        return active

    def choose(self, priority: Tensor, count: int) -> Tensor:
        """Mark the ``count`` units of lowest priority; with 2:4 two of every four."""
        if self.structure == '2:4':
            return lowest_of_groups(priority, KEPT)
        return lowest(priority, count)

    def trained(self, parameters: Mapping[str, nn.Parameter]) -> bool:
        """Return whether none of the weights are frozen."""
        return all(parameters[name].requires_grad for name in self.names)

    @torch.no_grad()
    def initialise_(
        self, grown: Tensor, parameters: Mapping[str, nn.Parameter], stream: torch.Generator
    ) -> None:
        """Initialise what a grown unit needs to get a gradient, in place.

        A neuron whose two layers are zero gets no gradient. Its weights in the first layer are
        initialised. Those in the second one stay zero, so that the output does not change.

        Args:
            grown (Tensor): Boolean, of shape (count,), True for grown units.
            parameters (Mapping[str, nn.Parameter]): The weights by name.
            stream (torch.Generator): From :func:`random_stream`.
        """
        if not self.needs_fresh_weights:
            return
        first = parameters[self.parts[0].name]
        fresh = torch.empty(int(grown.count_nonzero()), self.parts[0].size)
        nn.init.trunc_normal_(fresh, std=FRESH_STD, generator=stream)
        first[grown] = fresh.to(first)


def check_structure(structure: str | Mapping[str, str]) -> dict[str, str]:
    """Check a structure and return that of each kind of layer.

    Args:
        structure (str or Mapping[str, str]): See :class:`DynamicSparsity`.

    Raises:
        ValueError: For an unknown structure, or one that a kind of layer cannot have.
    """
    if not isinstance(structure, Mapping):
        check_choice('structure', structure, STRUCTURES)
        structure = {kind: structure for kind, allowed in KINDS.items() if structure in allowed}
    for kind, value in structure.items():
        if kind not in KINDS:
            raise ValueError(
                f'structure must have the keys {", ".join(map(repr, KINDS))}, got {kind!r}'
            )
        check_choice(f'structure[{kind!r}]', value, KINDS[kind])
    return {kind: structure.get(kind, 'unstructured') for kind in KINDS}


def find_units(
    parameters: Mapping[str, nn.Parameter],
    structure: str | Mapping[str, str] = 'unstructured',
    model: nn.Module | None = None,
) -> tuple[list[Units], dict[str, nn.Parameter]]:
    """Divide the weights of a network into units.

    Args:
        parameters (Mapping[str, nn.Parameter]): From :func:`select_targets`.
        structure (str or Mapping[str, str]): See :class:`DynamicSparsity`.
        model (nn.Module, optional): The network, for the structures of its blocks.

    Returns:
        tuple[list[Units], dict[str, nn.Parameter]]: The units, to one of which every weight
        belongs, and by name the biases that are masked with them.

    Raises:
        ValueError: For a structure that is not allowed or that no layer has, or if ``model`` is
            missing.
    """
    by_kind = check_structure(structure)
    pairs, large = {}, set()
    if by_kind['linear'] == 'neuron' or by_kind['large_kernels'] != by_kind['others']:
        if model is None:
            raise ValueError(f'structure={structure!r} needs the network, model=..., got None')
        pairs, large = _pairs(model, parameters), _large_kernels(model, parameters)
    if by_kind['linear'] == 'neuron' and not pairs:
        raise ValueError(
            "structure 'neuron' needs blocks whose two linear layers are targets (pwconv1 and "
            'pwconv2), but there are none'
        )
    if by_kind['large_kernels'] == 'tap' and not large:
        raise ValueError("structure 'tap' needs large kernels as targets, but there are none")

    units, biases, seconds = [], {}, {second for second, _ in pairs.values()}
    for name, parameter in parameters.items():
        shape = tuple(parameter.shape)
        kind = 'large_kernels' if name in large else 'linear' if len(shape) == 2 else 'others'
        value = by_kind[kind]
        if value == 'neuron' and name in seconds:
            continue
        if value == 'neuron' and name in pairs:
            second, bias = pairs[name]
            bias_name = None
            if bias is not None:
                bias_name = name.removesuffix('weight') + 'bias'
                biases[bias_name] = bias
            shapes = shape, tuple(parameters[second].shape)
            units.append(_neurons(name, second, bias_name, *shapes))
        elif value == 'tap':
            units += _taps(name, shape)
        elif value == '2:4' and can_be_two_four(shape):
            units.append(Units.weights(name, shape, value))
        else:
            # A layer that cannot have the structure of its kind has that of the others.
            plain = value if value in KINDS['others'] else by_kind['others']
            units.append(Units.weights(name, shape, plain))
    return units, biases


def _neurons(
    first: str, second: str, bias: str | None, shape: tuple[int, ...], second_shape: tuple[int, ...]
) -> Units:
    """Make a unit of each row of the first layer, its bias and its column of the second layer."""
    parts = Part(first, shape, shape, 1), Part(second, second_shape, second_shape, 0)
    biases = () if bias is None else (Part(bias, shape[:1], (shape[0], 1), 1),)
    return Units(first, parts, biases, 'neuron')


def _taps(name: str, shape: tuple[int, ...]) -> Iterator[Units]:
    """Make a unit of each position in the kernels of neighbouring channels.

    The last channels are units of their own if they are fewer.
    """
    channels, positions = shape[0], math.prod(shape[1:])
    whole = channels - channels % TAP_CHANNELS
    if whole:
        view = (whole // TAP_CHANNELS, TAP_CHANNELS, positions)
        yield Units(name, (Part(name, shape, view, 1, stop=whole),), structure='tap')
    if whole < channels:
        part = Part(name, shape, (1, channels - whole, positions), 1, start=whole)
        suffix = f'[{whole}:]' if whole else ''
        yield Units(name + suffix, (part,), structure='tap')


def _pairs(
    model: nn.Module, parameters: Mapping[str, nn.Parameter]
) -> dict[str, tuple[str, nn.Parameter | None]]:
    """Find the linear layers of blocks: first weight -> second weight and bias of the first."""
    names, found = {id(parameter): name for name, parameter in parameters.items()}, {}
    for module in model.modules():
        for layers in PAIRS:
            first, second = (getattr(module, name, None) for name in layers)
            if not isinstance(first, nn.Linear) or not isinstance(second, nn.Linear):
                continue
            ids = id(first.weight), id(second.weight)
            if ids[0] != ids[1] and set(ids) <= set(names):
                found[names[ids[0]]] = names[ids[1]], first.bias
    return found


def _large_kernels(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> set[str]:
    names = {id(parameter): name for name, parameter in parameters.items()}
    layers = (layer for layer in model.modules() if is_large_kernel(layer))
    return {names[id(layer.weight)] for layer in layers if id(layer.weight) in names}
