"""A warning if a resumed training uses another number of images per step."""

from mmengine.hooks import Hook

from ...registry import HOOKS
from ..snip_training_batch import batch_size

_KEY = 'images_per_step'


@HOOKS.register_module()
class StepImagesHook(Hook):
    """Warn if a training resumes with another number of images per optimiser step.

    This happens if it resumes with fewer processes. Learning rate and schedule were chosen for the
    former number.
    """

    def __init__(self):
        self._saved: int | None = None

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the number to the meta data of a checkpoint."""
        checkpoint['meta'][_KEY] = images_per_step(runner)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep the saved number until training continues."""
        if runner._resume:
            self._saved = checkpoint.get('meta', {}).get(_KEY)

    def before_train(self, runner) -> None:
        """Compare the saved number with the present one."""
        found = images_per_step(runner)
        if self._saved is not None and self._saved != found:
            runner.logger.warning(
                f'A step of the optimiser uses {found} images, but the resumed checkpoint was '
                f'trained with {self._saved}; to keep this number, change '
                'train_dataloader.batch_size or the number of processes'
            )


def images_per_step(runner) -> int:
    """Return the number of images of an optimiser step, over all processes."""
    steps = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    return batch_size(runner.train_dataloader) * steps * runner.world_size
