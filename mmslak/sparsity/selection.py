"""Choosing weights: the lowest values, and random values that are the same in every process."""

import hashlib

import torch
from torch import Tensor


def lowest(values: Tensor, count: int) -> Tensor:
    """Mark exactly ``count`` of the lowest values. Among equal values lower indices come first.

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
    """Return a random generator whose numbers are the same on every rank and machine.

    Args:
        seed (int): Seed of the training.
        step (int): Step of the optimiser.
        name (str): Name of the weight tensor.

    Returns:
        torch.Generator: A generator on the CPU, seeded from the three arguments only.
    """
    generator = torch.Generator()
    generator.manual_seed(int(short_hash(str(seed), str(step), name)[:8], 16))
    return generator


def short_hash(*parts: str | bytes) -> str:
    """Return a 64-bit hash of some texts as 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        digest.update(len(part).to_bytes(8, 'little') + part)
    return digest.hexdigest()
