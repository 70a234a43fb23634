"""Checking that all processes of ``torch.distributed`` have the same values."""

from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist

from .selection import short_hash


class RankDifferenceError(RuntimeError):
    """Values that must be the same on every rank differ. It is raised on every rank."""


def check_agreement(values: Callable[[], Mapping[str, str]]) -> None:
    """Check that every rank has the same values.

    The ranks exchange one hash of 8 bytes each. Only if the hashes differ, they exchange the values
    to name the first difference.

    Args:
        values (Callable): Returns short texts by a description such as ``the mask of 'a.weight'``.
            It is not called if there is a single process.

    Raises:
        RankDifferenceError: On every rank, naming the first value that differs and the ranks.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    own = values()
    digest = short_hash(*(text for pair in own.items() for text in pair))
    device = 'cuda' if 'nccl' in dist.get_backend() else 'cpu'
    mine = torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8, device=device)
    hashes = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(hashes, mine)
    if all(torch.equal(other, hashes[0]) for other in hashes):
        return
    gathered: list = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, dict(own))
    for name in dict.fromkeys(name for other in gathered for name in other):
        ranks: dict[str, list[int]] = {}
        for rank, other in enumerate(gathered):
            ranks.setdefault(other.get(name, 'none'), []).append(rank)
        if len(ranks) > 1:
            found = ', '.join(f'{value} on {rank_list(group)}' for value, group in ranks.items())
            raise RankDifferenceError(
                f'{name} differs between ranks: {found}; all ranks must train with the same seed '
                'and settings'
            )


def rank_list(ranks: list[int]) -> str:
    """Return text such as ``rank 1`` or ``ranks 0, 2, 3``."""
    return f'rank{"s" if len(ranks) > 1 else ""} ' + ', '.join(map(str, ranks))
