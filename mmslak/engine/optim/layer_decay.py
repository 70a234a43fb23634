"""Layer-wise and stage-wise learning-rate decay."""

import inspect
from collections import defaultdict

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from rich.box import SIMPLE
from rich.table import Table
from torch import nn

from ...console import table_text
from ...models.layer_depth import DECAY_TYPES, layer_depth
from ...registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LearningRateDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Layer-wise or stage-wise learning-rate decay for the models of all three toolboxes.

    The method ``get_layer_depth`` of the backbone returns the group of each parameter, as SLaK and
    most backbones of MMPretrain do. The learning rate of a group is
    ``lr * decay_rate ** (num_groups - 1 - group)``. Biases, norms and all other vectors have no
    weight decay, as in ConvNeXt's recipe. With a rate of 1 any model can be trained; its parameters
    then form two groups, where MMEngine would make a group of each. An optimiser step of many small
    groups takes several times as long.

    ``paramwise_cfg`` has the keys ``decay_rate`` (float in (0, 1]), ``decay_type`` (``layer_wise``,
    the default, or ``stage_wise``) and ``num_layers`` (int, optional). The last one is for configs
    of other projects; it must be the number of groups of the backbone minus 2.

    Raises:
        ValueError: For a setting that is not allowed, or a backbone without
            ``get_layer_depth``.
    """

    def add_params(self, params: list, module: nn.Module, **kwargs) -> None:
        """Append the parameter groups of ``module`` to ``params``, and log them."""
        decay_rate, decay_type, num_layers = self._settings()
        if decay_rate < 1 or num_layers is not None:
            depth_of = _depth_function(module, decay_type)
        else:

            def depth_of(name: str) -> tuple[int, int]:
                return 0, 1

        groups: dict[tuple[int, bool], dict] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            group, count = depth_of(name)
            if num_layers is not None and num_layers + 2 != count:
                raise ValueError(
                    f'optim_wrapper.paramwise_cfg.num_layers must be {count - 2} for this '
                    f'backbone, got {num_layers}; this key is optional'
                )
            decayed = parameter.ndim > 1 and not name.endswith('.bias')
            scale = decay_rate ** (count - 1 - group)
            entry = groups.setdefault(
                (group, decayed),
                dict(
                    params=[],
                    param_names=[],
                    group_name=f'layer_{group}_{"decay" if decayed else "no_decay"}',
                    lr=self.base_lr * scale,
                    lr_scale=scale,
                    weight_decay=(self.base_wd or 0.0) if decayed else 0.0,
                ),
            )
            entry['params'].append(parameter)
            entry['param_names'].append(name)
        # The highest learning rate comes first, because loggers show that of the first group.
        ordered = [groups[key] for key in sorted(groups, reverse=True)]
        print_log(f'Learning rates, {decay_type}:\n{_table(ordered)}', logger='current')
        for entry in ordered:
            # Otherwise PyTorch would save param_names in every checkpoint.
            del entry['param_names']
        params.extend(ordered)

    def _settings(self) -> tuple[float, str, int | None]:
        cfg = dict(self.paramwise_cfg)
        decay_rate = cfg.pop('decay_rate', 1.0)
        decay_type = cfg.pop('decay_type', 'layer_wise')
        num_layers = cfg.pop('num_layers', None)
        where = 'optim_wrapper.paramwise_cfg'
        if cfg:
            raise ValueError(
                f'{where} must have no other keys than decay_rate, decay_type and num_layers, got '
                f'{", ".join(cfg)}'
            )
        if not isinstance(decay_rate, (int, float)) or not 0 < decay_rate <= 1:
            raise ValueError(f'{where}.decay_rate must be in (0, 1], got {decay_rate!r}')
        if decay_type not in DECAY_TYPES:
            allowed = ', '.join(map(repr, DECAY_TYPES))
            raise ValueError(f'{where}.decay_type must be one of {allowed}, got {decay_type!r}')
        return decay_rate, decay_type, num_layers


def _depth_function(model: nn.Module, decay_type: str):
    """Return a function from a parameter's name to its group and the number of groups."""
    backbone, prefix = (model.backbone, 'backbone.') if hasattr(model, 'backbone') else (model, '')
    if not hasattr(backbone, 'get_layer_depth'):
        raise ValueError(
            f'LearningRateDecayOptimWrapperConstructor needs a backbone with get_layer_depth, but '
            f'{type(backbone).__name__} has none; remove optim_wrapper.constructor'
        )
    if 'decay_type' in inspect.signature(backbone.get_layer_depth).parameters:
        return lambda name: backbone.get_layer_depth(name, prefix, decay_type)
    if decay_type == 'layer_wise':
        return lambda name: backbone.get_layer_depth(name, prefix)
    if not (hasattr(backbone, 'downsample_layers') and hasattr(backbone, 'stages')):
        raise ValueError(
            "optim_wrapper.paramwise_cfg.decay_type must be 'layer_wise' for "
            f'{type(backbone).__name__}, which has no stages, got {decay_type!r}'
        )
    # MMPretrain's ConvNeXt supports only layer_wise, but its stages have the same names as SLaK's.
    groups = backbone.get_layer_depth(prefix, prefix)[1]
    return lambda name: layer_depth(name, prefix, groups - 2, decay_type)


def _table(groups: list[dict]) -> str:
    table = Table('group', box=SIMPLE)
    for column in ('lr', 'lr scale', 'decayed', 'not decayed'):
        table.add_column(column, justify='right')
    table.add_column('parameters of')
    rows = defaultdict(list)
    for group in groups:
        rows[group['group_name'].split('_')[1]].append(group)
    for group, members in rows.items():
        count = {
            m['group_name'].endswith('_no_decay'): sum(p.numel() for p in m['params'])
            for m in members
        }
        modules = sorted({_module_of(name) for m in members for name in m['param_names']})
        table.add_row(
            group,
            f'{members[0]["lr"]:.3g}',
            f'{members[0]["lr_scale"]:.4f}',
            f'{count.get(False, 0):,}',
            f'{count.get(True, 0):,}',
            ', '.join(modules),
        )
    return table_text(table)


def _module_of(name: str) -> str:
    """Return the stage, downsampling layer or head that a parameter belongs to."""
    parts = name.split('.')
    if parts[0] != 'backbone':
        return parts[0]
    return '.'.join(parts[1:3]) if parts[1] in ('stages', 'downsample_layers') else parts[1]
