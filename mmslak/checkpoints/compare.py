"""The one comparison of state dicts: names and shapes."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Differences:
    """How the weights of a file differ from those of a model.

    Attributes:
        reshaped (dict): Shapes in the file and in the model of the entries in which they differ,
            by name.
        missing (dict): Shapes in the model of the entries that the file lacks, by name.
        unknown (dict): Shapes in the file of the entries that the model lacks, by name.
    """

    reshaped: dict[str, tuple[Shape, Shape]]
    missing: dict[str, Shape]
    unknown: dict[str, Shape]

    def __bool__(self) -> bool:
        """Return whether there is any difference."""
        return bool(self.reshaped or self.missing or self.unknown)

    def first(self) -> str:
        """Describe the first difference: a shape before a missing entry before an unknown one.

        Returns:
            str: Such as ``head.weight is (8, 16) in the file and (8, 32) in the model``.

        Raises:
            ValueError: If there is no difference.
        """
        for name, (file, model) in self.reshaped.items():
            return f'{name} is {file} in the file and {model} in the model'
        for name, model in self.missing.items():
            return f'{name} is missing in the file and {model} in the model'
        for name, file in self.unknown.items():
            return f'{name} is {file} in the file and missing in the model'
        raise ValueError('there is no difference to describe')


def compare(file: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> Differences:
    """Compare the names and shapes of two state dicts.

    Args:
        file (Mapping[str, Tensor]): State dict read from a file.
        model (Mapping[str, Tensor]): State dict of the model that it is loaded into.

    Returns:
        Differences: In the order of the two. Counters of batches (``num_batches_tracked``) may be
        missing in the file because files written before PyTorch 0.4.1 have none.
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
