"""Stopping, or going back to the last checkpoint, when a value is NaN or infinite."""

import math
from collections.abc import Iterator, Mapping

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from ...registry import HOOKS

ACTIONS = ('stop', 'rollback')
#: A loss scaler that starts at 2**24 has halved its scale to 2**-26 after so many steps.
MAX_OVERFLOWS = 50


class NonFiniteError(ValueError):
    """A loss, a gradient or a weight is NaN or infinite."""


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stop a training, or roll it back, when a loss, a gradient or a weight is NaN or infinite.

    The loss and the norm of the gradients are checked before each step of the optimiser, so that
    the weights are not spoilt, and the weights before each checkpoint is written. The error names
    the iteration and the first module, in forward order, with a non-finite output. To find it, the
    forward pass of the same batch is repeated. If all outputs are finite, the error names the first
    parameter with a non-finite gradient or weight.

    With mixed precision, gradients may overflow. The loss scaler skips these steps as usual, and
    the hook acts only if it skips 50 of them in succession, or if the loss is not finite.

    Args:
        action (str): ``stop`` ends the training. ``rollback`` restores the model, its average, the
            masks, the optimiser and the schedules from the last checkpoint, and continues with the
            batch that follows the bad one, as for PaLM (Chowdhery et al. 2022, section 5.1).
            Iterations are counted from the checkpoint again. In a loop over epochs, the rest of the
            current pass over the data counts as a whole epoch.
        max_rollbacks (int): The training stops at the next failure after so many rollbacks.

    Raises:
        ValueError: For settings that are not allowed.
    """

    # After averages are added to a checkpoint, before it is written.
    priority = 'LOW'

    def __init__(self, action: str = 'stop', max_rollbacks: int = 3):
        if action not in ACTIONS:
            allowed = ' or '.join(map(repr, ACTIONS))
            raise ValueError(f'action of NonFiniteHook must be {allowed}, got {action!r}')
        if not isinstance(max_rollbacks, int) or max_rollbacks < 1:
            raise ValueError(
                f'max_rollbacks of NonFiniteHook must be a positive integer, got {max_rollbacks!r}'
            )
        self.action, self.max_rollbacks = action, max_rollbacks
        self._rollbacks = self._overflows = 0
        self._constant: set[str] = set()
        self._call: tuple | None = None
        self._last: str | None = None

    # -- start -----------------------------------------------------------------------------

    def before_run(self, runner) -> None:
        """Remember the buffers that are infinite by design, such as attention masks."""
        self._constant = {name for name, _ in _non_finite(dict(_inner(runner).named_buffers()))}

    def before_train(self, runner) -> None:
        """Check the first weights, and attach the checks to the optimiser and to the loop."""
        model = _inner(runner)
        for name, value in self._bad_weights(model.state_dict()):
            raise NonFiniteError(
                f'the weights that the training starts from are not finite: {name} contains '
                f'{value}; use another checkpoint'
            )
        model.register_forward_pre_hook(self._remember, with_kwargs=True)
        wrapper = runner.optim_wrapper
        wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        for wrapper in wrappers:
            self._check_after_backward(runner, wrapper)
        if self.action == 'rollback':
            self._catch_in(runner)

    def _remember(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        if model.training:
            self._call = (args, kwargs)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Remember the last checkpoint, before another one may fail."""
        self._last = _last_checkpoint(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Release the batch."""
        self._call = None

    # -- checks ----------------------------------------------------------------------------

    def _check_after_backward(self, runner, wrapper: OptimWrapper) -> None:
        backward = wrapper.backward

        def checked(loss: Tensor, **kwargs) -> None:
            backward(loss, **kwargs)
            self._check(runner, wrapper, loss.detach())

        wrapper.backward = checked

    def _check(self, runner, wrapper: OptimWrapper, loss: Tensor) -> None:
        gradients = []
        if wrapper.should_update():
            groups = wrapper.optimizer.param_groups
            gradients = [p.grad for g in groups for p in g['params'] if p.grad is not None]
        # 2: the loss is not finite, 1: only gradients. One transfer from the device for both.
        state = 2 * ~torch.isfinite(loss.sum())
        if gradients:
            # A sum of norms overflows later than the norm of all gradients.
            norms = torch.stack([norm.float() for norm in torch._foreach_norm(gradients)])
            state = torch.maximum(state, 1 * ~torch.isfinite(norms.sum()))
        if get_world_size() > 1:
            all_reduce(state, 'max')
        state = int(state)
        scaler = getattr(wrapper, 'loss_scaler', None)
        if state == 1 and scaler is not None and scaler.is_enabled():
            self._overflows += 1
            if self._overflows < MAX_OVERFLOWS:
                return
        elif gradients:
            self._overflows = 0
        if state:
            self._fail(runner, wrapper, float(loss.sum()), state == 1)

    def _fail(self, runner, wrapper: OptimWrapper, loss: float, only_gradients: bool) -> None:
        model = _inner(runner)
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        gradient = next(_non_finite(gradients), None)
        if only_gradients and gradient is None:
            # The gradients are so large that the squares in their norms overflow.
            return
        order, module = _first_module(model, self._call, wrapper)
        if not module:
            for name, value in self._bad_weights(model.state_dict()):
                module = f'{name} contains {value}'
                break
            else:
                module = f'the gradient of {gradient[0]} contains {gradient[1]}' if gradient else ''
        if get_world_size() > 1:
            found = all_gather_object((order, loss, module))
            rank = min(
                range(len(found)), key=lambda rank: (found[rank][0], math.isfinite(found[rank][1]))
            )
            _, loss, module = found[rank]
            module += f' (process {rank})'
        what = 'gradients are not finite' if math.isfinite(loss) else f'the loss is {loss}'
        raise NonFiniteError(
            f'iteration {runner.iter + 1}: {what}'
            + (f'; {module}' if module else '')
            + self._advice()
        )

    def _bad_weights(self, state: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
        return ((n, v) for n, v in _non_finite(state) if n not in self._constant)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuse to write weights that are not finite.

        Raises:
            NonFiniteError: Naming the first of them.
        """
        for key in ('state_dict', 'ema_state_dict'):
            state = checkpoint.get(key, {})
            for name, value in self._bad_weights(
                {name.removeprefix('module.'): value for name, value in state.items()}
            ):
                done = checkpoint['meta']['iter']
                raise NonFiniteError(
                    f'iteration {done}: {name} contains {value}, so that no checkpoint is written'
                    + self._advice()
                )

    def _advice(self) -> str:
        if self.action == 'rollback':
            return ''
        return (
            (
                f'; the last checkpoint is {self._last}'
                if self._last
                else '; there is no checkpoint yet'
            )
            + '; lower the learning rate, clip the gradients, or skip such batches with '
            'default_hooks.non_finite.action=rollback'
        )

    # -- rollback --------------------------------------------------------------------------

    def _catch_in(self, runner) -> None:
        """Let the loop go on with the next batch after a failure."""
        loop = runner.train_loop
        run_iter = loop.run_iter

        def caught(*args) -> None:
            try:
                run_iter(*args)
            except NonFiniteError as error:
                self._roll_back(runner, error)

        loop.run_iter = caught

    def _roll_back(self, runner, error: NonFiniteError) -> None:
        last = self._last
        if self._rollbacks == self.max_rollbacks:
            raise NonFiniteError(
                f'{error}; stopped after {self._rollbacks} rollbacks; the last checkpoint is {last}'
            ) from None
        if last is None:
            raise NonFiniteError(f'{error}; there is no checkpoint yet to roll back to') from None
        self._rollbacks += 1
        self._overflows, self._call = 0, None
        runner.logger.warning(
            f'{error}; rolling back to {last} and skipping the batch (rollback {self._rollbacks} '
            f'of at most {self.max_rollbacks})'
        )
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook) and hook.last_ckpt:
                # MMEngine sets it before it writes the file.
                hook.last_ckpt = last
        # The checkpoint may contain gradients that are accumulated.
        runner.optim_wrapper.zero_grad()
        resuming, runner._resume = runner._resume, True
        # The data continues, so that the batches differ this time.
        try:
            runner.resume(last)
        finally:
            runner._resume = resuming
        runner.optim_wrapper.initialize_count_status(
            runner.model, runner.iter, runner.train_loop.max_iters
        )


