"""Checking that a checkpoint fits the model."""

from mmengine.hooks import Hook

from ...checkpoints import compare, weights_of
from ...registry import HOOKS


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
            raise ValueError(
                f'the checkpoint does not fit the model of the config: of {len(wanted)} entries '
                f'{len(found.missing)} are missing and {len(found.reshaped)} have another shape '
                f'({found.first()}); use the config that the checkpoint was trained with'
            )
