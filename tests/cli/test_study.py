"""Studies of many trainings."""

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from mmslak.cli import study
from mmslak.cli.study import (
    Training,
    _digest,
    mean_and_spread,
    paired_differences,
    run_study,
    summarise,
    train,
)

ROOT = Path(__file__).parents[2]


def write_score(folder, value, name='mIoU'):
    path = Path(folder) / '20260101_000000' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    lines = [
        dict(lr=1.0, loss=2.0, step=1),
        {name: value / 2, 'data_time': 0.1, 'step': 1},
        {name: value, 'data_time': 0.1, 'step': 2},
    ]
    path.write_text('\n'.join(map(json.dumps, lines)) + '\n')


@pytest.fixture
def no_redirection(monkeypatch):
    # A training redirects the output of its process, which is the process of the tests here.
    monkeypatch.setattr('mmslak.cli.study.os.dup2', lambda *files: None)


def test_last_score_is_kept_with_its_settings(tmp_path, monkeypatch, no_redirection):
    seen = []

    def run(task, arguments):
        seen.append((task, arguments))
        write_score(arguments[arguments.index('--work-dir') + 1], 40.0)

    monkeypatch.setattr(study, 'run', run)
    config = tmp_path / 'config.py'
    config.write_text('x = 0\n')
    training = Training('a', 3, str(config), ['x=1'], data=dict(images=5))
    assert training.result(tmp_path) is None
    assert train(training, tmp_path) == 40.0
    folder = str(tmp_path / 'a' / 'seed3')
    assert seen == [('train', [str(config), '--work-dir', folder, '--cfg-options', 'x=1'])]
    assert training.result(tmp_path)['score'] == 40.0
    assert 0 <= training.result(tmp_path)['seconds'] < 60
    # A result of other settings is not used and not overwritten.
    other = tmp_path / 'other.py'
    other.write_text('x = 0\n')
    for changed, what in (
        (dict(options=['x=2']), 'options'),
        (dict(config=str(other)), 'config'),
        (dict(data=dict(images=6)), 'data'),
        (dict(metric='mAcc'), 'metric'),
    ):
        with pytest.raises(ValueError, match=f'with different {what}: choose another --work-dir'):
            run_study([dataclasses.replace(training, **changed)], tmp_path)
    assert dataclasses.replace(training, seed=4).result(tmp_path) is None
    config.write_text('x = 3\n')
    _digest.cache_clear()
    with pytest.raises(ValueError, match='with different contents'):
        training.result(tmp_path)


def test_training_without_the_score_is_named(tmp_path, monkeypatch, no_redirection):
    monkeypatch.setattr(
        study, 'run', lambda task, arguments: write_score(arguments[2], 1.0, 'accuracy')
    )
    with pytest.raises(ValueError, match='b was not validated, or has no score mIoU'):
        train(Training('b', 0, 'config.py'), tmp_path)


def finish(training, root, score):
    folder = training.folder(root)
    folder.mkdir(parents=True)
    result = dict(training.settings(), score=score, seconds=1.0)
    (folder / 'result.json').write_text(json.dumps(result))


def test_scores_by_name_in_the_order_of_seeds(tmp_path):
    (tmp_path / 'c.py').write_text('x = 0\n')
    config = str(tmp_path / 'c.py')
    trainings = [Training(name, seed, config) for seed in (1, 0) for name in ('a', 'b')]
    for training, score in zip(trainings, (1.0, 2.0, 3.0, 4.0), strict=True):
        finish(training, tmp_path, score)
    unfinished = Training('a', 2, config)
    assert summarise([*trainings, unfinished], tmp_path) == {
        'a': {0: 3.0, 1: 1.0},
        'b': {0: 4.0, 1: 2.0},
    }
    # All trainings are finished, so no process starts.
    run_study(trainings, tmp_path)
    with pytest.raises(ValueError, match='--processes must be positive'):
        run_study(trainings, tmp_path, 0)
    with pytest.raises(ValueError, match='the same name and seed'):
        run_study([unfinished, unfinished], tmp_path)


def test_failed_training_is_named_and_ends_the_study(tmp_path):
    config = tmp_path / 'broken.py'
    config.write_text("model = dict(type='NoSuchModel')\nwork_dir = None\n")
    trainings = [Training('broken', seed, str(config)) for seed in range(3)]
    with pytest.raises((ValueError, RuntimeError), match='broken, seed 0, failed: ') as error:
        run_study(trainings, tmp_path / 'study')
    output = tmp_path / 'study' / 'broken' / 'seed0' / 'output.txt'
    assert str(output) in str(error.value) and output.is_file()
    assert not list(tmp_path.glob('study/*/*/result.json'))


def test_mean_and_spread_by_hand():
    assert mean_and_spread([1.0, 2.0, 6.0]) == (3.0, 7**0.5)
    assert mean_and_spread([4.0]) == (4.0, 0.0)


def test_differences_are_those_of_the_same_seed():
    scores = {'a': {0: 5.0, 1: 9.0, 2: 1.0}, 'b': {1: 6.0, 0: 4.0}, 'c': {2: 3.0}}
    assert paired_differences(scores, [('a', 'b')]) == [1.0, 3.0]
    assert paired_differences(scores, [('a', 'c'), ('b', 'c'), ('a', 'missing')]) == [-2.0]
    # The order of the seeds does not matter.
    assert sorted(paired_differences(scores, [('b', 'a')])) == [-3.0, -1.0]


