"""Which compiled wheel is used again."""

from pathlib import Path

import pytest
from install import wheelhouse


def directory(**changes):
    arguments = dict(
        environ={'MMSLAK_WHEELHOUSE': '/wheels'},
        torch_version='2.11.0',
        python_tag='cp311',
        platform='linux_x86_64',
    )
    return wheelhouse.directory(**{**arguments, **changes})


def test_directories_differ():
    directories = [
        directory(),
        directory(torch_version='2.10.0'),
        directory(python_tag='cp312'),
        directory(platform='linux_aarch64'),
        directory(cuda_tag='cu130-sm90'),
    ]
    assert len(set(directories)) == len(directories)
    assert {each.parent for each in directories} == {Path('/wheels')}


def test_default_is_in_the_home_directory():
    assert Path.home() in directory(environ={}).parents


def test_no_wheel(tmp_path):
    assert wheelhouse.find_wheel(tmp_path / 'nowhere', 'mmcv-2.1.0') is None


def test_a_half_built_wheel_is_not_found(tmp_path):
    (tmp_path / '.build-x' / 'wheel').mkdir(parents=True)
    (tmp_path / '.build-x' / 'wheel' / 'mmcv-2.1.0-any.whl').touch()
    assert wheelhouse.find_wheel(tmp_path, 'mmcv-2.1.0') is None


@pytest.mark.parametrize('name', ['mmcv-2.2.0-any.whl', 'onedl_mmcv-2.1.0-any.whl'])
def test_another_version_or_package_is_not_found(tmp_path, name):
    (tmp_path / name).touch()
    assert wheelhouse.find_wheel(tmp_path, 'mmcv-2.1.0') is None


@pytest.mark.parametrize('suffix', ['', '-cu130-sm90'])
def test_a_wheel_for_any_device_needs_no_compiler(tmp_path, suffix):
    house = directory(environ={'MMSLAK_WHEELHOUSE': str(tmp_path)})
    assert not wheelhouse.has_wheel(house, 'mmcv-2.1.0')
    other = house.with_name(house.name + suffix)
    other.mkdir()
    (other / 'mmcv-2.1.0-any.whl').touch()
    assert wheelhouse.has_wheel(house, 'mmcv-2.1.0')
