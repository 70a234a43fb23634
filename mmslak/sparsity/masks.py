"""Masks of weights: keeping masked weights at zero, counting active ones, saving and loading."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .agreement import check_agreement
from .selection import short_hash
from .targets import active_weights

# Integer dtypes by the size of a weight in bytes. Masking is a bitwise AND with all ones or all
# zeros.
_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class SparseMasks:
    """One boolean mask for each selected weight tensor of a network, True where it is active.

    A weight tensor whose mask is True everywhere is dense: it is counted, but no mask is stored
    for it and masking costs nothing.

    Masking is a bitwise AND with the bits of the weights. A masked weight becomes +0.0 even if it
    was infinite or NaN, unlike in a product with 0. On CPUs a mask takes as many bytes as the
    weights, which is several times faster than one byte per weight (and ``masked_fill_`` is even
    slower). On accelerators it takes one byte per weight.

    Args:
        parameters (Mapping[str, nn.Parameter]): From :func:`select_targets`.
        masks (Mapping[str, Tensor], optional): Boolean masks of the parameters' shapes. A
            parameter without a mask is dense.
        biases (Mapping[str, nn.Parameter], optional): Biases that can have masks, too. They are
            neither counted nor saved, because their masks follow from those of the weights.

    Raises:
        ValueError: If a mask belongs to no parameter or has another shape than its own.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        masks: Mapping[str, Tensor] | None = None,
        biases: Mapping[str, nn.Parameter] | None = None,
    ):
        self.parameters = dict(parameters)
        self._all = {**self.parameters, **(biases or {})}
        self._words: dict[str, Tensor] = {}
        self._kept = {name: p.numel() for name, p in self.parameters.items()}
        for name, mask in (masks or {}).items():
            self[name] = mask

    @classmethod
    def from_weights(cls, parameters: Mapping[str, nn.Parameter]) -> 'SparseMasks':
        """Make masks of the weights that are zero, see :func:`active_weights`."""
        return cls(parameters, {name: active_weights(p) for name, p in parameters.items()})

    def __getitem__(self, name: str) -> Tensor:
        """Return a new boolean mask of the shape of the parameter."""
        if name not in self._words:
            return torch.ones_like(
                self._all[name], dtype=torch.bool, memory_format=torch.contiguous_format
            )
        return self._words[name].bool().contiguous()

    def __setitem__(self, name: str, mask: Tensor) -> None:
        if name not in self._all:
            raise ValueError(f'masks must belong to selected weights, got a mask for {name!r}')
        parameter = self._all[name]
        if mask.shape != parameter.shape:
            raise ValueError(
                f'the mask of {name!r} must have shape {tuple(parameter.shape)}, that of the '
                f'weights, got {tuple(mask.shape)}'
            )
        kept = int(mask.count_nonzero())
        if name in self.parameters:
            self._kept[name] = kept
        if kept == mask.numel():
            self._words.pop(name, None)
            return
        self._words[name] = _as_words(mask.to(parameter.device, torch.bool), parameter)

    def parameter(self, name: str) -> nn.Parameter:
        """Return the weights or biases of a mask."""
        return self._all[name]

    # -- masking ---------------------------------------------------------------------------

    def apply_(self) -> None:
        """Set every masked weight to +0.0, in place."""
        for name, parameter in self._all.items():
            self._mask_(name, parameter)

    def mask_gradients_(self) -> None:
        """Set the gradient of every masked weight to +0.0, in place.

        If this is called between the backward pass and gradient clipping, masked weights do not
        contribute to the norm of the gradient, and their moments stay zero.
        """
        for name, parameter in self._all.items():
            if parameter.grad is not None:
                self._mask_(name, parameter.grad)

    def apply_to(self, module: nn.Module, prefix: str = '') -> None:
        """Set the masked weights of a copy of the network, such as its average, to +0.0.

        Args:
            module (nn.Module): Has a parameter for every mask, with the name of the mask without
                ``prefix``.
            prefix (str): Removed from the names of the masks.

        Raises:
            ValueError: Naming the first masked weight that ``module`` lacks or that has another
                shape.
        """
        copies = dict(module.named_parameters(remove_duplicate=False))
        for name in self._words:
            copy, shape = copies.get(name.removeprefix(prefix)), self._all[name].shape
            if copy is None or copy.shape != shape:
                found = 'no such parameter' if copy is None else f'shape {tuple(copy.shape)}'
                raise ValueError(
                    f'{name!r} of shape {tuple(shape)} is masked, but {type(module).__name__} has '
                    f'{found}'
                )
        for name in list(self._words):
            self._mask_(name, copies[name.removeprefix(prefix)])

    def _mask_(self, name: str, values: Tensor) -> None:
        words = self._words.get(name)
        if words is None:
            return
        if words.device != values.device:
            words = words.to(values.device)
            if values is self._all[name]:
                # The network was moved to another device, so the stored mask is moved too.
                self._words[name] = words = _as_words(words.bool(), values)
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
        """Number of selected weights, masked ones and dense layers included."""
        return sum(p.numel() for p in self.parameters.values())

    @property
    def active(self) -> int:
        """Number of selected weights that are active, dense layers included."""
        return sum(self._kept.values())

    @property
    def sparsity(self) -> float:
        """Share of the selected weights that are masked, in [0, 1]."""
        return 1 - self.active / max(1, self.numel)

    def kept(self, name: str) -> int:
        """Return the number of active weights of one parameter."""
        return self._kept[name]

    def density(self, name: str) -> float:
        """Return the share of the weights of one parameter that are active, in [0, 1]."""
        return self._kept[name] / max(1, self.parameters[name].numel())

    def checksums(self) -> dict[str, str]:
        """Return a 64-bit checksum of name, shape and mask of each parameter, by name."""
        return {name: self._checksum(name) for name in self.parameters}

    def checksum(self) -> str:
        """Return a 64-bit checksum of all masks, the same in every process."""
        return short_hash(*(text for pair in self.checksums().items() for text in pair))

    def _checksum(self, name: str) -> str:
        shape = str(tuple(self.parameters[name].shape))
        packed = pack_mask(self[name]).numpy().tobytes() if name in self._words else 'dense'
        return short_hash(name, shape, packed)

    def verify_across_ranks(self) -> None:
        """Check that all processes of ``torch.distributed`` have the same masks.

        Raises:
            RankDifferenceError: On every rank, naming the first parameter whose masks differ and
                the ranks.
        """
        check_agreement(self.rank_values)

    def rank_values(self) -> dict[str, str]:
        """Return what must be the same on every rank, for :func:`check_agreement`."""
        return {f'the mask of {name!r}': text for name, text in self.checksums().items()}

    # -- saving and loading ----------------------------------------------------------------

    def state_dict(self) -> dict:
        """Return the shapes of all selected weights, and the masks with one bit per weight."""
        return dict(
            shapes={name: list(p.shape) for name, p in self.parameters.items()},
            packed={name: pack_mask(self[name]) for name in self.masked},
        )

    def load_state_dict(self, state: Mapping) -> None:
        """Load a state of :meth:`state_dict` of the same selected weights.

        Args:
            state (Mapping): From :meth:`state_dict`.

        Raises:
            ValueError: Naming the weights that are missing, unknown or of another shape. The masks
                do not change then.
        """
        differences = self.differences(state)
        if differences:
            raise ValueError(
                'the saved masks do not fit the selected weights: ' + '; '.join(differences)
            )
        masks = unpack_masks(state)
        for name, parameter in self.parameters.items():
            self[name] = masks.get(name, torch.ones(parameter.shape, dtype=torch.bool))

    def differences(self, state: Mapping) -> list[str]:
        """Describe how the weights of a saved state differ from the selected weights.

        Args:
            state (Mapping): From :meth:`state_dict`.

        Returns:
            list[str]: One text for each kind of difference; empty if there is none.
        """
        saved, found = state['shapes'], {}
        for name in saved:
            if name not in self.parameters:
                found.setdefault('selected only in the saved state', []).append(name)
        for name, parameter in self.parameters.items():
            if name not in saved:
                found.setdefault('missing in the saved state', []).append(name)
            elif list(parameter.shape) != list(saved[name]):
                shapes = f'{tuple(saved[name])} in the saved state, {tuple(parameter.shape)} here'
                found.setdefault('of another shape', []).append(f'{name} ({shapes})')
        return [f'{what}: {_listed(names)}' for what, names in found.items()]


