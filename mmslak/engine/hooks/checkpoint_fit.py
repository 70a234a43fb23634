"""Refuse checkpoints that do not belong to the model."""

from mmengine.hooks import Hook

from ...registry import HOOKS


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Refuse a checkpoint that does not fill the model, where MMEngine would only warn.

    For testing and resuming; fine-tuning may start from a file that fits in part.
    """

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare the checkpoint's names and shapes with the model's.

        Raises:
            ValueError: If an entry of the model is missing or has another shape.
        """
        state = checkpoint.get('state_dict', checkpoint)
        state = {key.removeprefix('module.'): value for key, value in state.items()}
        model = runner.model
        # Both a distributed wrapper and a test-time augmentation hold the network in `module`.
        while hasattr(model, 'module'):
            model = model.module
        wanted = model.state_dict()
        missing = [key for key in wanted if key not in state]
        reshaped = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
        if missing or reshaped:
            raise ValueError(
                f'the checkpoint does not fit the model of the config: of {len(wanted)} entries '
                f'{len(missing)} are missing and {len(reshaped)} have another shape (first: '
                f'{(missing + reshaped)[0]}); give a checkpoint and a config that belong together'
            )
