"""Dynamic sparsity in MMEngine's training loops."""

import math
from pathlib import Path

from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from rich.box import SIMPLE
from rich.table import Table
from torch import Tensor

from ...checkpoints import (
    SPARSITY_STATE,
    backbone_prefix,
    read_checkpoint,
    resolve_name,
    weights_of,
)
from ...console import table_text
from ...models import SLaK
from ...models.arguments import PRETRAINED
from ...registry import HOOKS
from ...sparsity import (
    DynamicSparsity,
    SparseMasks,
    Update,
    check_structure,
    select_model_targets,
    unpack_masks,
)
from ..snip_training_batch import batch_size, score_training_batch

MODES = ('dynamic', 'fixed', 'off')


@HOOKS.register_module()
class DynamicSparsityHook(Hook):
    """Train with dynamic sparsity: allocate, mask, prune and grow, save and resume.

    :class:`mmslak.sparsity.DynamicSparsity` implements the method (paper, section 4); this hook
    connects it to MMEngine's runner. Register it in a config as
    ``default_hooks=dict(sparsity=dict(type='mmslak.DynamicSparsityHook', ...))``.

    Args:
        sparsity (float): Share of the target weights to mask, in [0, 1).
        allocation (str or dict): ``uniform``, ``erk``, ``snip`` (scores of one batch of training
            data), or ``dict(sparsities={pattern: sparsity})``, see
            :func:`mmslak.sparsity.allocate`.
        update (dict, optional): Settings of :class:`mmslak.sparsity.UpdateRule`: ``every``
            (optimiser steps), ``rate``, ``rate_min``, ``schedule``, ``grow``, ``moments`` and
            ``stop_at``.
        targets (str or dict): The weights that can be masked. ``all``: all convolutions and linear
            layers of the backbone and of the head of a classifier. ``large_kernels``: the large
            depth-wise kernels of the backbone. ``dict(include=[...], exclude=[...])``: patterns on
            the names in the whole model.
        mode (str): ``dynamic``, ``fixed`` (the masks do not change) or ``off`` (dense training,
            even from sparse weights, as in the authors' code for fine-tuning).
        init (str, optional): First masks: ``random``, or ``from_weights``: the masks of the
            checkpoint that training starts from, recovered from its zeros if it has none. Default
            for ``fixed``: ``from_weights``. Default for ``dynamic``: ``from_weights`` if the
            checkpoint has masks, otherwise ``random``.
        structure (str or dict): Weights that are masked together: ``unstructured``, ``neuron``
            (hidden units of the blocks), ``tap`` (positions of the large kernels for 8 channels),
            ``2:4`` (linear layers), or a structure for each kind of layer, such as
            ``dict(linear='neuron', large_kernels='tap', others='dense')``; see
            :class:`mmslak.sparsity.DynamicSparsity`.
        seed (int): Seed of random masks and random growth.
        verify_every (int): With several processes, masks and learning rates are compared between
            the ranks after every ``verify_every`` updates of the masks, by a hash of 8 bytes. A
            difference stops the training and names the ranks.

    Raises:
        ValueError: For settings that are not allowed, before training starts.
    """

    # After weights are averaged, before checkpoints are written.
    priority = 'LOW'

    def __init__(
        self,
        sparsity: float = 0.4,
        allocation: str | dict = 'snip',
        update: dict | None = None,
        targets: str | dict = 'all',
        mode: str = 'dynamic',
        init: str | None = None,
        structure: str | dict = 'unstructured',
        seed: int = 0,
        verify_every: int = 1,
    ):
        if mode not in MODES:
            raise ValueError(f'mode must be one of {", ".join(map(repr, MODES))}, got {mode!r}')
        if init not in (None, 'random', 'from_weights'):
            raise ValueError(f"init must be 'random', 'from_weights' or None, got {init!r}")
        check_structure(structure)
        self.sparsity, self.allocation, self.targets = sparsity, allocation, targets
        self.update = dict(update or {})
        self.mode, self.init, self.structure, self.seed = mode, init, structure, seed
        self.verify_every = verify_every
        self.dynamics: DynamicSparsity | None = None
        self._saved: dict | None = None
        self._updated = False

    # -- checkpoints -----------------------------------------------------------------------

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep the saved state until training starts, when the model is on its device.

        In a training that goes back to a checkpoint the state is loaded at once.
        """
        self._saved = checkpoint.get(SPARSITY_STATE)
        if self.dynamics is not None:
            self.dynamics.load_state_dict(self._saved)
            # The weights are loaded after this.
            self._leave_out_neurons(runner, False)
            self._updated = True

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the state of :class:`mmslak.sparsity.DynamicSparsity` to a checkpoint."""
        if self.dynamics is not None:
            checkpoint[SPARSITY_STATE] = self.dynamics.state_dict()

    # -- training --------------------------------------------------------------------------

    def before_train(self, runner) -> None:
        """Create or restore the masks, and attach them to the optimiser."""
        if self.mode == 'off':
            return
        optim_wrapper = runner.optim_wrapper
        if not isinstance(optim_wrapper, OptimWrapper):
            raise ValueError(
                'optim_wrapper must be a single OptimWrapper for DynamicSparsityHook, got '
                f'{type(optim_wrapper).__name__}'
            )
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parameters = select_model_targets(model, self.targets)
        if runner._resume and runner._has_loaded:
            self.dynamics = self._resumed(runner, model, parameters)
        else:
            self.dynamics = self._started(runner, model, parameters)
        if self.dynamics is None:
            return
        self.dynamics.attach(
            optim_wrapper.optimizer, on_update=lambda update: self._on_update(runner, update)
        )
        self._mask_before_clipping(optim_wrapper)
        self._mask_average(runner)
        self._leave_out_neurons(runner)
        runner.logger.info('Sparsity at the start:\n' + density_table(self.dynamics, brief=True))
        self._write(runner, {f'density/{r["name"]}': r['density'] for r in self.dynamics.summary()})

    def _build(self, runner, model, parameters, **kwargs) -> DynamicSparsity:
        steps = math.ceil(runner.max_iters / runner.optim_wrapper._accumulative_counts)
        return DynamicSparsity(
            parameters,
            self.sparsity,
            self.allocation,
            self.update,
            mode=self.mode,
            structure=self.structure,
            model=model,
            seed=self.seed,
            total_steps=steps,
            verify_every=self.verify_every,
            **kwargs,
        )

    def _resumed(self, runner, model, parameters) -> DynamicSparsity | None:
        if self._saved is None:
            if self.mode == 'fixed' and self.init is None:
                # The training started from dense weights.
                return None
            raise ValueError(
                'the checkpoint to resume contains no masks; start from its weights instead, with '
                "load_from and DynamicSparsityHook(init='from_weights')"
            )
        dynamics = self._build(runner, model, parameters, init=None)
        dynamics.load_state_dict(self._saved)
        return dynamics

    def _started(self, runner, model, parameters) -> DynamicSparsity | None:
        log = runner.logger.info
        masks: dict | str = self._pretrained_masks(runner, model, parameters)
        if self.init == 'random' or (self.init is None and self.mode == 'dynamic' and not masks):
            if masks:
                log("Sparsity: init='random' replaces the masks in the checkpoint by random ones")
            scores = (
                self._snip_scores(runner, model, parameters) if self.allocation == 'snip' else None
            )
            return self._build(runner, model, parameters, init='random', scores=scores)
        if masks:
            log(f'Sparsity: the checkpoint has masks for {len(masks)} layers')
        else:
            recovered = SparseMasks.from_weights(parameters).masked
            masks = 'from_weights' if recovered else {}
            log(f'Sparsity: recovered the masks of {len(recovered)} layers from zero weights')
        if not masks and self.mode == 'fixed':
            log('Sparsity: the weights are dense and stay dense')
            return None
        if not masks:
            raise ValueError(
                "init='from_weights' needs sparse weights, but no weight is zero; load a sparse "
                "checkpoint, or use init='random'"
            )
        return self._build(runner, model, parameters, init=masks)

    def _pretrained_masks(self, runner, model, parameters) -> dict[str, Tensor]:
        """Return the masks in the checkpoint of ``load_from`` or of the backbone's ``init_cfg``."""
        saved = {} if self._saved is None else unpack_masks(self._saved)
        # A checkpoint of load_from has replaced the weights of init_cfg.
        if not runner._has_loaded:
            init_cfg = getattr(getattr(model, 'backbone', None), 'init_cfg', None) or []
            init_cfg = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
            for cfg in init_cfg:
                file = resolve_name(cfg.get('checkpoint', ''))
                if cfg.get('type') == PRETRAINED and Path(file).is_file():
                    saved = _backbone_masks(read_checkpoint(file), cfg.get('prefix'))
        masks = {
            name: mask
            for name, mask in saved.items()
            if name in parameters and mask.shape == parameters[name].shape
        }
        unused = [name for name in saved if name not in masks]
        if unused:
            known = dict(model.named_parameters())
            reasons = [f'{name} ({_unused(saved[name], known.get(name))})' for name in unused[:3]]
            more = f' and {len(unused) - 3} more' if len(unused) > 3 else ''
            runner.logger.warning(
                f'Sparsity: {len(unused)} of the {len(saved)} masks in the checkpoint are not '
                f'used: {", ".join(reasons)}{more}'
            )
        return masks

    def _snip_scores(self, runner, model, parameters) -> dict[str, Tensor]:
        loader, optim_wrapper = runner.train_dataloader, runner.optim_wrapper
        samples = batch_size(loader) * optim_wrapper._accumulative_counts
        runner.logger.info(f'Sparsity: computing SNIP scores on {samples} training samples')
        return score_training_batch(
            model, loader, parameters, self.seed, runner.rank, optim_wrapper
        )

    def _mask_before_clipping(self, optim_wrapper: OptimWrapper) -> None:
        """Mask gradients before gradient clipping, which MMEngine does inside its step."""
        clip = optim_wrapper._clip_grad

        def masked_clip():
            self.dynamics.before_step()
            clip()

        optim_wrapper._clip_grad = masked_clip

    def _mask_average(self, runner) -> None:
        """Mask averaged models, so that they are exactly as sparse as the model."""
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                self.dynamics.apply_to(hook.ema_model.module)

    def _leave_out_neurons(self, runner, leave_out: bool = True) -> None:
        """Leave masked neurons out of the products of the training, which is then faster."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        backbone = getattr(model, 'backbone', None)
        if isinstance(backbone, SLaK) and check_structure(self.structure)['linear'] == 'neuron':
            backbone.leave_out_zero_units(leave_out)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Mask averaged models after an update, because they still contain the pruned weights."""
        if self._updated:
            self._mask_average(runner)
            self._leave_out_neurons(runner)
            self._updated = False

    def _on_update(self, runner, update: Update) -> None:
        self._updated = True
        self._write(
            runner,
            {
                'sparsity/rate': update.rate,
                'sparsity/moves': sum(update.moves.values()),
                'sparsity/density': update.density,
                'sparsity/explored': update.explored,
                **{f'moves/{name}': moves for name, moves in update.moves.items()},
            },
        )
        runner.logger.info(
            f'Sparsity: pruned and grew {sum(update.moves.values()):,} weights after step '
            f'{update.step:,} (rate {update.rate:.3f}); {update.explored:.1%} of all weights have '
            'been active so far'
        )

    @staticmethod
    def _write(runner, scalars: dict) -> None:
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)

    def after_train(self, runner) -> None:
        """Log the density of every layer."""
        if self.dynamics is not None:
            runner.logger.info('Sparsity at the end:\n' + density_table(self.dynamics))


