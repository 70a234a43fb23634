"""What the demos share."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmslak.cli import demo
from mmslak.console import table_text


def test_pictures_are_chosen_at_equal_distances():
    assert demo.choose_pictures(range(80)) == [0, 10, 20, 30, 40, 50, 60, 70]
    assert demo.choose_pictures(range(3)) == [0, 1, 2]


def test_trainings_and_tests_are_those_of_the_command_lines(monkeypatch):
    commands = []

    def run(task, arguments):
        commands.append([task, *arguments])
        return dict(best_ckpt='best.pth', mIoU=1.0)

    monkeypatch.setattr(demo, 'run', run)
    data, work_dir = Path('data'), Path('work')
    assert demo.train('a.py', data, work_dir) == 'best.pth'
    assert demo.test('a.py', 'best.pth', data, work_dir)['mIoU'] == 1.0
    demo.test('a.py', 'none', data, work_dir, Path('out'))
    options = ['--cfg-options', 'data_root=data']
    assert commands == [
        ['train', 'a.py', '--work-dir', 'work', *options],
        ['test', 'a.py', 'best.pth', '--work-dir', 'work', *options],
        ['test', 'a.py', 'none', '--work-dir', 'work', '--out', 'out', *options],
    ]


def test_numbers_are_aligned_on_the_right():
    table = demo.number_table('title', 'model', ['mIoU'], {'a': ['1.00'], 'b': ['81.83']})
    lines = table_text(table).splitlines()
    assert lines[-2].split() == ['a', '1.00'] and lines[-1].split() == ['b', '81.83']
    assert len(lines[-2]) == len(lines[-1])


def test_miou_of_the_most_frequent_class_by_hand(tmp_path, load_tool):
    pytest.importorskip('mmseg')
    labels = dict(training=[[1, 2, 2, 0]], validation=[[1, 2, 3, 0], [2, 2, 0, 0]])
    for split, rows in labels.items():
        (tmp_path / 'annotations' / split).mkdir(parents=True)
        path = tmp_path / 'annotations' / split / 'a.png'
        Image.fromarray(np.array(rows, np.uint8)).save(path)
    # Class 1 is label 2: 3 of 5 labelled pixels, and 0 for the two other classes that occur.
    found = load_tool('demo.py').commonest_class_miou(tmp_path, 4)
    assert found == (1, pytest.approx(100 * (3 / 5) / 3))
