"""Checking that a checkpoint fits the model."""

import re
from collections.abc import Mapping

from mmengine.hooks import Hook
from torch import nn

from ...checkpoints import compare, resize_merged, weights_of
from ...registry import HOOKS

#: The bias of the large kernel in a merged block of SLaK.
_MERGED_BIAS = re.compile(r'\.mixing\.\w+\.conv\.bias$')


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Refuse a checkpoint that does not fit the model. MMEngine only warns.

    The hook is for testing and resuming. Fine-tuning may start from a checkpoint that fits in part.
    """

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare the names and shapes of the checkpoint with those of the model.

        Raises:
            ValueError: If an entry of the model is missing or has another shape.
        """
        check_fit(checkpoint, runner.model)


def check_fit(checkpoint: Mapping, model: nn.Module, name: str = 'the checkpoint') -> None:
    """Compare the names and shapes of a checkpoint with those of a model.

    Args:
        checkpoint (Mapping): Checkpoint of MMEngine.
        model (nn.Module): The model, possibly in a wrapper that contains it as ``module``.
        name (str): Name of the checkpoint for the error.

    Raises:
        ValueError: If an entry of the model is missing or has another shape, naming the training
            that wrote the checkpoint, or if only one of the two is merged for inference.
    """
    # Distributed wrappers and test-time augmentation contain the network as `module`.
    while hasattr(model, 'module'):
        model = model.module
    state = weights_of(checkpoint)
    resize_merged(model, state)
    wanted = model.state_dict()
    # Entries that the model lacks are allowed, such as weights of losses.
    found = compare({key: state[key] for key in state if key in wanted}, wanted)
    if found:
        # A merged block has biases instead of batch norms.
        merged = [any(map(_MERGED_BIAS.search, names)) for names in (state, wanted)]
        if merged == [True, False]:
            raise ValueError(
                f'{name} is merged for inference, but the model of the config is not; add '
                '--cfg-options model.backbone.deploy=True'
            )
        if merged == [False, True]:
            raise ValueError(
                f'{name} is not merged for inference, but model.backbone.deploy is True in the '
                'config; remove it, or merge the file with tools/deploy/merge.py'
            )
        training = checkpoint.get('meta', {}).get('experiment_name')
        raise ValueError(
            f'{name}{f" of the training {training}" if training else ""} does not fit the model of '
            f'the config: of {len(wanted)} entries {len(found.missing)} are missing and '
            f'{len(found.reshaped)} have another shape ({found.first()}); use the config that the '
            'checkpoint was trained with'
        )
