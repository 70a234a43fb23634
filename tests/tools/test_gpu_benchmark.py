"""The benchmark for GPUs, on a CPU at tiny sizes, and its tables."""

import json
import os
import subprocess
import sys

import pytest
from helpers import ROOT

pytest.importorskip('triton')

TABLES = 'correctness', 'operator', 'conversions', 'norms', 'networks', 'blocks', 'sparse'
PAGE = ''.join(f'<!-- gpu {name} -->\n<!-- end of gpu {name} -->\n' for name in TABLES)


def rows_of(page, name):
    """Return the cells of a table in a page."""
    text = page.split(f'<!-- gpu {name} -->\n')[1].split(f'<!-- end of gpu {name} -->')[0]
    return [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()[2:]]


def test_all_sections_run_in_the_interpreter(tmp_path, load_tool, monkeypatch):
    out = tmp_path / 'gpu.json'
    command = [
        sys.executable, ROOT / 'tests/ops/interpreted.py', ROOT / 'tools/benchmark/gpu.py',
        '--device', 'cpu', '--tiny', '--repeats', '1', '--out', out,
    ]  # fmt: skip
    environment = {**os.environ, 'TRITON_INTERPRET': '1'}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    found = json.loads(out.read_text())
    assert list(found['skipped']) == ['sparse'], run.stdout
    cases = found['sections']['correctness']
    assert len(cases) == 8 and all(case['agrees'] for case in cases), cases
    assert all('ms' in row for row in found['sections']['blocks'])

    tool = load_tool('benchmark/gpu_tables.py')
    page = tmp_path / 'page.md'
    page.write_text(PAGE)
    monkeypatch.setattr('sys.argv', ['gpu_tables.py', str(out), '--page', str(page)])
    tool.main()
    text = page.read_text()
    assert [row[:3] for row in rows_of(text, 'correctness')] == [
        [name, '2', '2'] for name in ('fp32', 'tf32', 'fp16', 'bf16')
    ]
    assert len(rows_of(text, 'operator')) == 6
    # The interpreter truncates to bfloat16, so that only the other conversions are exact.
    exact = [row for row in rows_of(text, 'conversions') if row[1] == 'bfloat16']
    assert [row[2:4] for row in exact] == [
        ['float32, channels last', 'yes'], ['bfloat16, planar', 'yes'],
        ['bfloat16, channels last', 'yes'],
    ]  # fmt: skip
    [norms] = rows_of(text, 'norms')
    assert norms[0] == '2x2x7x7' and float(norms[-1]) < 0.05
    assert 'SLaK-nano, not aligned' in [row[3] for row in rows_of(text, 'networks')]


def test_tables_of_a_case_by_hand(tmp_path, load_tool, monkeypatch):
    tool = load_tool('benchmark/gpu_tables.py')
    times = {('native', 'planar'): 8, ('native', 'channels_last'): 6, ('triton', 'planar'): 1}
    times |= {('auto', 'planar'): 2, ('auto', 'channels_last'): 1.5}
    operator = [
        dict(
            shape=[1, 2, 3, 3], kernel=[5, 9], precision='bf16', direction='forward',
            implementation=name, layout=layout, ms=100, gpu_ms=ms,
        )
        for (name, layout), ms in times.items()
    ]  # fmt: skip
    networks = [
        dict(mode='train', batch=1, size=32, network=name, arch=arch, ms=ms, gpu_ms=gpu, peak_mb=1)
        for name, arch, ms, gpu in (('convnext', 'small', 10, 4), ('slak', 'tiny', 15, 5))
    ]
    results, page = tmp_path / 'gpu.json', tmp_path / 'page.md'
    results.write_text(json.dumps(dict(sections=dict(operator=operator, networks=networks))))
    page.write_text(PAGE)
    monkeypatch.setattr('sys.argv', ['gpu_tables.py', str(results), '--page', str(page)])
    tool.main()
    text = page.read_text()
    # 8 / 2 in the same memory format, 6 / 1.5 between the better ones.
    assert rows_of(text, 'operator')[0][4:] == ['8', '6', '1', '2', '1.5', '4.0', '4.0']
    assert rows_of(text, 'networks')[1][3:8] == ['SLaK-T', '5', '1.25', '15', '1.50']
    assert rows_of(text, 'sparse') == []
