"""Loading a checkpoint of this package or of the authors into a backbone or a classifier."""

import logging
import re
from collections.abc import Collection, Mapping

from mmengine.logging import print_log
from torch import Tensor, nn

from .architecture import arguments_of, describe
from .compare import compare
from .errors import CheckpointError
from .official import from_official, select_weights
from .reading import read_checkpoint

_OUTPUT_NORM = re.compile(r'norm\d\.')


def load_backbone(backbone: nn.Module, path: str, prefix: str | None = None) -> None:
    """Load a checkpoint of this package or of the authors into a SLaK backbone.

    All entries must fit, except the norms of the outputs. A classifier has only the last of these
    norms, so the others keep their initial values.

    Args:
        backbone (nn.Module): The :class:`mmslak.models.SLaK` to load into, in place.
        path (str): Checkpoint of a whole model or of a backbone, in the format of this package or
            of the authors.
        prefix (str, optional): Prefix of the names of the backbone in a file of this package.
            Default: ``backbone.`` if there are such names, otherwise none.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it cannot be read safely or does not fit, naming a difference and the
            arguments of SLaK that would fit.
    """
    source = str(path)
    state = backbone_state(source, prefix)
    wanted = backbone.state_dict()
    # The file and the backbone may have norms of different outputs. Norms that both have must fit.
    optional = {k for k in {*state, *wanted} if _OUTPUT_NORM.match(k)} - (set(state) & set(wanted))
    differences = compare(_without(state, optional), _without(wanted, optional))
    if differences:
        raise CheckpointError(
            f'{source} does not fit model.backbone: {differences.first()}; it belongs to '
            f'SLaK({arguments_of(describe(state, source))})'
        )
    loaded = _without(state, optional)
    backbone.load_state_dict(loaded, strict=False)
    initial = sorted({name.split('.')[0] for name in optional if name in wanted})
    note = f'; {", ".join(initial)} not in the file, initialised randomly' if initial else ''
    print_log(f'Backbone: loaded {len(loaded)} entries of {source}{note}', 'current', logging.INFO)


def _without(state: Mapping, names: Collection[str]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name not in names}


def backbone_state(source: str, prefix: str | None = None) -> dict[str, Tensor]:
    """Return the weights of the backbone in a checkpoint of this package or of the authors.

    Args:
        source (str): The checkpoint.
        prefix (str, optional): As for :func:`load_backbone`.

    Returns:
        dict[str, Tensor]: By name in this package's format, without the prefix.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it cannot be read safely or has no such weights.
    """
    checkpoint = read_checkpoint(source)
    state, kind, _ = select_weights(checkpoint, False, source)
    if kind != 'ours':
        state, prefix = from_official(checkpoint, source=source).state_dict, 'backbone.'
    prefix = backbone_prefix(state, prefix)
    chosen = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if not chosen:
        raise CheckpointError(f'{source} has no entries with the prefix {prefix!r}')
    return chosen


def backbone_prefix(names: Collection[str], prefix: str | None = None) -> str:
    """Return the prefix of the names of the backbone in a file of this package.

    Args:
        names (Collection[str]): Names in the file.
        prefix (str, optional): The prefix with or without its final dot. Default: ``backbone.`` if
            there are such names, otherwise none.

    Returns:
        str: The prefix with its final dot, or an empty string.
    """
    if prefix is None:
        prefix = 'backbone.' if any(name.startswith('backbone.') for name in names) else ''
    return f'{prefix.rstrip(".")}.' if prefix else ''


def load_classifier(classifier: nn.Module, path: str) -> None:
    """Load a checkpoint of this package or of the authors into a whole SLaK classifier.

    Args:
        classifier (nn.Module): A model with ``backbone`` and ``head``, to load into, in place.
        path (str): Checkpoint of a classifier.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it cannot be read safely or does not fit, naming a difference.
    """
    source = str(path)
    checkpoint = read_checkpoint(source)
    state, kind, _ = select_weights(checkpoint, False, source)
    if kind != 'ours':
        state = from_official(checkpoint, source=source).state_dict
    if differences := compare(state, classifier.state_dict()):
        raise CheckpointError(f'{source} does not fit the classifier: {differences.first()}')
    classifier.load_state_dict(state, strict=False)
