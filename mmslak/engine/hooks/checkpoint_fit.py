"""Checking that a checkpoint belongs to the model."""

from mmengine.hooks import Hook

from ...checkpoints import compare
from ...registry import HOOKS


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Refuse a checkpoint that does not fit the model, where MMEngine would only warn.

    It is for testing and resuming. Fine-tuning may start from a checkpoint that fits in part.
    """

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare the names and shapes of the checkpoint with those of the model.

        Raises:
            ValueError: If an entry of the model is missing or has another shape.
        """
        state = checkpoint.get('state_dict', checkpoint)
        state = {key.removeprefix('module.'): value for key, value in state.items()}
        model = runner.model
        # Distributed wrappers and test-time augmentation keep the network in `module`.
        while hasattr(model, 'module'):
            model = model.module
        wanted = model.state_dict()
        # What the model lacks is left out, such as the loss weights of a training.
        found = compare({key: state[key] for key in state if key in wanted}, wanted)
        if found:
            raise ValueError(
                f'the checkpoint does not fit the model of the config: of {len(wanted)} entries '
                f'{len(found.missing)} are missing and {len(found.reshaped)} have another shape '
                f'(first: {found.first()}); give a checkpoint and a config that belong together'
            )
