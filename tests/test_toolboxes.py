"""Which package of a toolbox MMEngine looks up."""

import sys

from mmengine.config.utils import MODULE2PACKAGE

from mmslak.toolboxes import EXTRAS, find_forks


def test_packages_of_forks_are_found_by_their_import_names(tmp_path, monkeypatch):
    for module, package in [('mmseg', 'onedl_mmsegmentation-1.4.2'), ('mmdet', 'mmdet-3.3.0')]:
        (tmp_path / module).mkdir()
        (tmp_path / module / '__init__.py').touch()
        (tmp_path / f'{package}.dist-info').mkdir()
        (tmp_path / f'{package}.dist-info' / 'METADATA').touch()
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    openmmlab = {'mmseg': 'mmsegmentation', 'mmdet': 'mmdet', 'mmpretrain': 'not-installed'}
    for module in EXTRAS:
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setitem(MODULE2PACKAGE, module, openmmlab[module])
    find_forks()
    found = {module: MODULE2PACKAGE[module] for module in EXTRAS}
    assert found == {**openmmlab, 'mmseg': 'mmseg'}
