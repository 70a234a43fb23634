"""Reading and drawing the scalars that MMEngine writes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from runs import step, write_run

from mmslak.analysis.curves import Scalars, moving_average, read_scalars, score_name

ROOT = Path(__file__).parents[2]


def score(number, value, name='mIoU'):
    return {name: value, 'data_time': 0.1, 'time': 0.2, 'step': number}


def test_resumed_run_replaces_what_comes_after_its_start(tmp_path):
    write_run(
        tmp_path,
        '20260101_000000',
        # Lines of hooks belong neither to training nor to validation.
        [{'density/a': 0.6, 'step': 1}, step(10, 5.0), step(20, 4.0), step(30, 3.0)]
        + [score(30, 30.0), step(40, 9.0), score(40, 10.0), step(50, 9.5)],
    )
    # Resumed from the checkpoint at 30, so only the score at 30 and what came before is valid.
    later = [{'density/a': 0.6, 'step': 1}, step(40, 2.0)]
    write_run(tmp_path, '20260102_000000', later, resumed=(0, 30))
    train, val, _ = read_scalars(tmp_path)
    assert train['loss'] == [(10, 5.0), (20, 4.0), (30, 3.0), (40, 2.0)]
    assert val['mIoU'] == [(30, 30.0)]
    write_run(tmp_path, '20260103_000000', [step(50, 1.0), score(50, 44.0)], resumed=(0, 40))
    train, val, _ = read_scalars(tmp_path)
    assert train['loss'][-2:] == [(40, 2.0), (50, 1.0)]
    assert val['mIoU'] == [(30, 30.0), (50, 44.0)]
    assert 'density/a' not in train and 'density/a' not in val
    assert read_scalars(tmp_path).hooks == {'density/a': [(1, 0.6)]}
    # Training from scratch replaces everything.
    write_run(tmp_path, '20260104_000000', [step(10, 7.0)])
    train, val, _ = read_scalars(tmp_path)
    assert train['loss'] == [(10, 7.0)] and val == {}


@pytest.mark.parametrize(
    ('resumed', 'kept', 'scores'),
    [
        (None, [], []),
        ((0, 25), [10, 20], [(10, 1.0)]),
        ((0, 40), [10, 20, 30], [(10, 1.0), (30, 3.0)]),
    ],
)
def test_start_of_a_run_is_not_its_first_logged_step(tmp_path, resumed, kept, scores):
    """With a longer logging interval, all of these runs begin with a line at step 50."""
    earlier = [step(10, 5.0), score(10, 1.0), step(20, 4.0), step(30, 3.0), score(30, 3.0)]
    write_run(tmp_path, '20260101_000000', earlier)
    write_run(tmp_path, '20260102_000000', [step(50, 2.0), step(100, 1.0)], resumed=resumed)
    train, val, _ = read_scalars(tmp_path)
    assert [number for number, _ in train['loss']] == [*kept, 50, 100]
    assert val.get('mIoU', []) == scores


def test_resumed_run_replaces_by_epochs(tmp_path):
    """Three epochs of 25 iterations, logged every 10 iterations, then the third epoch again."""
    numbers = {1: (10, 20), 2: (35, 45), 3: (60, 70)}
    lines = [
        line
        for epoch, steps in numbers.items()
        for line in [*(step(i, 9.0, epoch=epoch) for i in steps), score(epoch, 10.0 * epoch)]
    ]
    write_run(tmp_path, '20260101_000000', lines)
    write_run(tmp_path, '20260102_000000', [step(60, 1.0, epoch=3)], resumed=(2, 50))
    train, val, _ = read_scalars(tmp_path)
    assert train['loss'] == [(10, 9.0), (20, 9.0), (35, 9.0), (45, 9.0), (60, 1.0)]
    assert val['mIoU'] == [(1, 10.0), (2, 20.0)]
    # A run that was validated and stopped before it logged its training.
    write_run(tmp_path, '20260103_000000', [score(2, 22.0)], resumed=(1, 25))
    train, val, _ = read_scalars(tmp_path)
    assert train['loss'] == [(10, 9.0), (20, 9.0)]
    assert val['mIoU'] == [(1, 10.0), (2, 22.0)]


def hook(number, **scalars):
    return dict(scalars, step=number)


def test_resumed_run_replaces_what_hooks_logged_beyond(tmp_path):
    """The update at step 40 of the first run is invalid after resuming at 30."""
    lines = [hook(1, density=0.6), hook(20, rate=0.5), step(20, 4.0), step(30, 3.0)]
    write_run(tmp_path, '20260101_000000', [*lines, hook(30, rate=0.4), hook(40, rate=0.3)])
    lines = [hook(31, density=0.6), hook(50, rate=0.2), step(60, 2.0)]
    write_run(tmp_path, '20260102_000000', lines, resumed=(0, 30))
    hooks = read_scalars(tmp_path).hooks
    assert hooks['rate'] == [(20, 0.5), (30, 0.4), (50, 0.2)]
    assert hooks['density'] == [(1, 0.6), (31, 0.6)]
    # A resumed run without hooks replaces them as well.
    write_run(tmp_path, '20260103_000000', [step(45, 1.0)], resumed=(0, 40))
    assert read_scalars(tmp_path).hooks['rate'] == [(20, 0.5), (30, 0.4)]
    # Training from scratch replaces everything, even before its first step is logged.
    write_run(tmp_path, '20260104_000000', [hook(1, density=0.7)])
    train, _, hooks = read_scalars(tmp_path)
    assert hooks == {'density': [(1, 0.7)]}
    assert train['loss'] == [(20, 4.0), (30, 3.0), (45, 1.0)]


def test_run_that_logged_nothing_changes_nothing(tmp_path):
    write_run(tmp_path, '20260101_000000', [step(10, 5.0), score(10, 1.0)])
    write_run(tmp_path, '20260102_000000', [{'density/a': 0.6, 'step': 1}])
    train, val, _ = read_scalars(tmp_path)
    assert train['loss'] == [(10, 5.0)] and val['mIoU'] == [(10, 1.0)]


def test_only_a_later_run_needs_its_log(tmp_path):
    for name in ('20260101_000000', '20260102_000000'):
        if name > '20260101_000000':
            assert read_scalars(tmp_path)[0]['loss'] == [(10, 5.0)]
        write_run(tmp_path, name, [step(10, 5.0)])
        (tmp_path / name / f'{name}.log').unlink()
    with pytest.raises(FileNotFoundError, match=r'20260102_000000 contains no log .* \.log file'):
        read_scalars(tmp_path)


def test_directory_without_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'give the directory that tools/train\.py wrote'):
        read_scalars(tmp_path)


def test_score_is_a_known_one_or_the_one_asked_for():
    detection = {'time': [], 'data_time': [], 'coco/ball_precision': [], 'coco/bbox_mAP': []}
    assert score_name([{}, detection]) == 'coco/bbox_mAP'
    assert score_name([detection], 'coco/ball_precision') == 'coco/ball_precision'
    assert score_name([{'my/score': [], 'time': []}]) == 'my/score'
    assert score_name([{}]) is None
    with pytest.raises(
        ValueError, match=r'--score mIoU .* which have: coco/ball_precision, coco/bbox'
    ):
        score_name([detection], 'mIoU')


def test_moving_average_by_hand():
    np.testing.assert_allclose(moving_average([1, 2, 6, 7, 4], 3), [1, 3, 5, 17 / 3, 4])
    np.testing.assert_allclose(moving_average([1, 2, 6, 7, 4], 1), [1, 2, 6, 7, 4])
    for window in (0, 2, -3):
        with pytest.raises(ValueError, match='odd and positive'):
            moving_average([1.0], window)


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=20), st.integers(0, 9))
def test_moving_average_of_a_line_is_the_line(values, reach):
    """Windows are symmetric, so that a line stays straight at its ends."""
    line = np.arange(len(values)) * 2.0 + values[0]
    np.testing.assert_allclose(moving_average(line, 2 * reach + 1), line, atol=1e-9)


@pytest.fixture
def run_tool(load_tool, monkeypatch):
    tool = load_tool('analysis/plot_curves.py')

    def run(*arguments):
        monkeypatch.setattr('sys.argv', ['plot_curves.py', *map(str, arguments)])
        tool.main()

    return run


def test_command(tmp_path, capsys, run_tool):
    work_dir = tmp_path / 'first'
    lines = [step(i, 5.0 / i) for i in range(1, 31)]
    write_run(work_dir, '20260101_000000', [*lines, score(20, 30.0), score(30, 40.0)])
    write_run(tmp_path / 'second', '20260101_000000', [step(1, 3.0), step(2, 2.0), score(2, 20.0)])
    run_tool(work_dir, tmp_path / 'second', '--out', tmp_path / 'curves.png')
    printed = capsys.readouterr().out
    assert 'first' in printed and 'second' in printed and 'mIoU' in printed
    assert Image.open(tmp_path / 'curves.png').size[0] > 300
    assert (tmp_path / 'curves.svg').read_text().lstrip().startswith('<?xml')
    for arguments, message in (
        ((work_dir, work_dir), '--names must have 2 different names'),
        ((work_dir, '--loss', 'nothing'), 'which have: '),
        ((work_dir, '--average', '4'), 'odd and positive'),
        ((tmp_path / 'nowhere',), 'contains no run'),
    ):
        with pytest.raises(SystemExit) as stopped:
            run_tool(*arguments)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_run_has_one_colour_in_both_panels(load_tool):
    """The first run has no validation, the last one has not logged its training."""
    tool = load_tool('analysis/plot_curves.py')
    loss, miou = {'loss': [(1, 2.0), (2, 1.0)]}, {'mIoU': [(2, 40.0)]}
    runs = {'new': (loss, {}), 'old': (loss, miou), 'older': (loss, miou), 'bare': ({}, miou)}
    runs = {name: Scalars(train, val, {}) for name, (train, val) in runs.items()}
    figure = tool.draw_runs(runs, 'loss', 'mIoU', None)
    train, val = (
        {
            line.get_label(): line.get_color()
            for line in panel.get_lines()
            if line.get_label() in runs
        }
        for panel in figure.axes
    )
    assert list(train) == ['new', 'old', 'older'] and list(val) == ['old', 'older', 'bare']
    colours = train | val
    assert {name: colours[name] for name in train} == train
    assert len(set(colours.values())) == 4
    legend = figure.axes[0].get_legend()
    named = [text.get_text() for text in legend.get_texts()]
    assert dict(zip(named, [h.get_color() for h in legend.legend_handles], strict=True)) == colours
    assert named == ['new', 'old', 'older', 'bare']
    # Without validations there is one panel.
    figure = tool.draw_runs({'new': Scalars(loss, {}, {})}, 'loss', None, None)
    assert [panel.get_title() for panel in figure.axes] == ['Training loss']


def test_table_has_scores_only_if_a_run_was_validated(load_tool):
    tool = load_tool('analysis/plot_curves.py')
    loss, miou = {'loss': [(1, 2.0), (2, 1.0)]}, {'mIoU': [(1, 40.0), (2, 30.0)]}

    def content(table):
        return {column.header: list(column.cells) for column in table.columns}

    runs = {'new': Scalars(loss, {}, {}), 'bare': Scalars({}, {}, {})}
    table = tool.last_values(runs, 'loss', None)
    assert content(table) == {
        'run': ['new', 'bare'],
        'iterations': ['2', '-'],
        'last loss': ['1', '-'],
    }
    runs = {'new': Scalars(loss, {}, {}), 'old': Scalars(loss, miou, {})}
    table = tool.last_values(runs, 'loss', 'mIoU')
    assert content(table) == {
        'run': ['new', 'old'],
        'iterations': ['2', '2'],
        'last loss': ['1', '1'],
        'last mIoU': ['-', '30'],
        'best mIoU': ['-', '40'],
    }


@pytest.mark.slow
def test_real_runs_resumed(tmp_path, monkeypatch, run_tool):
    pytest.importorskip('mmseg')
    from mmslak.cli.run import run
    from mmslak.sample_data import write_sample_data

    monkeypatch.chdir(ROOT)
    write_sample_data(tmp_path / 'sample', images=5, size=64)
    options = [
        f'data_root={tmp_path / "sample" / "ADEChallengeData2016"}',
        'train_dataloader.batch_size=2',
        'train_cfg.val_interval=2',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.interval=2',
        'default_hooks.checkpoint.save_last=True',
        'model.backbone.kernel_sizes=(7,7,7,5)',
        'default_hooks.sparsity.mode=off',
        'model.data_preprocessor.size=(64,64)',
        'model.backbone.width_factor=1.3',
    ]
    work_dir = tmp_path / 'first'
    for iters, resume in ((2, []), (4, ['--resume'])):
        arguments = ['configs/sample/kernel_study_nano_ade20k.py', '--work-dir', str(work_dir)]
        run(
            'train',
            [*arguments, *resume, '--cfg-options', *options, f'train_cfg.max_iters={iters}'],
        )
    train, val, _ = read_scalars(work_dir)
    assert [number for number, _ in train['loss']] == [1, 2, 3, 4]
    assert [number for number, _ in val['mIoU']] == [2, 4]
    run_tool(work_dir, '--out', tmp_path / 'curves')
    assert Image.open(tmp_path / 'curves.png').size[0] > 300
