"""Checking that a checkpoint fits the model."""

import re

from mmengine.hooks import Hook

from ...checkpoints import compare, weights_of
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
        state = weights_of(checkpoint)
        model = runner.model
        # Distributed wrappers and test-time augmentation contain the network as `module`.
        while hasattr(model, 'module'):
            model = model.module
        wanted = model.state_dict()
        # Entries that the model lacks are allowed, such as weights of losses.
        found = compare({key: state[key] for key in state if key in wanted}, wanted)
        if found:
            # A merged block has biases instead of batch norms.
            merged = [set(filter(_MERGED_BIAS.search, names)) for names in (state, wanted)]
            if merged[0] and not merged[1]:
                raise ValueError(
                    'the checkpoint is merged for inference, but the model of the config is not; '
                    'add --cfg-options model.backbone.deploy=True'
                )
            if merged[1] and not merged[0]:
                raise ValueError(
                    'the checkpoint is not merged for inference, but model.backbone.deploy is True '
                    'in the config; remove it, or merge the file with tools/deploy/merge.py'
                )
            raise ValueError(
                f'the checkpoint does not fit the model of the config: of {len(wanted)} entries '
                f'{len(found.missing)} are missing and {len(found.reshaped)} have another shape '
                f'({found.first()}); use the config that the checkpoint was trained with'
            )
