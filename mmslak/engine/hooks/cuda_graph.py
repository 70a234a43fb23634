"""Training steps that replay CUDA graphs instead of launching each kernel."""

from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from ...registry import HOOKS


@HOOKS.register_module()
class CUDAGraphHook(Hook):
    """Replay the forward and backward pass of modules as CUDA graphs in training.

    A small network, or a small batch, is computed faster than Python launches its kernels. A CUDA
    graph launches all of them at once. It is recorded in the first step, by
    ``torch.cuda.make_graphed_callables``, and repeats the same computation. Inputs of another shape
    than in the first step, validation, and passes without gradients are computed as usual. So is
    everything if recording fails, after a warning. A last batch that is smaller than the others is
    such an input.

    On other devices than NVIDIA GPUs the hook does nothing. Second derivatives are not supported.
    Register it in a config as ``default_hooks=dict(cuda_graph=dict(type='mmslak.CUDAGraphHook'))``.

    Args:
        modules (Sequence[str]): Names of the modules in the model. Their inputs must be tensors, or
            lists of them.

    Raises:
        ValueError: Before the training starts: for a module that does not exist, several processes,
            accumulated gradients, or hidden units that are left out of the products.
    """

    # After the hooks that change the model.
    priority = 'LOWEST'

    def __init__(self, modules: Sequence[str] = ('backbone',)):
        if isinstance(modules, str) or not all(isinstance(name, str) for name in modules):
            raise ValueError(f'modules must be a list of names, got {modules!r}')
        self.modules = tuple(modules)
        self._graphed: list[GraphedModule] = []

    def before_train(self, runner) -> None:
        """Check the settings, and replace the forward passes of the modules."""
        model = runner.model
        if is_model_wrapper(model) or runner.world_size > 1:
            raise ValueError(
                'CUDAGraphHook needs a training in one process; set default_hooks.cuda_graph=None'
            )
        wrappers = runner.optim_wrapper
        wrappers = wrappers.values() if isinstance(wrappers, dict) else [wrappers]
        if any(getattr(wrapper, '_accumulative_counts', 1) > 1 for wrapper in wrappers):
            raise ValueError(
                'optim_wrapper.accumulative_counts must be 1 with CUDAGraphHook, because the next '
                'replay overwrites the gradients of the last one'
            )
        named = dict(model.named_modules())
        for name in self.modules:
            if name not in named:
                raise ValueError(
                    f'modules of CUDAGraphHook must name modules of the model, such as '
                    f'{", ".join(dict(model.named_children()))}; got {name!r}'
                )
            parts = named[name].modules()
            if any(getattr(part, 'active_units', None) is not None for part in parts):
                raise ValueError(
                    'CUDAGraphHook repeats the same computation in every step, but with '
                    "structure='neuron' it changes with the masks; use another structure or remove "
                    'the hook'
                )
        if next(model.parameters()).is_cuda:
            self._graphed = [
                GraphedModule(named[name], name, runner.logger) for name in self.modules
            ]

    def after_train(self, runner) -> None:
        """Give the modules their own forward passes back."""
        for graphed in self._graphed:
            graphed.remove()
        self._graphed = []


class GraphedModule:
    """The forward pass of a module that records a CUDA graph in its first training step.

    Args:
        module (nn.Module): Its attribute ``forward`` is replaced.
        name (str): Its name in the log.
        logger (logging.Logger): Gets one line when the graph was recorded, or a warning.
    """

    def __init__(self, module: nn.Module, name: str, logger):
        self.module, self.name, self.logger = module, name, logger
        self._eager = module.forward
        self._replay, self._recorded = None, None
        module.forward = self

    def remove(self) -> None:
        """Give the module its own forward pass back."""
        # The instance attribute hides the method of the class.
        del self.module.forward

    def __call__(self, *args, **kwargs):
        """Replay the graph if it was recorded for such inputs, otherwise compute as usual."""
        leaves, structure = tree_flatten(args)
        if kwargs or not self._trains(leaves):
            return self._eager(*args, **kwargs)
        kind = (
            structure,
            torch.is_autocast_enabled('cuda'),
            torch.get_autocast_dtype('cuda'),
            *((x.shape, x.stride(), x.dtype, x.requires_grad) for x in leaves),
        )
        if self._recorded is None:
            self._recorded = kind
            self._record(args)
        if self._replay is None or kind != self._recorded:
            return self._eager(*args)
        return self._replay(*args)

    def _trains(self, leaves: list) -> bool:
        return (
            self.module.training
            and torch.is_grad_enabled()
            and bool(leaves)
            and all(isinstance(x, Tensor) and x.is_cuda for x in leaves)
            and not torch.cuda.is_current_stream_capturing()
        )

    def _record(self, args: tuple) -> None:
        module = self.module
        sample = tree_map(lambda x: x.detach().clone().requires_grad_(x.requires_grad), args)
        # Recording runs the module several times.
        buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
        random = torch.cuda.get_rng_state()
        autocast = torch.autocast(
            'cuda',
            dtype=torch.get_autocast_dtype('cuda'),
            enabled=torch.is_autocast_enabled('cuda'),
            # Weights that were cast outside the graph would stay as they are.
            cache_enabled=False,
        )
        module.forward = self._eager
        try:
            with autocast:
                torch.cuda.make_graphed_callables(module, sample)
            self._replay = module.forward
            shapes = ', '.join('x'.join(map(str, x.shape)) for x in tree_flatten(args)[0])
            self.logger.info(f'{self.name} is replayed as a CUDA graph for inputs of {shapes}')
        except Exception as error:
            reason = ' '.join(str(error).split())[:200]
            self.logger.warning(
                f'{self.name} could not be recorded as a CUDA graph and is computed as usual '
                f'({type(error).__name__}: {reason})'
            )
        finally:
            module.forward = self
            with torch.no_grad():
                for buffer, kept in buffers:
                    buffer.copy_(kept)
            torch.cuda.set_rng_state(random)
