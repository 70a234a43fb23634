"""The benchmark of accelerate, on one small network."""

import pytest
from helpers import run_tool

pytest.importorskip('mmseg')


@pytest.mark.slow
def test_table_in_a_page(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('before\n<!-- accelerate -->\nold\n<!-- end of accelerate -->\nafter\n')
    run_tool(
        'tools/benchmark/accelerate.py', '--networks', 'mscan_t', '--batch', 2, '--size', 32,
        '--repeats', 1, '--page', page,
    )  # fmt: skip
    lines = page.read_text().splitlines()
    assert 'old' not in lines
    assert (lines[0], lines[-1]) == ('before', 'after')
    assert [line.split(' | ')[1] for line in lines[4:6]] == ['evaluation', 'training']
    # 3 + 3 + 5 + 2 blocks, each with 5x5, three pairs of strips and 3x3.
    assert [line.split(' | ')[3].split(',')[0] for line in lines[4:6]] == ['104', '104']
