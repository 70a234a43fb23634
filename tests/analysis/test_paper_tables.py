"""The rebuilt tables: what is written about a difference, and every row of the real thing."""

import re
import sys
from pathlib import Path

import pytest

for toolbox in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(toolbox)

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / 'tools/analysis/paper_tables.py'


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('analysis/paper_tables.py')


def cells(line):
    return [cell.strip() for cell in line.strip('|').split('|')]


class TestLines:
    def write(self, tool, monkeypatch, row, counts):
        monkeypatch.setattr(tool, 'TABLES', {**tool.TABLES, 9: ('Title', [row])})
        return tool.table_lines(9, [counts])

    def test_difference(self, tool, monkeypatch):
        row = tool.Row('net', 20, 4.0, None)
        counts = {'dense': tool.Count(20.5, 3.9, 3.9, 3.9)}
        lines = self.write(tool, monkeypatch, row, counts)
        assert cells(lines[4]) == ['net', '', '20', '20.5', '+2.5%', '4.0', '3.90', '-2.5%']
        assert not [line for line in lines if 'away' in line]

    def test_far_off_is_said_once_for_each_number(self, tool, monkeypatch):
        row = tool.Row('net', 20, 4.0, None)
        counts = {
            'uniform': tool.Count(20.0, 4.2, 4.2, 4.2),
            'SNIP': tool.Count(22.0, 4.4, 4.3, 4.6),
        }
        lines = self.write(tool, monkeypatch, row, counts)
        notes = [line for line in lines if line.startswith('- ')]
        assert [note.split(':')[0] for note in notes] == [
            '- net, parameters, SNIP, +10.0%',
            '- net, multiply-adds, uniform, +5.0%',
            '- net, multiply-adds, SNIP, +10.0%',
        ]
        assert 'not explained' in notes[0]
        assert '4.30 to 4.60' in notes[2]

    def test_rows_without_a_network(self, tool, monkeypatch):
        lines = self.write(tool, monkeypatch, tool.Row('CSWin', 20, 4.0, None), {})
        assert cells(lines[4])[3] == 'in no library'
        network = tool.Network(needs=('no_such_package',))
        row = tool.Row('net', 20, 4.0, network)
        assert tool.count(row, None) == {}
        lines = self.write(tool, monkeypatch, row, {})
        assert cells(lines[4])[3] == 'needs no_such_package'

    def test_rows_without_numbers(self, tool, monkeypatch):
        counts = {'dense': tool.Count(20.5, 3.9, 3.9, 3.9)}
        lines = self.write(tool, monkeypatch, tool.Row('net', None, None, None), counts)
        assert cells(lines[4]) == ['net', '', 'not given', '20.5', '', 'not given', '3.90', '']


def test_contradictions_by_hand(tool):
    """Sums of the paper's own numbers, the heads' layers on wider maps worked out apart."""
    found = {(i.table, i.label, i.quantity): i.value for i in tool.contradictions()}
    # UPerNet's layers on maps of 124, 249, 499, 998 channels against 96, 192, 384, 768.
    laterals, pooling = (28 + 57 + 115) * 512, 4 * 230 * 512
    head = laterals + pooling + 9 * 230 * 512 + 9 * 115 * 256
    assert found[4, '300 epochs: SLaK-T', 'params'] == pytest.approx(60 + 30 - 29 + head / 1e6)
    assert found[4, '300 epochs: SLaK-S', 'params'] == pytest.approx(82 + 55 - 50 + head / 1e6)
    # 0.5 G at 224 x 224 are 20.4 times as much at 1280 x 800; FPN has a 1 x 1 on each map.
    fpn = 256 * (28 * 320 * 200 + 57 * 160 * 100 + 115 * 80 * 50 + 230 * 40 * 25)
    expected = 208 + 0.5 * 1280 * 800 / 224**2 + fpn / 1e9
    assert found[5, 'SLaK-T', 'gmacs'] == pytest.approx(expected)
    assert found[5, 'ConvNeXt-T (RepLKNet)', 'params'] == 45 + 64 - 60
    assert found[1, 'naive 31-29-27-13', 'gmacs'] == pytest.approx(6.05, abs=0.005)


def test_mixer_by_hand(tool):
    """Tolstikhin et al. 2021 and the toolboxes' model zoos print 12.6 G."""
    assert tool.mixer_gmacs() == pytest.approx(12.6, abs=0.05)


def test_summary_counts_the_papers_allocation(tool, monkeypatch):
    rows = [tool.Row('a', 20, 4.0, None), tool.Row('b', 20, None, None), tool.Row('c', 1, 1, None)]
    monkeypatch.setattr(tool, 'TABLES', {1: ('Title', rows)})
    counts = [
        {'uniform': tool.Count(30.0, 8.0, 8.0, 8.0), 'SNIP': tool.Count(20.0, 4.4, 4.4, 4.4)},
        {'dense': tool.Count(20.1, 7.0, 7.0, 7.0)},
        {},
    ]
    assert tool.summary({1: counts}) == "2 of 3 numbers are within 3 % of the paper's."


def test_every_table_of_the_paper_is_there(tool):
    """Rows as counted in the paper: three groups of columns in tables 1 and 2 are rows here."""
    assert {number: len(rows) for number, (_, rows) in tool.TABLES.items()} == {
        1: 7, 2: 12, 3: 28, 4: 10, 5: 5, 7: 8, 8: 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--images', 'no/such/folder'], '0 images'),
        (['--num', '0'], '--num must be positive'),
    ],
)
def test_what_a_user_can_put_right(tmp_path, tool, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, 'argv', ['tool', *arguments, '--out', str(tmp_path / 'tables.md')])
    with pytest.raises(SystemExit) as caught:
        tool.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_all_rows_are_near_the_papers_or_explained(tmp_path, tool, monkeypatch):
    pytest.importorskip('timm')
    monkeypatch.setattr(sys, 'argv', ['tool', '--out', str(tmp_path / 'tables.md')])
    tool.main()
    text = (tmp_path / 'tables.md').read_text()
    assert 'not explained' not in text
    assert '/tmp' not in text
    # Dense networks of others: the paper's numbers are those of the original publications.
    lines = text[text.index('## Table 3') : text.index('## Table 4')].splitlines()
    dense = [cells(line) for line in lines if re.match(r'\| \w[^|]* \|  \|', line)]
    assert len(dense) == 24
    for label, _, _, _, params, _, _, gmacs in dense:
        assert abs(float(params.rstrip('%'))) < 3, label
        assert abs(float(gmacs.rstrip('%'))) < (9 if label == 'Mixer-B/16' else 3), label
