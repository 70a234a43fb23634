"""Random numbers that do not depend on the version of NumPy."""

import numpy as np


class RandomNumbers:
    """Random numbers from a key of non-negative integers.

    They are computed from the raw output of PCG64, whose stream NumPy keeps stable. The stream of
    NumPy's distributions may change.
    """

    def __init__(self, *key: int):
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def integer(self, low: int, high: int) -> int:
        """Return an integer from low to high, both included."""
        return low + int(self._bits.random_raw()) % (high - low + 1)

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.uniform() < probability

    def choice(self, options):
        """Return one element of a sequence."""
        return options[self.integer(0, len(options) - 1)]

    def shuffled(self, options) -> list:
        """Return the elements in random order."""
        options = list(options)
        for i in range(len(options) - 1, 0, -1):
            j = self.integer(0, i)
            options[i], options[j] = options[j], options[i]
        return options

    def array(self, *shape: int) -> np.ndarray:
        """Return a float64 array of the given shape with values in [0, 1)."""
        count = 1
        for side in shape:
            count *= side
        return ((self._bits.random_raw(count) >> np.uint64(11)) * 2.0**-53).reshape(shape)
