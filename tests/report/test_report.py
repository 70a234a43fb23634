"""Reports of trainings: numbers that are known by hand, and a page that needs no other file."""

import json
import re
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.structures import InstanceData
from PIL import Image

from mmslak.checkpoints import SPARSITY_STATE
from mmslak.cli.run import run
from mmslak.report import page
from mmslak.report import report_command as command
from mmslak.report.quality import Quality, _detection, counted, matched
from mmslak.report.training import differences, flat, read_run
from mmslak.sparsity import DynamicSparsity, select_targets


def write_run(folder, losses=(2.0, 1.0), scores=(30.0, 50.0), **config):
    """Write what a training of 10 iterations per value leaves behind."""
    logs = folder / '20260101_000000'
    (logs / 'vis_data').mkdir(parents=True)
    lines = [
        dict(lr=0.1, loss=loss, time=0.5, data_time=0.1, iter=10 * i, step=10 * i)
        for i, loss in enumerate(losses, 1)
    ]
    lines += [dict(mIoU=v, data_time=0.1, time=1.0, step=10 * i) for i, v in enumerate(scores, 1)]
    lines += [{'density/backbone.a.weight': 0.6, 'sparsity/density': 0.6, 'step': 10}]
    (logs / 'vis_data/scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    Config(config or dict(train_cfg=dict(max_iters=20))).dump(logs / 'vis_data/config.py')
    (logs / 'a.log').write_text('System environment:\n    Python: 3.11.7 (main)\n    seed: 3\n')
    torch.save(dict(state_dict=dict(w=torch.ones(1000))), folder / 'best_mIoU_iter_20.pth')
    return folder


class Parser(HTMLParser):
    """Collects texts and links, and checks that elements are closed in their order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.links = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ('src', 'href')]
        if tag not in ('meta', 'img'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def report(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['report', *map(str, arguments)])
    command.main()


def test_report_of_two_runs(tmp_path, monkeypatch):
    first = write_run(tmp_path / 'first', train_cfg=dict(max_iters=20), load_from='<a>')
    second = write_run(tmp_path / 'second', scores=(70.0, 60.0), train_cfg=dict(max_iters=30))
    report(monkeypatch, first, second, '--out', tmp_path / 'out/report.html')
    parsed = Parser((tmp_path / 'out/report.html').read_text())
    text = ' '.join(parsed.texts)
    for wanted in (
        'best mIoU 50.00 (at 20) 70.00 (at 10)',
        'last mIoU 50.00 60.00',
        'iterations 20 20',
        'seconds per iteration 0.5 0.5',
        'weights, M 0.001 0.001',
        "load_from '<a>' -",
        'train_cfg.max_iters 20 30',
        'Python 3.11.7 3.11.7',
        'seed 3 3',
    ):
        assert wanted in re.sub(r'\s+', ' ', text), wanted
    # Everything is inside the file.
    assert len(parsed.links) == 3
    assert all(link.startswith('data:image/') for link in parsed.links)


def test_settings_that_differ_from_the_config_of_the_package(tmp_path, monkeypatch):
    pytest.importorskip('mmseg')
    name = 'upernet_slak_nano_camvid'
    folder = write_run(tmp_path / 'run')
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    cfg.merge_from_dict({'optim_wrapper.optimizer.lr': 0.123})
    cfg.dump(folder / '20260101_000000/vis_data/config.py')
    cfg.dump(folder / f'{name}.py')
    report(monkeypatch, folder)
    text = re.sub(r'\s+', ' ', ' '.join(Parser((folder / 'report.html').read_text()).texts))
    assert f'mmslak::{name} this run' in text
    assert 'optim_wrapper.optimizer.lr 0.002 0.123' in text


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['a', 'b', 'c'], 'at most two'),
        (['a', '--images', -1], '--images'),
        (['a', '--out', 'report.pdf'], r'.html'),
        (['nowhere'], 'contains no run'),
    ],
)
def test_bad_input(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        report(monkeypatch, *arguments)
    error = capsys.readouterr().err
    assert message in error
    assert 'Traceback' not in error


def test_a_run_that_was_moved_or_has_no_best_checkpoint(tmp_path):
    folder = write_run(tmp_path / 'run')
    (folder / 'best_mIoU_iter_20.pth').rename(folder / 'iter_20.pth')
    assert read_run(folder).checkpoint == folder / 'iter_20.pth'
    (folder / 'last_checkpoint').write_text('/somewhere/else/iter_20.pth')
    assert read_run(folder).checkpoint == folder / 'iter_20.pth'
    assert read_run(folder).seconds == pytest.approx(20 * 0.5)
    (folder / 'iter_20.pth').unlink()
    (folder / 'last_checkpoint').unlink()
    assert read_run(folder).checkpoint is None


def test_weights_of_a_sparse_checkpoint(tmp_path):
    layer = torch.nn.Sequential(torch.nn.Conv2d(2, 5, 3), torch.nn.BatchNorm2d(5))
    mask = torch.rand(5, 2, 3, 3) < 0.5
    sparsity = DynamicSparsity(select_targets(layer), init={'0.weight': mask}, mode='fixed')
    folder = write_run(tmp_path / 'run')
    stored = {'state_dict': layer.state_dict(), SPARSITY_STATE: sparsity.state_dict()}
    torch.save(stored, folder / 'best_mIoU_iter_20.pth')
    # 90 weights and 5 biases of the convolution, and 10 parameters of the norm.
    active = 15 + int(mask.sum())
    assert read_run(folder).weights() == dict(stored=105, active=active)


def test_a_checkpoint_with_other_objects_is_refused(tmp_path, monkeypatch, capsys):
    folder = write_run(tmp_path / 'run')
    torch.save(dict(state_dict=dict(x=Parser)), folder / 'best_mIoU_iter_20.pth')
    with pytest.raises(SystemExit):
        report(monkeypatch, folder)
    assert 'contains objects of type' in capsys.readouterr().err
    assert not (folder / 'report.html').exists()


def test_only_the_best_and_worst_images_are_kept():
    scores = np.random.default_rng(0).permutation(50) / 50
    quality = Quality(['a'], np.zeros((1, 1), np.int64), '')
    for score in [*scores, float('nan')]:
        quality.add(np.ones((1, 1), np.int64), score, str(score), [])
    assert quality.count == 51 and quality.confusion.item() == 51
    kept = sorted(scores)
    assert [item[0] for item in quality.images] == [*kept[:4], *kept[-4:]]


def test_flat_settings():
    nested = dict(a=dict(b=1, c=[dict(d=2), dict(d=3)]), e=[1, 2], f={})
    assert flat(nested) == {'a.b': '1', 'a.c.0.d': '2', 'a.c.1.d': '3', 'e': '[1, 2]', 'f': '{}'}
    first = Config(dict(model=dict(a=1, b=2), my_variable=1))
    second = Config(dict(model=dict(a=1, c=3), my_variable=2))
    assert differences(first, second) == [('model.b', '2', '-'), ('model.c', '-', '3')]


@given(st.integers(1, 5), st.data())
def test_confusion_counts_each_pair(classes, data):
    labels = st.lists(st.integers(0, classes), min_size=1, max_size=30)
    truth = data.draw(labels)
    found = data.draw(st.lists(st.integers(0, classes), min_size=len(truth), max_size=len(truth)))
    matrix = counted(np.array(truth), np.array(found), classes)
    for i in range(classes):
        for j in range(classes):
            pairs = [pair for pair in zip(truth, found, strict=True) if pair == (i, j)]
            assert matrix[i, j] == len(pairs)


def test_scores_of_classes():
    # Class a: 3 of 4 are found, and 3 of 5 that are called a are right.
    quality = Quality(['a', 'b', 'absent'], np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]), '')
    (name, values), _ = quality.per_class()
    assert name == 'a'
    assert values == pytest.approx(dict(recall=75, precision=60, IoU=50))


def test_boxes_are_matched_by_score_once():
    wanted = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    found = np.array([[0.0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 24], [50, 50, 60, 60]])
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    # The first box takes the object; the third overlaps too little.
    assert matched(wanted, found, scores) == {0: 0}
    assert matched(np.zeros((0, 4)), found, scores) == {}


def test_confusion_of_detections():
    truth = dict(gt_bboxes=np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]]),
                 gt_bboxes_labels=np.array([0, 1]))  # fmt: skip
    instances = InstanceData(
        bboxes=torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 50], [20, 20, 30, 30]]),
        labels=torch.tensor([1, 1, 1]),
        scores=torch.tensor([0.9, 0.8, 0.2]),
    )
    meta = dict(classes=['a', 'b'])
    confusion, score = _detection(truth, SimpleNamespace(pred_instances=instances), meta)
    # The first object has the wrong class, the second is missed (low score), one box is too many.
    assert confusion.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert score == 0


def test_pictures_are_scaled():
    image = Image.new('RGB', (2000, 1000), (10, 20, 30))
    text = page.pictures([(0.5, '<a>.png', [image] * 3)])
    assert '&lt;a&gt;.png: 0.500' in text
    assert len(text) < 60_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ('toolbox', 'config', 'folder'),
    [
        ('mmseg', 'upernet_slak_nano_ade20k', 'ADEChallengeData2016'),
        ('mmdet', 'faster_rcnn_slak_nano_voc', 'VOCdevkit'),
        ('mmpretrain', 'slak_nano_in1k', 'imagenet'),
    ],
)
def test_images_of_a_training(toolbox, config, folder, sample_data, tmp_path, monkeypatch):
    pytest.importorskip(toolbox)
    options = [
        f'data_root={sample_data(20, 96) / folder}', 'train_dataloader.batch_size=2',
        'default_hooks.checkpoint.interval=1', 'default_hooks.logger.interval=1',
        *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
        *(f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val', 'test')),
    ]  # fmt: skip
    counts = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2']
    if toolbox != 'mmseg':
        counts = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1',
                  'train_dataloader.num_batch_per_epoch=2']  # fmt: skip
    work_dir = tmp_path / 'run'
    file = str(ROOT / f'configs/sample/{config}.py')
    run('train', [file, '--work-dir', str(work_dir), '--cfg-options', *options, *counts])
    report(monkeypatch, work_dir, '--images', 2, '--device', 'cpu')
    text = ' '.join(Parser((work_dir / 'report.html').read_text()).texts)
    for heading in ('Summary', 'Curves', 'Confusion', 'Worst images', 'Best images'):
        assert heading in text