def _backbone_masks(checkpoint: dict, prefix: str | None) -> dict[str, Tensor]:
    """Return the masks in a file, with the names of the backbone's weights as in a model."""
    if SPARSITY_STATE not in checkpoint:
        return {}
    masks = unpack_masks(checkpoint[SPARSITY_STATE])
    prefix = backbone_prefix(weights_of(checkpoint), prefix)
    return {
        'backbone.' + name.removeprefix(prefix) if name.startswith(prefix) else name: mask
        for name, mask in masks.items()
    }


def _unused(mask: Tensor, weight: Tensor | None) -> str:
    """Return why a mask of a checkpoint is not used."""
    if weight is None:
        return 'the model has no such weight'
    if mask.shape != weight.shape:
        return f'its shape is {tuple(mask.shape)}, that of the weight is {tuple(weight.shape)}'
    return 'targets does not select it, so that it is trained densely'


def density_table(dynamics: DynamicSparsity, brief: bool = False) -> str:
    """Format a table of densities with one row for each layer.

    Args:
        dynamics (DynamicSparsity): The sparse training.
        brief (bool): Show only the row of sums and the names of the dense layers.

    Returns:
        str: The table as plain text.
    """
    rows = dynamics.summary()
    table = Table('layer', box=SIMPLE)
    for column in ('shape', 'weights', 'active', 'density', 'ever active'):
        table.add_column(column, justify='right')
    for row in [] if brief else rows:
        table.add_row(
            row['name'],
            ' x '.join(map(str, row['shape'])),
            f'{row["weights"]:,}',
            f'{row["kept"]:,}',
            f'{row["density"]:.3f}',
            f'{row["explored"]:.3f}',
        )
    weights, kept = (sum(row[key] for row in rows) for key in ('weights', 'kept'))
    table.add_row(
        f'all {len(rows)}', '', f'{weights:,}', f'{kept:,}', f'{kept / weights:.4f}',
        f'{dynamics.explored:.3f}', style='bold',
    )  # fmt: skip
    dense = [row['name'] for row in rows if row['kept'] == row['weights']]
    return table_text(table) + (f'\n  dense layers: {", ".join(dense)}' if dense else '')
