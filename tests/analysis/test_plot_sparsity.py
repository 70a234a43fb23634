"""The figure of a training's sparsity, from what MMEngine writes."""

import json

import pytest
from PIL import Image


def write_run(work_dir, name, lines, resumed=None):
    """Write the scalars of a run, and a log that says at which iteration it was resumed."""
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    log = '' if resumed is None else f'resumed epoch: 0, iter: {resumed}\n'
    (folder.parent / f'{name}.log').write_text(log)


def update(step, rate):
    values = dict(rate=rate, moves=100, density=0.6, explored=0.7)
    return {f'sparsity/{name}': value for name, value in values.items()} | {'step': step}


def density(step):
    return {'density/backbone.a.weight': 0.25, 'density/backbone.b.weight': 0.75, 'step': step}


def training(step):
    return dict(lr=0.1, loss=1.0, data_time=0.1, time=0.2, iter=step, step=step)


@pytest.fixture
def tool(load_tool):
    return load_tool('analysis/plot_sparsity.py')


def test_updates_beyond_the_point_of_resuming_are_not_drawn(tmp_path, tool):
    first = [density(1), update(10, 0.5), training(10), update(20, 0.4), update(30, 0.3)]
    write_run(tmp_path, '20260101_000000', [*first, training(30)])
    # Resumed from the checkpoint at 20, with other intervals of updates.
    write_run(tmp_path, '20260102_000000', [density(21), update(35, 0.2), training(40)], resumed=20)
    series = tool.read_sparsity(tmp_path)
    assert series['sparsity/rate'] == [(10, 0.5), (20, 0.4), (35, 0.2)]
    assert {name.split('/')[0] for name in series} == {'sparsity', 'density'}
    figure = tool.draw(series)
    (line,) = figure.axes[0].get_lines()
    assert list(line.get_xdata()) == [10, 20, 35] and list(line.get_ydata()) == [0.5, 0.4, 0.2]
    widths = [bar.get_width() for bar in figure.axes[2].patches]
    assert widths == [0.25, 0.75]


def test_fixed_masks_have_densities_only(tmp_path, tool, monkeypatch, capsys):
    write_run(tmp_path, '20260101_000000', [density(1)])
    monkeypatch.setattr('sys.argv', ['plot_sparsity.py', str(tmp_path)])
    tool.main()
    assert 'wrote' in capsys.readouterr().out
    assert Image.open(tmp_path / 'sparsity.png').size[0] > 1000


def test_a_dense_training_has_nothing_to_draw(tmp_path, tool, monkeypatch, capsys):
    write_run(tmp_path, '20260101_000000', [training(10)])
    monkeypatch.setattr('sys.argv', ['plot_sparsity.py', str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        tool.main()
    assert stopped.value.code == 2
    assert 'contains no run with DynamicSparsityHook' in capsys.readouterr().err