def _inner(runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _last_checkpoint(runner) -> str | None:
    """Return the last checkpoint of this training, or the one that it was resumed from."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    written = hooks[0].last_ckpt if hooks else None
    return written or (runner._load_from if runner._resume else None)


def _tensors(value) -> Iterator[Tensor]:
    """Iterate over the tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _bad_value(value) -> str | None:
    """Return ``nan`` or ``inf`` if a tensor in ``value`` contains it."""
    for tensor in _tensors(value):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return 'nan' if torch.isnan(tensor).any() else 'inf'
    return None


def _non_finite(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Iterate over the names of non-finite tensors, with ``nan`` or ``inf``."""
    for name, tensor in tensors.items():
        value = _bad_value(tensor)
        if value is not None:
            yield name, value


@torch.no_grad()
def _first_module(model: nn.Module, call: tuple | None, wrapper: OptimWrapper) -> tuple[float, str]:
    """Repeat a forward pass to find the first module with a non-finite output.

    Args:
        model (nn.Module): The network without distributed wrapper.
        call (tuple, optional): Positional and keyword arguments of its last forward pass.
        wrapper (OptimWrapper): Provides the context of mixed precision.

    Returns:
        tuple[float, str]: Number of modules that finished before, and a text that names the module;
        infinity and an empty text if there is none.
    """
    if call is None:
        return math.inf, ''
    args, kwargs = call
    value = _bad_value([args, kwargs])
    if value is not None:
        return 0, f'the input of the model contains {value}'
    names = {module: name for name, module in model.named_modules()}
    seen, found = 0, []

    def watch(module: nn.Module, _, output) -> None:
        nonlocal seen
        seen += 1
        value = None if found else _bad_value(output)
        if value is None:
            return
        text = (
            f'the first module with a non-finite output is {names[module]} '
            f'({type(module).__name__}), which returns {value}'
        )
        for parameter, weight in _non_finite(dict(module.named_parameters())):
            text += f'; its {parameter} contains {weight}'
            break
        found.append((seen, text))

    handles = [m.register_forward_hook(watch) for m in model.modules() if m is not model]
    try:
        # All of the pass, because batch norms of several processes wait for each other.
        with wrapper.optim_context(model):
            losses = model(*args, **kwargs)
    # The pass may change its data in place, and then a second one can fail in any way.
    except Exception:
        losses = {}
    finally:
        for handle in handles:
            handle.remove()
    if not found and isinstance(losses, Mapping):
        for name, value in losses.items():
            bad = _bad_value(value)
            if bad is not None:
                found.append((seen + 1, f'all modules return finite values, but {name} is {bad}'))
                break
    return found[0] if found else (math.inf, '')
