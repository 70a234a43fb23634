"""The figure of a training's sparsity, from what MMEngine writes."""

import pytest
from PIL import Image
from runs import step, write_run


def update(number, rate):
    values = dict(rate=rate, moves=100, density=0.6, explored=0.7)
    return {f'sparsity/{name}': value for name, value in values.items()} | {'step': number}


def density(number):
    return {'density/backbone.a.weight': 0.25, 'density/backbone.b.weight': 0.75, 'step': number}


@pytest.fixture
def tool(load_tool):
    return load_tool('analysis/plot_sparsity.py')


def test_updates_beyond_the_point_of_resuming_are_not_drawn(tmp_path, tool):
    first = [density(1), update(10, 0.5), step(10, 1.0), update(20, 0.4), update(30, 0.3)]
    write_run(tmp_path, '20260101_000000', [*first, step(30, 1.0)])
    # Resumed from the checkpoint at 20, with other intervals of updates.
    write_run(
        tmp_path, '20260102_000000', [density(21), update(35, 0.2), step(40, 1.0)], resumed=(0, 20)
    )
    series = tool.read_sparsity(tmp_path)
    assert series['sparsity/rate'] == [(10, 0.5), (20, 0.4), (35, 0.2)]
    assert {name.split('/')[0] for name in series} == {'sparsity', 'density'}
    figure = tool.draw_sparsity(series)
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
    write_run(tmp_path, '20260101_000000', [step(10, 1.0)])
    monkeypatch.setattr('sys.argv', ['plot_sparsity.py', str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        tool.main()
    assert stopped.value.code == 2
    assert 'contains no run with DynamicSparsityHook' in capsys.readouterr().err
