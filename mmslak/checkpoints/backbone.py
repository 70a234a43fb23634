"""Weights for a backbone, from any file that holds them."""

import logging
import re

from mmengine.logging import print_log
from torch import Tensor, nn

from .official import arguments_of, describe, from_official, select_weights
from .reading import CheckpointError, read_checkpoint

_OUTPUT_NORM = re.compile(r'norm\d\.')


def load_backbone(backbone: nn.Module, path: str, prefix: str | None = None) -> None:
    """Load a checkpoint of this package or of the authors into a SLaK backbone.

    Everything has to fit, but for the norms of the outputs: a classifier has only the last one,
    and those of a downstream model start anew.

    Args:
        backbone (nn.Module): The :class:`mmslak.models.SLaK` to fill, in place.
        path (str): Checkpoint of a whole model or of a backbone, in our form or the authors'.
        prefix (str, optional): What the backbone's names begin with in a file of our form.
            Default: ``backbone.`` where names begin so.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it cannot be read safely or does not fit, naming the first difference
            and the arguments of SLaK that would.
    """
    source = str(path)
    state = _backbone_state(source, prefix)
    wanted = backbone.state_dict()
    unknown = [k for k in state if k not in wanted and not _OUTPUT_NORM.match(k)]
    missing = [k for k in wanted if k not in state and not _OUTPUT_NORM.match(k)]
    missing = [k for k in missing if not k.endswith('num_batches_tracked')]
    reshaped = [k for k, v in state.items() if k in wanted and v.shape != wanted[k].shape]
    if unknown or missing or reshaped:
        first = (reshaped + missing + unknown)[0]
        here = tuple(wanted[first].shape) if first in wanted else 'nothing'
        there = tuple(state[first].shape) if first in state else 'nothing'
        raise CheckpointError(
            f'{source} does not fit model.backbone: {first} is {there} in the file and {here} '
            f'here; the file is of SLaK({arguments_of(describe(state, source))})'
        )
    backbone.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)
    fresh = sorted({k.split('.')[0] for k in wanted if k not in state and _OUTPUT_NORM.match(k)})
    note = f'; not in it, and started anew: {", ".join(fresh)}' if fresh else ''
    print_log(f'Backbone: {len(state)} entries from {source}{note}', 'current', logging.INFO)


def _backbone_state(source: str, prefix: str | None) -> dict[str, Tensor]:
    checkpoint = read_checkpoint(source)
    state, form, _ = select_weights(checkpoint, False, source)
    if form != 'ours':
        state, prefix = from_official(checkpoint, source=source).state_dict, 'backbone.'
    if prefix is None:
        prefix = 'backbone.' if any(name.startswith('backbone.') for name in state) else ''
    prefix = f'{prefix.rstrip(".")}.' if prefix else ''
    chosen = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if not chosen:
        raise CheckpointError(f'{source} has no entry whose name begins with {prefix!r}')
    return chosen


def load_classifier(classifier: nn.Module, path: str) -> None:
    """Load a checkpoint of this package or of the authors into a whole SLaK classifier.

    Args:
        classifier (nn.Module): With ``backbone`` and ``head``, to fill in place.
        path (str): Checkpoint of a classifier.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it cannot be read safely or does not fit, naming the first difference.
    """
    source = str(path)
    checkpoint = read_checkpoint(source)
    state, form, _ = select_weights(checkpoint, False, source)
    if form != 'ours':
        state = from_official(checkpoint, source=source).state_dict
    wanted = classifier.state_dict()
    for name in [*wanted, *state]:
        here, there = (tuple(s[name].shape) if name in s else None for s in (wanted, state))
        if here != there and not (there is None and name.endswith('num_batches_tracked')):
            raise CheckpointError(
                f'{source} does not fit the classifier: {name} is {there or "not"} in the file and '
                f'{here or "not"} in the network'
            )
    classifier.load_state_dict(state, strict=False)
