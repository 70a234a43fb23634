"""MMEngine's rules for each parameter, with few parameter groups and a short log."""

import logging
from contextlib import contextmanager

from mmengine.logging import MMLogger, print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from rich.box import SIMPLE
from rich.table import Table
from torch import nn

from ...console import table_text
from ...registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor, with one parameter group for each setting.

    ``paramwise_cfg`` has the keys of MMEngine's ``DefaultOptimWrapperConstructor``, and every
    parameter has the same learning rate and weight decay. MMEngine makes a group of each parameter
    and logs a line for it. An optimiser step of many small groups takes several times as long on a
    GPU. This constructor joins parameters with the same settings and logs a table of the groups.
    """

    def add_params(self, params: list, module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Append the parameter groups of ``module`` to ``params``, and log them."""
        with _without_parameter_lines():
            # It calls this method for each child of the module, with its name as the prefix.
            super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:
            return
        groups: dict[tuple, dict] = {}
        for single in params:
            settings = {key: value for key, value in single.items() if key != 'params'}
            group = groups.setdefault(tuple(sorted(settings.items())), dict(settings, params=[]))
            group['params'] += single['params']
        params[:] = groups.values()
        print_log(f'Parameter groups:\n{self._table(params)}', logger='current')

    def _table(self, groups: list[dict]) -> str:
        table = Table('group', box=SIMPLE)
        for column in ('lr', 'weight decay', 'tensors', 'parameters'):
            table.add_column(column, justify='right')
        for index, group in enumerate(groups):
            table.add_row(
                str(index),
                f'{group.get("lr", self.base_lr):.3g}',
                f'{group.get("weight_decay", self.base_wd or 0.0):.3g}',
                f'{len(group["params"]):,}',
                f'{sum(parameter.numel() for parameter in group["params"]):,}',
            )
        return table_text(table)


@contextmanager
def _without_parameter_lines():
    """Leave out MMEngine's lines about the settings of each parameter."""
    logger = MMLogger.get_current_instance()

    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith('paramwise_options')

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
