"""The picture sheet of a dataset shows its labels, and bad data is named before."""

import sys

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from mmslak.analysis.drawing import palette_of
from mmslak.cli import browse
from mmslak.cli.config import load_config

SAMPLE = ROOT / 'configs/sample'


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['browse', *map(str, arguments)])
    browse.main()


def colours(picture):
    return {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3)}


@pytest.mark.parametrize(
    ('toolbox', 'config', 'folder'),
    [
        ('mmseg', 'upernet_slak_nano_ade20k', 'ADEChallengeData2016'),
        ('mmdet', 'cascade_mask_rcnn_slak_nano_coco', 'coco'),
        ('mmdet', 'faster_rcnn_slak_nano_voc', 'VOCdevkit'),
        ('mmpretrain', 'slak_nano_in1k', 'imagenet'),
    ],
)
def test_sheet_of_a_dataset(toolbox, config, folder, sample_data, tmp_path, monkeypatch, capsys):
    pytest.importorskip(toolbox)
    out, root = tmp_path / 'sheet.png', sample_data(20, 96) / folder
    file = SAMPLE / f'{config}.py'
    options = ['--cfg-options', f'data_root={root}']
    run(monkeypatch, file, '--num', 4, '--out', out, *options)
    text = capsys.readouterr().out
    dataset = browse.build_dataset(load_config(file, dict(data_root=str(root))), 'train')
    classes = dataset.metainfo['classes']
    assert f'train: {len(dataset)} images, {len(classes)} classes' in text
    # The legend and the names of classes have the colours of the palette, unmixed.
    shown = colours(Image.open(out))
    assert sum(colour in shown for colour in palette_of(dataset.metainfo)) >= 2


def test_colours_follow_the_label_map(tmp_path):
    pytest.importorskip('mmseg')
    from mmseg.datasets import BaseSegDataset

    # The left half is class 0, the right half class 1, and the last row is not labelled.
    labels = np.zeros((400, 400), np.uint8)
    labels[:, 200:] = 1
    labels[-40:] = 255
    for name, array in dict(images=np.full((400, 400, 3), 100, np.uint8), labels=labels).items():
        (tmp_path / name).mkdir()
        Image.fromarray(array).save(tmp_path / name / 'a.png')
    dataset = BaseSegDataset(
        data_prefix=dict(img_path=str(tmp_path / 'images'), seg_map_path=str(tmp_path / 'labels')),
        img_suffix='.png',
        metainfo=dict(classes=('a', 'b', 'c'), palette=[[255, 0, 0], [0, 0, 255], [0, 255, 0]]),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')],
    )
    browse.draw_samples(dataset, 8, tmp_path / 'sheet.png')
    sheet = np.asarray(Image.open(tmp_path / 'sheet.png'))
    cell = 288
    left = sheet[24 + 100, 8 + cell + 8 + 60]
    right = sheet[24 + 100, 8 + cell + 8 + 220]
    below = sheet[24 + 280, 8 + cell + 8 + 60]
    assert left[0] > 150 > left[2]
    assert right[2] > 150 > right[0]
    assert below.tolist() == [100, 100, 100]
    # The legend has only the classes that are there.
    assert (0, 255, 0) not in colours(sheet)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--num', 0], '--num must be at least 1'),
        (['--out', 'sheet.jpg'], r'--out must end with .png'),
        (['--cfg-options', 'data_root=/nowhere'], '/nowhere'),
        (['--split', 'val', '--cfg-options', 'val_dataloader=None'], 'val_dataloader'),
    ],
)
def test_bad_input(arguments, message, monkeypatch, capsys, tmp_path):
    pytest.importorskip('mmseg')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, SAMPLE / 'upernet_slak_nano_ade20k.py', *arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert 'Traceback' not in error
    assert not list(tmp_path.iterdir())
