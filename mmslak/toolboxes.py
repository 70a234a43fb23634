"""The toolboxes of OpenMMLab that a task may need."""

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
