"""The toolboxes of OpenMMLab that a task may need."""

import importlib.metadata
import importlib.util

from mmengine.config.utils import MODULE2PACKAGE

#: Toolbox (import name and default scope) -> extra of this package that installs it.
EXTRAS = {'mmseg': 'seg', 'mmdet': 'det', 'mmpretrain': 'pretrain'}


class ToolboxMissingError(ImportError):
    """A toolbox that is needed is not installed.

    Args:
        toolbox (str): Its import name, a key of :data:`EXTRAS`.
        user (str): What needs it.
    """

    def __init__(self, toolbox: str, user: str = 'this config'):
        super().__init__(
            f'{user} needs {toolbox}, which is not installed; install it with: '
            f"pip install 'mmslak[{EXTRAS[toolbox]}]'"
        )


def find_forks() -> None:
    """Let MMEngine find toolboxes whose package has another name than OpenMMLab's.

    For a base such as ``mmseg::...`` MMEngine looks up the package ``mmsegmentation``, and installs
    it with pip if it is missing. A fork has the same import name in a package of another name. It
    is found by its import name.
    """
    for toolbox in EXTRAS:
        try:
            importlib.metadata.distribution(MODULE2PACKAGE[toolbox])
        except importlib.metadata.PackageNotFoundError:
            if importlib.util.find_spec(toolbox) is not None:
                MODULE2PACKAGE[toolbox] = toolbox
