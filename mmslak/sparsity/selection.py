"""Choosing weights: the lowest of some values, and random values that every process agrees on."""

import hashlib

import torch
from torch import Tensor


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
    generator.manual_seed(int(short_hash(str(seed), str(step), name)[:8], 16))
    return generator


def short_hash(*parts: str | bytes) -> str:
    """Return 64 bits of a hash of some texts as hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        digest.update(len(part).to_bytes(8, 'little') + part)
    return digest.hexdigest()