def test_sparsity_study_reports_scores_of_all_seeds(tmp_path, monkeypatch, load_tool):
    tool = load_tool('analysis/sparsity_study.py')
    monkeypatch.setattr(tool, 'write_sample_data', lambda root: None)
    data = tmp_path / 'data'
    for number in range(len(tool.VARIANTS)):
        for seed in range(2):
            finish(tool.training(number, seed, 400, data), tmp_path, 10.0 * number + 4 * seed)
    arguments = ['--seeds', '2', '--data', str(data), '--work-dir', str(tmp_path)]
    monkeypatch.setattr('sys.argv', ['sparsity_study.py', *arguments])
    tool.main()
    lines = (tmp_path / 'scores.md').read_text().splitlines()
    assert lines[0] == '| SLaK-nano | mean | standard deviation | seed 0 | seed 1 |'
    # By hand: 30 and 34, mean 32, standard deviation 8 ** 0.5.
    assert lines[-1] == '| dense, 1.0x wide | 32.00 | 2.83 | 30.00 | 34.00 |'
    scores = json.loads((tmp_path / 'scores.json').read_text())
    assert scores['dense, 1.0x wide'] == {'0': 30.0, '1': 34.0}


@pytest.fixture
def tool(load_tool):
    return load_tool('analysis/kernel_study.py')


def test_kernel_study_reports_what_is_there(tmp_path, monkeypatch, capsys, tool):
    made = []
    plan = tool.training
    monkeypatch.setattr(
        tool, 'training', lambda *arguments: made.append(plan(*arguments)) or made[-1]
    )
    arguments = ['kernel_study.py', '--report', '--work-dir', str(tmp_path)]
    monkeypatch.setattr('sys.argv', arguments)
    tool.main()
    # 2 datasets, 3 kernels, 3 modes, dense and sparse, 3 seeds.
    assert len({(t.name, t.seed) for t in made}) == len(made) == 108
    for training in made:
        if training.name == 'context-51-decomposed-sparse':
            finish(training, tmp_path, 50.0 + training.seed)
        if training.name == 'context-51-naive-sparse' and training.seed != 1:
            finish(training, tmp_path, 51.0 - training.seed)
    capsys.readouterr()
    tool.main()
    assert '51.00 ± 1.00 (3)' in capsys.readouterr().out
    assert (
        '| context | sparse, 1.3x wide | decomposed | - | - | 51.00 ± 1.00 (3) |'
        in (tmp_path / 'scores.md').read_text()
    )
    # By hand: 50 - 51 and 52 - 49, mean 1, standard deviation 8 ** 0.5, over 2 ** 0.5.
    assert (
        '| 51 x 51: decomposed over naive | - | +1.00 ± 2.00 (1 of 2) |'
        in (tmp_path / 'scores.md').read_text()
    )
    assert json.loads((tmp_path / 'scores.json').read_text()) == {
        'context-51-decomposed-sparse': {'0': 50.0, '1': 51.0, '2': 52.0},
        'context-51-naive-sparse': {'0': 51.0, '2': 49.0},
    }
    assert Image.open(tmp_path / 'kernel_study.png').size[0] > 300


def test_part_of_the_kernel_study(tmp_path, monkeypatch, capsys, tool):
    made = []
    plan = tool.training
    monkeypatch.setattr(
        tool, 'training', lambda *arguments: made.append(plan(*arguments)) or made[-1]
    )
    arguments = '--report --seeds 1 --sets context --densities dense --kernels 7 51 --lr 5e-3'
    monkeypatch.setattr(
        'sys.argv', ['kernel_study.py', '--work-dir', str(tmp_path), *arguments.split()]
    )
    tool.main()
    modes = ('decomposed', 'naive', 'reparam')
    assert {t.name for t in made} == {f'context-{k}-{m}-dense' for k in (7, 51) for m in modes}
    assert all('optim_wrapper.optimizer.lr=0.005' in t.options for t in made)
    table = (tmp_path / 'scores.md').read_text().splitlines()
    assert table[0] == '| data | density | mode | 7 x 7 | 51 x 51 |'
    assert table.index('') == 2 + len(modes)


@pytest.mark.slow
def test_reduced_kernel_study(tmp_path, monkeypatch, capsys, tool):
    pytest.importorskip('mmseg')
    monkeypatch.chdir(ROOT)
    options = ['--seeds', '1', '--iters', '4', '--batch', '2', '--images', '10', '--size', '64']
    options += ['--kernels', '7', '31', '--modes', 'decomposed', '--processes', '1']
    options += ['--data', str(tmp_path / 'data'), '--work-dir', str(tmp_path / 'study')]
    monkeypatch.setattr('sys.argv', ['kernel_study.py', *options])
    tool.main()
    scores = json.loads((tmp_path / 'study' / 'scores.json').read_text())
    assert len(scores) == 2 * 2 * 2 and all(0 <= v['0'] <= 100 for v in scores.values())
    results = sorted((tmp_path / 'study').glob('*/seed0/result.json'))
    assert len(results) == 8
    # Each training has the classes of its data, and sparsity or not.
    for path in results:
        text = (path.parent / 'kernel_study_nano_ade20k.py').read_text()
        assert ('day_ball' in text) == path.parts[-3].startswith('context')
        assert ("mode='off'" in text) == path.parts[-3].endswith('dense')
    before = {path: path.stat().st_mtime_ns for path in results}
    results[0].unlink()
    capsys.readouterr()
    tool.main()
    after = {path: path.stat().st_mtime_ns for path in results}
    assert [path for path in results if after[path] != before[path]] == results[:1]
    assert '(1)' in capsys.readouterr().out
