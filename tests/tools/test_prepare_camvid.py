"""Preparation of CamVid."""

import math

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from mmslak.cli.config import load_config

SPLITS = dict(train=3, val=2, test=1)


@pytest.fixture
def tool(load_tool):
    return load_tool('prepare_camvid.py')


def write_source(root, layout, labels=None):
    """Write small random images; every label map contains all labels from 0 to 11."""
    rng = np.random.default_rng(0)
    for split, count in SPLITS.items():
        images, maps = (root / part.format(split=split) for part in layout)
        images.mkdir(parents=True)
        maps.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8)).save(images / f'{i}.png')
            values = rng.permutation(24).reshape(4, 6) % 12 if labels is None else labels
            Image.fromarray(np.asarray(values, np.uint8)).save(maps / f'{i}.png')


def run(tool, monkeypatch, *arguments):
    monkeypatch.setattr('sys.argv', ['prepare_camvid.py', *map(str, arguments)])
    tool.main()


def test_both_layouts_become_the_same(tool, tmp_path, monkeypatch, capsys):
    for name, layout in zip('ab', tool.LAYOUTS, strict=True):
        write_source(tmp_path / name, layout)
        run(tool, monkeypatch, tmp_path / name, tmp_path / f'{name}-out')
    out = capsys.readouterr().out
    assert 'train: 3 images (the usual split has 367)' in out
    # Each label has 2 of the 22 labelled pixels of an image.
    assert out.count('9.09%') == 2 * 11
    files = {
        name: sorted(p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob('*.png'))
        for name in ('a-out', 'b-out')
    }
    assert files['a-out'] == files['b-out'] and len(files['a-out']) == 2 * 6
    for path in files['a-out']:
        first, second = (np.asarray(Image.open(tmp_path / n / path)) for n in files)
        assert (first == second).all()
        source = np.asarray(Image.open(tmp_path / 'b' / path))
        if path.parts[0] == 'images':
            assert (first == source).all()
        else:
            assert (first == np.where(source == 11, 255, source)).all()


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        (np.full((4, 6), 12), r'contains the label 12; allowed are 0 to 10'),
        (np.zeros((4, 5)), r'is 5 x 4, but its image is 6 x 4'),
        (np.zeros((4, 6, 3)), r'must have one channel with the number of the class, got RGB'),
    ],
)
def test_wrong_label_maps_are_named_and_nothing_is_written(
    tool, tmp_path, monkeypatch, capsys, labels, message
):
    write_source(tmp_path / 'source', tool.LAYOUTS[0], labels)
    with pytest.raises((SystemExit, ValueError), match=message):
        tool.prepare(tmp_path / 'source', tmp_path / 'target')
    assert not (tmp_path / 'target').exists()


def test_classes_and_weights_are_those_of_the_configs(tool):
    pytest.importorskip('mmseg')
    first, second = (
        load_config(ROOT / f'configs/upernet_slak_nano{part}_camvid.py')
        for part in ('', '_finetune')
    )
    assert tuple(first.metainfo.classes) == tool.CLASSES
    # Shares of the classes in the training images, in percent.
    percent = [17.54, 24.21, 1.02, 32.96, 4.67, 10.12, 1.22, 1.17, 6.11, 0.67, 0.30]
    shares = np.array(percent) / 100
    for cfg, offset in zip((first, second), tool.OFFSETS, strict=True):
        weights = tool.class_weights(shares, offset)
        assert weights == pytest.approx(cfg.class_weight, abs=0.03)
        assert (weights * shares).sum() == pytest.approx(1)
        # Unnormalised, by the formula in ENet's paper.
        assert weights[3] / weights[0] == pytest.approx(
            math.log(offset + 0.1754) / math.log(offset + 0.3296)
        )


def test_missing_files_are_named(tool, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match='train and trainannot or images/train and'):
        tool.find_pairs(tmp_path, 'train')
    write_source(tmp_path, tool.LAYOUTS[0])
    (tmp_path / 'valannot' / '1.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'1\.png has no label map .*valannot/1\.png'):
        tool.prepare(tmp_path, tmp_path / 'target')
    for path in (tmp_path / 'test').iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r'test contains no image \(\.jpg'):
        tool.find_pairs(tmp_path, 'test')
    assert not (tmp_path / 'target').exists()


def test_existing_target_is_kept(tool, tmp_path, monkeypatch, capsys):
    write_source(tmp_path / 'source', tool.LAYOUTS[0])
    (tmp_path / 'target').mkdir()
    (tmp_path / 'target' / 'mine.txt').write_text('x')
    with pytest.raises(SystemExit) as stopped:
        run(tool, monkeypatch, tmp_path / 'source', tmp_path / 'target')
    assert 'already exists; give another TARGET' in str(stopped.value) + capsys.readouterr().err
    assert [p.name for p in (tmp_path / 'target').iterdir()] == ['mine.txt']
