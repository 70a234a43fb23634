"""What tests of several folders share."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def load_tool():
    """Give a function that imports a script of ``tools/``, which is in no package."""
    loaded = []

    def load(name):
        path = Path(__file__).parents[1] / 'tools' / name
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        # A dataclass looks its module up.
        sys.modules[path.stem] = module
        loaded.append(path.stem)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        sys.modules.pop(name, None)
