"""Sparse training in plain PyTorch.

The weights that can be masked are in ``targets``, their masks in ``masks``, the number of active
weights of each layer in ``allocation`` (with ``snip``), the first masks in ``initial_masks``, the
times of the updates in ``schedule``, pruning and growing in ``grow``. ``structures`` describes
which weights are masked together. ``evolution`` puts these together. ``agreement`` compares masks
between the processes of a distributed training. ``semi_structured`` is about 2:4 sparsity.
"""

from .agreement import RankDifferenceError, check_agreement, rank_list
from .allocation import DENSE_ABOVE, allocate
from .evolution import DynamicSparsity, Update
from .grow import prune_and_grow, reset_moments_, start_moments_
from .masks import SparseMasks, pack_mask, unpack_mask, unpack_masks
from .schedule import UpdateRule
from .selection import random_stream
from .semi_structured import is_two_four, to_semi_structured
from .snip import snip_scores
from .structures import TAP_CHANNELS, Units, check_structure, find_units
from .targets import active_weights, select_model_targets, select_targets

__all__ = [
    'DENSE_ABOVE',
    'TAP_CHANNELS',
    'DynamicSparsity',
    'RankDifferenceError',
    'SparseMasks',
    'Units',
    'Update',
    'UpdateRule',
    'active_weights',
    'allocate',
    'check_agreement',
    'check_structure',
    'find_units',
    'is_two_four',
    'pack_mask',
    'prune_and_grow',
    'random_stream',
    'rank_list',
    'reset_moments_',
    'select_model_targets',
    'select_targets',
    'snip_scores',
    'start_moments_',
    'to_semi_structured',
    'unpack_mask',
    'unpack_masks',
]
