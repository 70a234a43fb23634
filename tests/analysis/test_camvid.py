"""The tools of the page on CamVid."""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmslak.cli.structure_grid import STRUCTURES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_networks_of_the_study_have_equal_numbers_of_parameters(load_tool, in_root):
    pytest.importorskip('mmseg')
    pytest.importorskip('mmpretrain')
    tool = load_tool('analysis/camvid_study.py')
    args = argparse.Namespace(seeds=3, iters=40, data=Path('data/camvid'), structures=False)
    trainings = tool.plan(args)
    assert len({(one.name, one.seed) for one in trainings}) == len(trainings) == 3 * 19
    # Every training of a seed has the same schedule, and all of a network have the same widths.
    assert all('train_cfg.max_iters=40' in one.options for one in trainings)
    # The peer, the narrowest and the widest network, and the one that the others are fitted to.
    names = ('convnext', '51-naive-dense', '7-naive-sparse', '51-decomposed-dense')
    counts = [tool.parameters_of(one) for one in trainings[:19] if one.name[7:] in names]
    assert len(counts) == len(names)
    assert max(counts) / min(counts) < 1.05
    # Sparse networks are wider than dense ones.
    for kernel in (7, 31, 51):
        for mode in ('naive', 'reparam', 'decomposed'):
            dense, sparse = (tool.width_factor(kernel, mode, d) for d in ('dense', 'sparse'))
            assert sparse > dense


def test_structures_have_equal_numbers_of_active_weights(load_tool, in_root):
    pytest.importorskip('mmseg')
    tool = load_tool('analysis/camvid_study.py')
    args = argparse.Namespace(seeds=3, iters=40, data=Path('data/camvid'), structures=True)
    trainings = tool.plan(args)
    assert len({(one.name, one.seed) for one in trainings}) == len(trainings) == 3 * 8
    hooks = {}
    for one in trainings[:8]:
        hook = tool.config_of(one).default_hooks.sparsity
        hooks[one.name] = hook['structure'], hook['update']['moments']
        # All other options are the same.
        assert one.options[:-2] == trainings[0].options[:-2]
    assert hooks['camvid-2of4-layer'] == ('2:4', 'layer')
    assert hooks['camvid-unstructured-zero'] == ('unstructured', 'zero')
    counts = [tool.active_weights(tool.config_of(one)) for one in trainings[:8:2]]
    assert max(counts) / min(counts) < 1.01
    # As many active parameters as the dense decomposed network of the other study.
    factor = tool.width_factor(51, 'decomposed', 'half')
    sizes = [
        tool.active_parameters(51, 'decomposed', *one) for one in (('dense', 1.0), ('half', factor))
    ]
    assert max(sizes) / min(sizes) < 1.05


def test_class_scores_of_a_case_by_hand(load_tool, tmp_path):
    tool = load_tool('analysis/camvid_result.py')
    truth, predictions = tmp_path / 'truth', tmp_path / 'predictions'
    labels = np.array([[0, 0, 1, 1], [2, 2, 255, 255]], np.uint8)
    guesses = np.array([[0, 1, 1, 1], [2, 0, 2, 0]], np.uint8)
    for folder, values in ((truth, labels), (predictions, guesses)):
        folder.mkdir()
        Image.fromarray(values).save(folder / 'a.png')
    dataset = dict(data_root=str(tmp_path), data_prefix=dict(seg_map_path='truth'))
    cfg = Config(
        dict(metainfo=dict(classes=['x', 'y', 'z']), test_dataloader=dict(dataset=dataset))
    )
    # x: 1 of 3 pixels, y: 2 of 3, z: 1 of 2; unlabelled pixels do not count.
    assert tool.class_scores(predictions, cfg) == dict(x=33.33, y=66.67, z=50.0)


def test_best_checkpoint_is_required(load_tool, tmp_path):
    tool = load_tool('analysis/camvid_result.py')
    with pytest.raises(FileNotFoundError, match=r'no best_mIoU_iter_\*\.pth: train the config'):
        tool.best_checkpoint(tmp_path)


@pytest.mark.parametrize('count', [1, 200, 201, 999])
def test_curves_are_thinned_evenly(load_tool, count):
    tool = load_tool('analysis/camvid_result.py')
    series = [(i, i / 7) for i in range(count)]
    points = tool.thinned(series)
    assert points[0] == [0, 0.0] and len(points) <= 200
    assert len({b[0] - a[0] for a, b in itertools.pairwise(points)}) <= 1