def pack_mask(mask: Tensor) -> Tensor:
    """Pack a boolean mask into one bit per weight.

    Args:
        mask (Tensor): Boolean, of any shape.

    Returns:
        Tensor: uint8 of shape (ceil(N / 8),) on the CPU for N weights. The first weight is in the
        lowest bit of the first byte.
    """
    return torch.from_numpy(np.packbits(mask.cpu().numpy().ravel(), bitorder='little'))


def unpack_mask(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Unpack a mask of :func:`pack_mask`.

    Args:
        packed (Tensor): From :func:`pack_mask`.
        shape (Sequence[int]): Shape of the mask.

    Returns:
        Tensor: The boolean mask, on the CPU.

    Raises:
        ValueError: If ``packed`` does not have the length that ``shape`` needs.
    """
    count = int(np.prod(shape))
    if packed.dtype != torch.uint8 or packed.numel() != -(-count // 8):
        raise ValueError(
            f'a packed mask of shape {tuple(shape)} must have {-(-count // 8)} bytes, got '
            f'{packed.numel()} elements of {packed.dtype}'
        )
    bits = np.unpackbits(packed.cpu().numpy(), count=count, bitorder='little')
    return torch.from_numpy(bits.astype(bool)).reshape(tuple(shape))


def unpack_masks(state: Mapping) -> dict[str, Tensor]:
    """Return the boolean masks in a state of :meth:`SparseMasks.state_dict`.

    Args:
        state (Mapping): From :meth:`SparseMasks.state_dict`.

    Returns:
        dict[str, Tensor]: By name, for the weights that are not dense.
    """
    return {
        name: unpack_mask(packed, state['shapes'][name]) for name, packed in state['packed'].items()
    }


def _as_words(mask: Tensor, like: Tensor) -> Tensor:
    """Return integers with all bits 1 for True and 0 for False, laid out in memory as ``like``."""
    dtype = _WORDS[like.element_size()] if like.device.type == 'cpu' else torch.int8
    return torch.empty_like(like, dtype=dtype, requires_grad=False).copy_(mask).neg_()


def _listed(names: Sequence[str], most: int = 5) -> str:
    rest = len(names) - most
    return ', '.join(names[:most]) + (f' and {rest} more' if rest > 0 else '')
