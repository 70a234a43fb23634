"""Which weights exist: choosing them, keeping the others at zero, counting, storing."""

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

#: A depth-wise kernel with a side of at least this many weights is a large kernel: the tall
#: and the wide (or the one large) kernel of the spatial mixing, but not the 5 x 5 beside them.
LARGE_KERNEL = 7
TARGETS = ('all', 'large_kernels')

# Integers as wide as a weight: masking is a bitwise AND with all ones or all zeros.
_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def select_targets(
    module: nn.Module, targets: str | dict = 'all', prefix: str = ''
) -> dict[str, nn.Parameter]:
    """Choose the weights that sparsity concerns.

    Args:
        module (nn.Module): The network, or the part of it to look at.
        targets (str or dict): ``all`` (the weights of every convolution and linear layer),
            ``large_kernels`` (depth-wise kernels with a side of 7 or more), or
            ``dict(include=[...], exclude=[...])`` of shell patterns on the names, prefix
            included; each of the two may be left out.
        prefix (str): Put before every name, such as ``backbone.``.

    Returns:
        dict[str, nn.Parameter]: By name, in the order of the modules; of dimensions
        (out, in) or (out, in / groups, kernel height, kernel width). A parameter shared by
        several modules appears once, under its first name.

    Raises:
        ValueError: For unknown targets, a pattern that matches no weight, or no weight left.
    """
    layers: dict[str, nn.Module] = {}
    parameters: dict[str, nn.Parameter] = {}
    seen = set()
    for path, layer in module.named_modules():
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)) and id(layer.weight) not in seen:
            name = f'{prefix}{path}.weight' if path else f'{prefix}weight'
            seen.add(id(layer.weight))
            layers[name], parameters[name] = layer, layer.weight
    if targets == 'all':
        chosen = list(parameters)
    elif targets == 'large_kernels':
        chosen = [name for name, layer in layers.items() if _has_large_kernel(layer)]
    elif isinstance(targets, Mapping) and targets and set(targets) <= {'include', 'exclude'}:
        chosen = _match(targets, list(parameters))
    else:
        raise ValueError(
            f'targets must be {", ".join(map(repr, TARGETS))} or a dict of include and exclude '
            f'patterns, got {targets!r}'
        )
    if not chosen:
        raise ValueError(
            f'targets={targets!r} selects no weight of {type(module).__name__}; it must select '
            f'at least one of its {len(parameters)} convolution and linear weights'
        )
    return {name: parameters[name] for name in chosen}


def _has_large_kernel(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.modules.conv._ConvNd)
        and layer.groups == layer.in_channels == layer.out_channels
        and max(layer.kernel_size) >= LARGE_KERNEL
    )


def _match(targets: Mapping, names: list[str]) -> list[str]:
    matches = {}
    for key in targets:
        patterns = targets[key]
        if isinstance(patterns, str) or not isinstance(patterns, Sequence):
            raise ValueError(f'targets.{key} must be a list of patterns, got {patterns!r}')
        matches[key] = set()
        for pattern in patterns:
            found = {name for name in names if fnmatchcase(name, pattern)}
            if not found:
                raise ValueError(
                    f'targets.{key} has the pattern {pattern!r}, which matches none of the '
                    f'{len(names)} convolution and linear weights (such as {names[:1]})'
                )
            matches[key] |= found
    included = matches.get('include', set(names))
    return [name for name in names if name in included - matches.get('exclude', set())]