def test_report_fills_the_page(load_tool, tmp_path, monkeypatch, capsys):
    tool = load_tool('analysis/camvid_report.py')
    names = ('comparison', 'classes', 'study', 'differences', 'peer', 'erf')
    page = tmp_path / 'page.md'
    page.write_text('first\n' + ''.join(f'<!-- {n} -->\nold\n<!-- end of {n} -->\n' for n in names))
    results = tmp_path / 'results'
    results.mkdir()
    published = [
        dict(name=name, parameters=1.5, miou=miou, accuracy=None, pretrained='no', source='enet')
        for name, miou in (('B', 60.0), ('A', 50.0))
    ]
    ours = dict(
        test=dict(mIoU=55.0, accuracy=80.0, classes=dict(sky=90.0, car=20.0)),
        costs=dict(params_dense=1_000_000, params_sparse=600_000),
        loss=[[1, 2.0], [2, 1.0]],
        validation=[[2, 50.0]],
    )
    scores = {
        'camvid-51-decomposed-dense': {'0': 30.0, '1': 32.0},
        'camvid-7-decomposed-dense': {'0': 29.0, '1': 33.0},
        'camvid-convnext': {'0': 28.0},
    }
    parameters = dict.fromkeys(
        ['camvid-convnext', 'camvid-7-naive-dense', 'camvid-51-decomposed-sparse'], 0.45
    )
    for name, value in (
        ('published', published),
        ('upernet_slak_nano_gpu_camvid', ours),
        ('scores', scores),
        ('parameters', parameters),
        ('erf_ratios', dict(net=dict(raw=[0.1, 0.2, 0.3, 0.9]))),
    ):
        (results / f'{name}.json').write_text(json.dumps(value))
    structures = {
        'camvid-unstructured-zero': {'0': 30.0, '1': 32.0},
        'camvid-neuron-zero': {'0': 29.0, '1': 33.0},
    }
    grid = STRUCTURES
    names = [grid.name('camvid', s, m) for s in grid.structures for m in grid.moments]
    saved = dict(scores=structures, active=dict.fromkeys(names, 1234), iters=5)
    (results / 'structures.json').write_text(json.dumps(saved))
    sparsity_page = tmp_path / 'sparsity.md'
    tables = ('structures', 'structure differences')
    sparsity_page.write_text(''.join(f'<!-- {n} -->\n<!-- end of {n} -->\n' for n in tables))
    arguments = ['camvid_report.py', '--page', str(page), '--results', str(results)]
    arguments += ['--sparsity-page', str(sparsity_page)]
    monkeypatch.setattr('sys.argv', arguments)
    tool.main()
    text = page.read_text()
    assert text.startswith('first\n') and 'old' not in text
    rows = [line.split(' | ')[0] for line in text.splitlines()]
    assert rows.index('| A') < rows.index('| **UperNet + SLaK-nano (ours)**') < rows.index('| B')
    assert '0.60 active of 1.00 | 55.0 | 80.0' in text
    assert '31.00 ± 1.41 (2)' in text
    # By hand: 30 - 29 and 32 - 33.
    assert '| decomposed: 51 x 51 over 7 x 7 | +0.00 ± 1.00 (1 of 2) |' in text
    assert "MMPretrain's ConvNeXt | 0.450 | 28.00 (1)" in text
    text_on_sparsity = sparsity_page.read_text()
    assert '| unstructured | 1,234 | 31.00 ± 1.41 (2) | - |' in text_on_sparsity
    assert '| neuron over unstructured | +0.00 ± 1.00 (1 of 2) |' in text_on_sparsity
    assert '| net | 10.0% | 20.0% | 30.0% | 90.0% |' in text
    assert all((results / f'{name}.png').is_file() for name in ('curves', 'kernel_study'))
    # A second run changes nothing.
    tool.main()
    assert page.read_text() == text
    page.write_text('no comments')
    with pytest.raises(SystemExit):
        tool.main()
    assert page.read_text() == 'no comments'


def test_published_numbers_have_a_source(load_tool, in_root):
    tool = load_tool('analysis/camvid_report.py')
    published = json.loads(Path('docs/camvid/published.json').read_text())
    assert {row['source'] for row in published} == set(tool.SOURCES)
    assert len({row['name'] for row in published}) == len(published)
