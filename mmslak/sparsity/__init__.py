"""Sparse training in plain PyTorch: which weights are active, how many, and how that changes."""

from .allocation import DENSE_ABOVE, allocate
from .evolution import DynamicSparsity, Update
from .grow import prune_and_grow, reset_moments_
from .masks import SparseMasks, pack_mask, unpack_mask, unpack_masks
from .schedule import UpdateRule
from .selection import random_stream
from .semi_structured import is_two_four, to_semi_structured
from .snip import snip_scores
from .targets import active_weights, select_targets

__all__ = [
    'DENSE_ABOVE',
    'DynamicSparsity',
    'SparseMasks',
    'Update',
    'UpdateRule',
    'active_weights',
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
