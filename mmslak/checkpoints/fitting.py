"""Loading a checkpoint into a model that it fits."""

from collections.abc import Mapping

from torch import Tensor, nn

from ..models import SLaKBlock
from .compare import compare
from .errors import CheckpointError
from .reading import weights_of


def resize_merged(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the merged blocks of a model the numbers of hidden units that a checkpoint has.

    Args:
        model (nn.Module): Changed in place. Blocks that are not merged keep their shapes.
        state (Mapping[str, Tensor]): Weights by name.
    """
    for path, module in model.named_modules():
        if isinstance(module, SLaKBlock):
            module.resize_for(state, f'{path}.')


def load_weights(model: nn.Module, checkpoint: Mapping, source: str) -> Mapping[str, Tensor]:
    """Load the weights of a checkpoint into the model of its config.

    Args:
        model (nn.Module): The model, changed in place.
        checkpoint (Mapping): A checkpoint of MMEngine, or weights by name.
        source (str): Name of the checkpoint, for the error.

    Returns:
        Mapping[str, Tensor]: The weights by name.

    Raises:
        CheckpointError: If an entry is missing, unknown or has another shape.
    """
    state = weights_of(checkpoint)
    resize_merged(model, state)
    if differences := compare(state, model.state_dict()):
        raise CheckpointError(
            f'{source} does not fit the model of the config ({differences.first()}); use the '
            'config that the checkpoint was trained with'
        )
    # Files from before PyTorch 0.4.1 lack the counters of batch norms.
    model.load_state_dict(state, strict=False)
    return state
