"""Sparse training in plain PyTorch: which weights exist, how many, and how that changes."""

from .allocation import DENSE_ABOVE, allocate, snip_scores
from .evolution import DynamicSparsity, Update, UpdateRule, prune_and_grow
from .masks import (
    SparseMasks,
    pack_mask,
    random_stream,
    reset_moments_,
    select_targets,
    unpack_mask,
    unpack_masks,
)
from .semi_structured import is_two_four, to_semi_structured

__all__ = [
    'DENSE_ABOVE',
    'DynamicSparsity',
    'SparseMasks',
    'Update',
    'UpdateRule',
    'allocate',
    'is_two_four',
    'pack_mask',
    'prune_and_grow',
    'random_stream',
    'reset_moments_',
    'select_targets',
    'snip_scores',
    'to_semi_structured',
    'unpack_mask',
    'unpack_masks',
]
