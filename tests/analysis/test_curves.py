"""Curves read from what MMEngine writes, and drawn."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmslak.analysis.curves import moving_average, read_scalars, score_name

ROOT = Path(__file__).parents[2]


def write_run(work_dir, name, lines):
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n')


def step(number, loss, **more):
    return dict(lr=0.1, loss=loss, data_time=0.1, time=0.2, iter=number, step=number, **more)


def score(number, value, name='mIoU'):
    return {name: value, 'data_time': 0.1, 'time': 0.2, 'step': number}


def test_resumed_run_takes_over_where_it_begins(tmp_path):
    write_run(
        tmp_path,
        '20260101_000000',
        # Lines of hooks are of neither kind.
        [{'density/a': 0.6, 'step': 1}, step(10, 5.0), step(20, 4.0), score(20, 30.0)]
        + [step(30, 3.0), step(40, 9.0), score(40, 10.0), step(50, 9.5)],
    )
    # Resumed from a checkpoint at 30: what came after it did not happen.
    write_run(tmp_path, '20260102_000000', [{'density/a': 0.6, 'step': 1}, step(40, 2.0)])
    train, val = read_scalars(tmp_path)
    assert train['loss'] == [(10, 5.0), (20, 4.0), (30, 3.0), (40, 2.0)]
    assert val['mIoU'] == [(20, 30.0), (40, 10.0)]
    write_run(tmp_path, '20260103_000000', [step(50, 1.0), score(40, 44.0)])
    train, val = read_scalars(tmp_path)
    assert train['loss'][-2:] == [(40, 2.0), (50, 1.0)]
    assert val['mIoU'] == [(20, 30.0), (40, 44.0)]
    assert 'density/a' not in train and 'density/a' not in val
    # Started again from nothing: all before is forgotten.
    write_run(tmp_path, '20260104_000000', [step(10, 7.0)])
    train, val = read_scalars(tmp_path)
    assert train['loss'] == [(10, 7.0)] and val == {}


def test_folder_without_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'give the folder that tools/train\.py wrote'):
        read_scalars(tmp_path)


def test_score_is_a_known_one_or_the_one_asked_for():
    detection = {'time': [], 'data_time': [], 'coco/ball_precision': [], 'coco/bbox_mAP': []}
    assert score_name([{}, detection]) == 'coco/bbox_mAP'
    assert score_name([detection], 'coco/ball_precision') == 'coco/ball_precision'
    assert score_name([{'my/score': [], 'time': []}]) == 'my/score'
    assert score_name([{}]) is None
    with pytest.raises(ValueError, match=r'--score mIoU .* there: coco/ball_precision, coco/bbox'):
        score_name([detection], 'mIoU')


def test_moving_average_by_hand():
    np.testing.assert_allclose(moving_average([1, 2, 6, 7, 4], 3), [1, 3, 5, 17 / 3, 4])
    np.testing.assert_allclose(moving_average([1, 2, 6, 7, 4], 1), [1, 2, 6, 7, 4])
    for window in (0, 2, -3):
        with pytest.raises(ValueError, match='odd and positive'):
            moving_average([1.0], window)


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=20), st.integers(0, 9))
def test_moving_average_of_a_line_is_the_line(values, reach):
    """Windows are symmetric, so that a slope is not bent at the ends."""
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
        ((work_dir, work_dir), '--names must give each of the 2 folders a name of its own'),
        ((work_dir, '--loss', 'nothing'), 'there: '),
        ((work_dir, '--average', '4'), 'odd and positive'),
        ((tmp_path / 'nowhere',), 'holds no run'),
    ):
        with pytest.raises(SystemExit) as stopped:
            run_tool(*arguments)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_real_runs_resumed(tmp_path, monkeypatch, run_tool):
    pytest.importorskip('mmseg')
    from mmslak.datasets import write_sample_data
    from mmslak.engine.launch import run

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
        'custom_hooks.0.mode=off',
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
    train, val = read_scalars(work_dir)
    assert [number for number, _ in train['loss']] == [1, 2, 3, 4]
    assert [number for number, _ in val['mIoU']] == [2, 4]
    run_tool(work_dir, '--out', tmp_path / 'curves')
    assert Image.open(tmp_path / 'curves.png').size[0] > 300