class SparseMasks:
    """One boolean mask for each of a network's selected weights; True where a weight exists.

    A weight tensor whose mask is True everywhere is dense: it is counted, but nothing is
    stored for it and masking costs nothing.

    Masking is a bitwise AND of the weights' bits: a masked weight becomes +0.0 whatever it
    was, infinity and NaN included, which a product with 0 would not do. On CPUs the masks are
    stored as wide as the weights, several times faster there than a byte each
    (``masked_fill_`` is slower still); on accelerators they take a byte a weight.

    Args:
        parameters (Mapping[str, nn.Parameter]): From :func:`select_targets`.
        masks (Mapping[str, Tensor], optional): Boolean masks of the parameters' shapes; a
            parameter without one is dense.

    Raises:
        ValueError: If a mask belongs to no parameter or has another shape than its own.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        masks: Mapping[str, Tensor] | None = None,
    ):
        self.parameters = dict(parameters)
        self._words: dict[str, Tensor] = {}
        self._kept = {name: p.numel() for name, p in self.parameters.items()}
        for name, mask in (masks or {}).items():
            self[name] = mask

    @classmethod
    def from_weights(cls, parameters: Mapping[str, nn.Parameter]) -> 'SparseMasks':
        """Take the weights that are not zero as the ones that exist.

        A weight that was grown and is still zero is lost; masks from a checkpoint lose none.
        """
        return cls(parameters, {name: p.detach() != 0 for name, p in parameters.items()})

    def __getitem__(self, name: str) -> Tensor:
        """Return a new boolean mask of the shape of the parameter."""
        if name not in self._words:
            return torch.ones_like(
                self.parameters[name], dtype=torch.bool, memory_format=torch.contiguous_format
            )
        return (self._words[name] != 0).contiguous()

    def __setitem__(self, name: str, mask: Tensor) -> None:
        if name not in self.parameters:
            raise ValueError(f'there is a mask for {name!r}, which is none of the sparse weights')
        parameter = self.parameters[name]
        if mask.shape != parameter.shape:
            raise ValueError(
                f'the mask of {name!r} must have the shape {tuple(parameter.shape)} of the '
                f'weights, got {tuple(mask.shape)}'
            )
        kept = int(mask.count_nonzero())
        self._kept[name] = kept
        if kept == mask.numel():
            self._words.pop(name, None)
            return
        self._words[name] = _as_words(mask.to(parameter.device, torch.bool), parameter)

    # -- keeping weights at zero -----------------------------------------------------------

    def apply_(self) -> None:
        """Set every masked weight to +0.0, in place."""
        for name, parameter in self.parameters.items():
            self._mask_(name, parameter)

    def mask_gradients_(self) -> None:
        """Set the gradient of every masked weight to +0.0, in place.

        Between the backward pass and gradient clipping, this makes the gradient that of the
        sparse network: masked weights count nothing in the norm, and gather no moments.
        """
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self._mask_(name, parameter.grad)

    def apply_to(self, module: nn.Module, prefix: str = '') -> None:
        """Set the masked weights of a copy of the network, such as its average, to +0.0.

        Args:
            module (nn.Module): Has a parameter of every masked name, ``prefix`` removed.
            prefix (str): What the names here have before those of ``module``.

        Raises:
            ValueError: Naming the first masked weight that ``module`` lacks or has in another
                shape.
        """
        copies = dict(module.named_parameters(remove_duplicate=False))
        for name in self.masked:
            copy = copies.get(name.removeprefix(prefix))
            if copy is None or copy.shape != self.parameters[name].shape:
                found = 'no such parameter' if copy is None else f'shape {tuple(copy.shape)}'
                raise ValueError(
                    f'{name!r} of shape {tuple(self.parameters[name].shape)} is masked, but '
                    f'{type(module).__name__} has {found}'
                )
        for name in self.masked:
            self._mask_(name, copies[name.removeprefix(prefix)])

    def _mask_(self, name: str, values: Tensor) -> None:
        words = self._words.get(name)
        if words is None:
            return
        if words.device != values.device:
            words = words.to(values.device)
            if values is self.parameters[name]:
                # The network moved; its masks follow.
                self._words[name] = words = _as_words(words != 0, values)
        values.detach().view(_WORDS[values.element_size()]).bitwise_and_(words)

    # -- counting --------------------------------------------------------------------------

    @property
    def masked(self) -> list[str]:
        """Names of the weights that have a mask."""
        return [name for name in self.parameters if name in self._words]

    @property
    def dense(self) -> list[str]:
        """Names of the selected weights that were left dense."""
        return [name for name in self.parameters if name not in self._words]

    @property
    def numel(self) -> int:
        """Number of selected weights, zeros and dense layers included."""
        return sum(p.numel() for p in self.parameters.values())

    @property
    def nonzero(self) -> int:
        """Number of selected weights that exist."""
        return sum(self._kept.values())

    @property
    def sparsity(self) -> float:
        """Share of the selected weights that are masked, in [0, 1]."""
        return 1 - self.nonzero / max(1, self.numel)

    def kept(self, name: str) -> int:
        """Number of weights of one parameter that exist."""
        return self._kept[name]

    def density(self, name: str) -> float:
        """Share of the weights of one parameter that exist, in [0, 1]."""
        return self._kept[name] / max(1, self.parameters[name].numel())

    def checksums(self) -> dict[str, str]:
        """64 bits over name, shape and mask of each parameter, the same in every process."""
        return {name: self._checksum(name) for name in self.parameters}

    def checksum(self) -> str:
        """64 bits over all of :meth:`checksums`."""
        return _hash(*(text for pair in self.checksums().items() for text in pair))

    def _checksum(self, name: str) -> str:
        shape = str(tuple(self.parameters[name].shape))
        packed = pack_mask(self[name]).numpy().tobytes() if name in self._words else 'dense'
        return _hash(name, shape, packed)

    def verify_across_ranks(self) -> None:
        """Check that all processes of ``torch.distributed`` hold the same masks.

        Without several processes there is nothing to check.

        Raises:
            RuntimeError: In every process, naming the first parameter whose masks differ.
        """
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return
        mine = self.checksums()
        gathered: list = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, mine)
        for name in gathered[0]:
            for rank, other in enumerate(gathered):
                if other.get(name) != gathered[0][name]:
                    raise RuntimeError(
                        f'the mask of {name!r} differs between rank 0 ({gathered[0][name]}) and '
                        f'rank {rank} ({other.get(name)}); training would go apart from here'
                    )
        for rank, other in enumerate(gathered):
            for name in other:
                if name not in gathered[0]:
                    raise RuntimeError(f'{name!r} is a sparse weight on rank {rank}, not on rank 0')

    # -- storing ---------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """Shapes of all selected weights, and the masks at one bit a weight (on the CPU)."""
        return dict(
            shapes={name: list(p.shape) for name, p in self.parameters.items()},
            packed={name: pack_mask(self[name]) for name in self.masked},
        )

    def load_state_dict(self, state: Mapping) -> None:
        """Replace the masks by those of :meth:`state_dict` of the same selection of weights.

        Raises:
            ValueError: Saying which weights are missing, unknown or of another shape; nothing
                was changed then.
        """
        differences = self.differences(state)
        if differences:
            raise ValueError(
                'the masks were saved for other weights than these: ' + '; '.join(differences)
            )
        masks = unpack_masks(state)
        for name, parameter in self.parameters.items():
            self[name] = masks.get(name, torch.ones(parameter.shape, dtype=torch.bool))

    def differences(self, state: Mapping) -> list[str]:
        """Say how the weights of a saved state differ from these; empty where they do not."""
        saved, found = state['shapes'], {}
        for name in saved:
            if name not in self.parameters:
                found.setdefault('saved, but not among the targets here', []).append(name)
        for name, parameter in self.parameters.items():
            if name not in saved:
                found.setdefault('a target here, but not saved', []).append(name)
            elif list(parameter.shape) != list(saved[name]):
                text = f'{name} {tuple(saved[name])} here {tuple(parameter.shape)}'
                found.setdefault('saved with another shape', []).append(text)
        return [f'{what}: {_listed(names)}' for what, names in found.items()]


def reset_moments_(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, where: Tensor
) -> None:
    """Zero what an optimiser remembers of some weights, in place.

    Args:
        optimizer (Optimizer): Any; every tensor of its state that has the parameter's shape
            is reset: Adam's moments, SGD's momentum buffer and the like.
        parameter (nn.Parameter): The weights.
        where (Tensor): Boolean, of the parameter's shape.
    """
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(where.to(value.device), 0)


def lowest(values: Tensor, count: int) -> Tensor:
    """Mark exactly ``count`` of the lowest values, lower indices first where values are equal.

    Args:
        values (Tensor): Of shape (N,); NaN counts as the highest.
        count (int): At most N.

    Returns:
        Tensor: Boolean, of shape (N,).
    """
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    values = values.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    threshold = values.topk(count, largest=False, sorted=False).values.max()
    chosen = values < threshold
    equal = (values == threshold).nonzero().flatten()
    chosen[equal[: count - int(chosen.count_nonzero())]] = True
    return chosen


def random_stream(seed: int, step: int, name: str) -> torch.Generator:
    """Make a generator that depends on its arguments alone: one for every rank and machine."""
    generator = torch.Generator()
    generator.manual_seed(int(_hash(str(seed), str(step), name)[:8], 16))
    return generator


def pack_mask(mask: Tensor) -> Tensor:
    """Store a boolean mask at one bit a weight.

    Args:
        mask (Tensor): Boolean, of any shape.

    Returns:
        Tensor: uint8 of shape (ceil(N / 8),) on the CPU, the first weight in the lowest bit.
    """
    return torch.from_numpy(np.packbits(mask.cpu().numpy().ravel(), bitorder='little'))


def unpack_mask(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo :func:`pack_mask`.

    Raises:
        ValueError: If ``packed`` is not as long as ``shape`` needs.
    """
    count = int(np.prod(shape))
    if packed.dtype != torch.uint8 or packed.numel() != -(-count // 8):
        raise ValueError(
            f'a mask of shape {tuple(shape)} packs into {-(-count // 8)} bytes, got '
            f'{packed.numel()} of {packed.dtype}'
        )
    bits = np.unpackbits(packed.cpu().numpy(), count=count, bitorder='little')
    return torch.from_numpy(bits.astype(bool)).reshape(tuple(shape))


def unpack_masks(state: Mapping) -> dict[str, Tensor]:
    """Read the boolean masks out of :meth:`SparseMasks.state_dict`, dense weights left out."""
    return {
        name: unpack_mask(packed, state['shapes'][name]) for name, packed in state['packed'].items()
    }


def _as_words(mask: Tensor, like: Tensor) -> Tensor:
    """Turn True into all ones, False into all zeros, laid out in memory as ``like`` is."""
    dtype = _WORDS[like.element_size()] if like.device.type == 'cpu' else torch.int8
    return torch.empty_like(like, dtype=dtype, requires_grad=False).copy_(mask).neg_()


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        digest.update(len(part).to_bytes(8, 'little') + part)
    return digest.hexdigest()


def _listed(names: Sequence[str], most: int = 5) -> str:
    rest = len(names) - most
    return ', '.join(names[:most]) + (f' and {rest} more' if rest > 0 else '')
