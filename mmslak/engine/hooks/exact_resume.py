"""What a checkpoint needs so that a resumed training equals an uninterrupted one."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper

from ...registry import HOOKS
from ..seeded_batches import NETWORK, SeededBatches, seed_generators

#: Key of the meta data: number of batches that the current pass over the data has used, and the
#: number of batches in a pass.
POSITION = 'data_position'
#: Key of the message hub: the iteration after which the last validation was finished.
VALIDATED = 'validated_iter'
_GRADIENTS = 'gradients'


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make a resumed training equal to an uninterrupted one.

    Drop path, dropout and the sampling of boxes use the random generators of the main process. The
    hook seeds them before each iteration from the seed of the training, the rank and the iteration,
    so that they need not be stored. :class:`mmslak.engine.runner.Runner` does the same for each
    batch of data. Checkpoints contain the position in the data, and the gradients if they are
    accumulated over several iterations (for a single process, because only the first of several
    processes writes checkpoints).
    """

    # Before a hook draws random numbers, and before a checkpoint is written.
    priority = 'VERY_HIGH'

    def __init__(self):
        self._used = 0

    def before_train_epoch(self, runner) -> None:
        """Seed the generators for the other hooks."""
        _seed(runner)

    def before_val_epoch(self, runner) -> None:
        """Seed the generators, because a validation may be repeated after resuming."""
        _seed(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Seed the generators, and count the batches."""
        _seed(runner)
        self._used = batch_idx + 1

    def after_train_epoch(self, runner) -> None:
        """Start counting again."""
        self._used = 0

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Record that the validation is finished."""
        runner.message_hub.update_info(VALIDATED, runner.iter)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the position in the data, and gradients that the optimiser has not used yet."""
        loader = runner.train_dataloader
        if isinstance(loader.batch_sampler, SeededBatches):
            checkpoint['meta'][POSITION] = [self._used, len(loader)]
        wrapper = runner.optim_wrapper
        if runner.world_size > 1 or not isinstance(wrapper, OptimWrapper):
            return
        if 'optimizer' in checkpoint and not wrapper.should_update():
            checkpoint[_GRADIENTS] = {
                name: parameter.grad.cpu()
                for name, parameter in _parameters(runner)
                if parameter.grad is not None
            }

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Restore the gradients."""
        if runner._resume:
            self._used = checkpoint.get('meta', {}).get(POSITION, [0])[0]
            gradients = checkpoint.get(_GRADIENTS, {})
            for name, parameter in _parameters(runner):
                if name in gradients:
                    parameter.grad = gradients[name].to(parameter.device)


def _seed(runner) -> None:
    seed_generators(runner.seed, runner.rank, runner.iter, NETWORK)


def _parameters(runner):
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return model.named_parameters()
