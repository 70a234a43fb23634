"""Fixtures that tests of several directories share."""

import functools
import importlib.util
import os
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def load_tool():
    """Return a function that imports a script of ``tools/``, which belongs to no package."""
    loaded = []

    def load(name):
        path = Path(__file__).parents[1] / 'tools' / name
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        # Dataclasses look up their module.
        sys.modules[path.stem] = module
        loaded.append(path.stem)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


@pytest.fixture(scope='session')
def sample_data(tmp_path_factory):
    """Return a function that writes sample data, once for each number and size of images.

    Tests must not change the files, because several tests read them.
    """
    from mmslak.sample_data import write_sample_data

    @functools.cache
    def write(images, size):
        root = tmp_path_factory.mktemp('data') / 'sample'
        write_sample_data(root, images=images, size=size)
        return root

    return write


@pytest.fixture(scope='session')
def real_data():
    """Return the directory of real images, or skip the test."""
    root = os.environ.get('MMSLAK_REAL_DATA')
    if not root:
        pytest.skip('MMSLAK_REAL_DATA is not set')
    return Path(root)
