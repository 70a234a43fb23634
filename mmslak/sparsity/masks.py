"""Masks of weights: keeping masked weights at zero, counting and storing."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from .selection import short_hash
from .targets import active_weights

# Integers as wide as a weight: masking is a bitwise AND with all ones or all zeros.
_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class SparseMasks:
    """One boolean mask for each selected weight tensor of a network, True where active.

    A weight tensor whose mask is True everywhere is dense: it is counted, but no mask is stored
    for it and masking costs nothing.

    Masking is a bitwise AND with the bits of the weights. A masked weight becomes +0.0 even if it
    was infinite or NaN, unlike in a product with 0. On CPUs the masks are stored as wide as the
    weights, which is several times faster there than one byte per weight (``masked_fill_`` is
    slower still); on accelerators they take one byte per weight.

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
        """Mask the weights that are zero, see :func:`active_weights`."""
        return cls(parameters, {name: active_weights(p) for name, p in parameters.items()})

    def __getitem__(self, name: str) -> Tensor:
        """Return a new boolean mask of the shape of the parameter."""
        if name not in self._words:
            return torch.ones_like(
                self.parameters[name], dtype=torch.bool, memory_format=torch.contiguous_format
            )
        return (self._words[name] != 0).contiguous()

    def __setitem__(self, name: str, mask: Tensor) -> None:
        if name not in self.parameters:
            raise ValueError(
                f'there is a mask for {name!r}, which is not one of the selected weights'
            )
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
        sparse network: masked weights do not contribute to the norm and gather no moments.
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
                # The network was moved to another device; the masks follow it.
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
        """Number of selected weights that are active."""
        return sum(self._kept.values())

    @property
    def sparsity(self) -> float:
        """Share of the selected weights that are masked, in [0, 1]."""
        return 1 - self.nonzero / max(1, self.numel)

    def kept(self, name: str) -> int:
        """Number of active weights of one parameter."""
        return self._kept[name]

    def density(self, name: str) -> float:
        """Share of the weights of one parameter that are active, in [0, 1]."""
        return self._kept[name] / max(1, self.parameters[name].numel())

    def checksums(self) -> dict[str, str]:
        """64 bits over name, shape and mask of each parameter, the same in every process."""
        return {name: self._checksum(name) for name in self.parameters}

    def checksum(self) -> str:
        """64 bits over all of :meth:`checksums`."""
        return short_hash(*(text for pair in self.checksums().items() for text in pair))

    def _checksum(self, name: str) -> str:
        shape = str(tuple(self.parameters[name].shape))
        packed = pack_mask(self[name]).numpy().tobytes() if name in self._words else 'dense'
        return short_hash(name, shape, packed)

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
                        f'rank {rank} ({other.get(name)}); training would diverge between ranks'
                    )
        for rank, other in enumerate(gathered):
            for name in other:
                if name not in gathered[0]:
                    raise RuntimeError(
                        f'{name!r} is a selected weight on rank {rank}, but not on rank 0'
                    )

    # -- storing ---------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """Return shapes of all selected weights, and masks of one bit per weight on the CPU."""
        return dict(
            shapes={name: list(p.shape) for name, p in self.parameters.items()},
            packed={name: pack_mask(self[name]) for name in self.masked},
        )

    def load_state_dict(self, state: Mapping) -> None:
        """Load the masks of :meth:`state_dict` of the same selection of weights.

        Raises:
            ValueError: Naming the weights that are missing, unknown or of another shape. The masks
                are unchanged then.
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
        """List how the weights of a saved state differ from these; empty if they do not."""
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


def pack_mask(mask: Tensor) -> Tensor:
    """Pack a boolean mask into one bit per weight.

    Args:
        mask (Tensor): Boolean, of any shape.

    Returns:
        Tensor: uint8 of shape (ceil(N / 8),) on the CPU, the first weight in the lowest bit.
    """
    return torch.from_numpy(np.packbits(mask.cpu().numpy().ravel(), bitorder='little'))


def unpack_mask(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Unpack what :func:`pack_mask` packed.

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
    """Return the boolean masks in :meth:`SparseMasks.state_dict`, without dense weights."""
    return {
        name: unpack_mask(packed, state['shapes'][name]) for name, packed in state['packed'].items()
    }


def _as_words(mask: Tensor, like: Tensor) -> Tensor:
    """Return all ones for True and all zeros for False, in the memory format of ``like``."""
    dtype = _WORDS[like.element_size()] if like.device.type == 'cpu' else torch.int8
    return torch.empty_like(like, dtype=dtype, requires_grad=False).copy_(mask).neg_()


def _listed(names: Sequence[str], most: int = 5) -> str:
    rest = len(names) - most
    return ', '.join(names[:most]) + (f' and {rest} more' if rest > 0 else '')
