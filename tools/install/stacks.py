"""The stacks: sets of toolboxes that have the same import names, each with an environment."""

import collections
import re

from . import ROOT

#: Name -> directory of the requirement files, relative to the checkout. The first is the default.
FOLDERS = collections.OrderedDict([('openmmlab', 'requirements'), ('onedl', 'requirements/onedl')])
NAMES = list(FOLDERS)


class Stack(collections.namedtuple('Stack', 'name root venv')):
    """Toolboxes to install, and the environment they are installed into.

    Attributes:
        name (str): one of ``NAMES``.
        root (Path): the checkout.
        venv (Path): the environment.
    """

    @property
    def is_default(self):
        """Whether this is the stack that ``setup.py`` asks for."""
        return self.name == NAMES[0]

    @property
    def folder(self):
        """The directory of the requirement files."""
        return self.root / FOLDERS[self.name]

    @property
    def lock_file(self):
        """The file that pins everything except mmcv."""
        return self.folder / 'lock.txt'

    @property
    def mmcv_file(self):
        """The file that pins mmcv, or the package that takes its place."""
        return self.folder / 'mmcv.txt'

    @property
    def mmcv_archive(self):
        """The start of the names of mmcv's archives, for example ``'mmcv-2.1.0'``."""
        text = self.mmcv_file.read_text(encoding='utf-8')
        name, version = re.search(r'^([\w-]+)==(\S+)', text, re.MULTILINE).groups()
        return '%s-%s' % (name.replace('-', '_'), version)

    def pinned_version(self, name):
        """Return the version that the lock file pins ``name`` to."""
        text = self.lock_file.read_text(encoding='utf-8')
        return re.search(r'^%s==([^\s;]+)' % re.escape(name), text, re.MULTILINE).group(1)

    @property
    def pinned_names(self):
        """The names of the packages in the lock file, sorted."""
        text = self.lock_file.read_text(encoding='utf-8')
        return sorted(set(re.findall(r'^([^\s#=]+)==', text, re.MULTILINE)))

    @property
    def built_names(self):
        """The names of the packages in the lock file that come as source only, sorted."""
        file = self.folder / 'from-source.txt'
        lines = file.read_text(encoding='utf-8').splitlines() if file.is_file() else []
        return sorted(line for line in lines if line and not line.startswith('#'))

    @property
    def build_options(self):
        """The options of ``uv pip sync`` that allow builds of ``built_names`` and no others."""
        if not self.built_names:
            return ['--only-binary', ':all:']
        options = ['--build-constraints', self.lock_file]
        for name in self.pinned_names:
            options += ['--only-binary', name] * (name not in self.built_names)
        return options


def get(name=NAMES[0], root=ROOT, venv=None):
    """Return the stack ``name`` with its environment.

    Args:
        name (str): one of ``NAMES``.
        root (Path): the checkout.
        venv (str): the name of the environment, by default ``.venv`` or
            ``.venv-STACK``.
    """
    default = '.venv' if name == NAMES[0] else '.venv-' + name
    return Stack(name, root, root / (venv or default))
