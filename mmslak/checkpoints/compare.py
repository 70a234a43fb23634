"""Comparison of state dicts by name and shape."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Differences:
    """How the weights of a file differ from those of a model.

    Attributes:
        reshaped (dict[str, tuple]): Entries with different shapes: shape in the file and shape in
            the model, by name.
        missing (dict[str, tuple]): Entries that the file lacks: shape in the model, by name.
        unknown (dict[str, tuple]): Entries that the model lacks: shape in the file, by name.
    """

    reshaped: dict[str, tuple[Shape, Shape]]
    missing: dict[str, Shape]
    unknown: dict[str, Shape]

    def __bool__(self) -> bool:
        """Return whether there is any difference."""
        return bool(self.reshaped or self.missing or self.unknown)

    def first(self) -> str:
        """Describe one difference: a different shape, else a missing entry, else an unknown one.

        Returns:
            str: Such as ``head.weight has shape (8, 16) in the file and (8, 32) in the model``.

        Raises:
            ValueError: If there is no difference.
        """
        for name, (file, model) in self.reshaped.items():
            return f'{name} has shape {file} in the file and {model} in the model'
        for name, model in self.missing.items():
            return f'{name} is missing in the file and has shape {model} in the model'
        for name, file in self.unknown.items():
            return f'{name} is missing in the model and has shape {file} in the file'
        raise ValueError('there is no difference to describe')


def compare(file: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> Differences:
    """Compare the names and shapes of two state dicts.

    Args:
        file (Mapping[str, Tensor]): State dict read from a file.
        model (Mapping[str, Tensor]): State dict of the model that it is loaded into.

    Returns:
        Differences: In the order of the state dicts. Counters of batches (``num_batches_tracked``)
        may be missing in the file, because files from before PyTorch 0.4.1 do not have them.
    """
    shapes = {name: tuple(value.shape) for name, value in file.items()}
    wanted = {name: tuple(value.shape) for name, value in model.items()}
    return Differences(
        reshaped={
            name: (shapes[name], shape)
            for name, shape in wanted.items()
            if name in shapes and shapes[name] != shape
        },
        missing={
            name: shape
            for name, shape in wanted.items()
            if name not in shapes and not name.endswith('num_batches_tracked')
        },
        unknown={name: shape for name, shape in shapes.items() if name not in wanted},
    )
