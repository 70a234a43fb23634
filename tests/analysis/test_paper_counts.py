"""Counting the networks of the paper's tables."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmslak.analysis import paper_counts
from mmslak.analysis.paper import TABLES, Network, Row, Table
from mmslak.analysis.paper_counts import (
    Count,
    PoolLastFeatureMap,
    SnipCache,
    count_row,
    count_tables,
    load_network,
)

ROOT = Path(__file__).parents[2]


def test_count_of_several_initialisations():
    costs = [dict(params_sparse=2e6, macs_sparse=n * 1e9) for n in (1, 2, 6)]
    assert Count.of(costs, 'sparse') == Count(2.0, 3.0, 1.0, 6.0)


def test_last_feature_map_is_pooled():
    features = [torch.zeros(2, 3, 4, 4), torch.arange(2 * 3 * 4.0).reshape(2, 3, 2, 2)]
    (pooled,) = PoolLastFeatureMap()(features)
    assert pooled.tolist() == [[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]


def test_rows_that_cannot_be_counted():
    assert count_row(Row('CSWin', 20, 4.0, None), ROOT / 'configs') == {}
    network = Network(packages=('no_such_package',))
    assert count_row(Row('net', 20, 4.0, network), ROOT / 'configs') == {}


def test_options_are_merged():
    pytest.importorskip('mmpretrain')
    network = Network('sample/slak_nano_in1k', {'model.backbone.width_factor': 1.0})
    assert load_network(network, ROOT / 'configs').model.backbone.width_factor == 1.0
    network = Network(options=dict(model=dict(type='A')))
    assert load_network(network, ROOT / 'configs').model.type == 'A'


def test_a_network_is_counted_once(monkeypatch):
    net, other = Network('a'), Network('b')
    rows = [Row('1', 1, 1, net), Row('2', 2, 2, other), Row('3', 1, 1, net, size=9)]
    tables = {1: Table('', rows), 2: Table('', [Row('4', 1, 1, net)])}
    monkeypatch.setitem(TABLES, 1, tables[1])
    monkeypatch.setitem(TABLES, 2, tables[2])
    counted, shown = [], []

    def count(row, configs, snip):
        counted.append(row.label)
        return {'dense': len(counted)}

    monkeypatch.setattr(paper_counts, 'count_row', count)
    counts = count_tables([1, 2], ROOT, None, shown.append)
    assert counted == ['1', '2', '3']
    assert counts == {1: [{'dense': 1}, {'dense': 2}, {'dense': 3}], 2: [{'dense': 1}]}
    assert shown == ['table 1, 1', 'table 1, 2', 'table 1, 3', 'table 2, 4']


def test_snip_is_computed_once(tmp_path, monkeypatch):
    computed = []

    def allocation(cfg, images, sparsity, seed):
        computed.append((cfg.model.type, len(images), sparsity, seed))
        return {'weight': len(computed)}

    def snip(seeds=1, images=1, sparsity=0.4, name='net'):
        paths = [(Path(f'class/{i}.jpg'), 0) for i in range(images)]
        cfg = Config(dict(model=dict(type=name)))
        # A new object, as in another run, which knows only what is in the file.
        found = SnipCache(paths, seeds, tmp_path / 'new/snip.json')(cfg, sparsity)
        new = list(computed)
        computed.clear()
        return found, new

    monkeypatch.setattr(paper_counts, 'allocate_by_images', allocation)
    first, new = snip()
    assert new == [('net', 1, 0.4, 0)]
    assert snip() == (first, [])
    assert snip(seeds=3)[1] == [('net', 1, 0.4, 1), ('net', 1, 0.4, 2)]
    assert snip(seeds=3) == ([{'weight': 1}, {'weight': 1}, {'weight': 2}], [])
    assert snip(sparsity=0.5)[1] == [('net', 1, 0.5, 0)]
    assert snip(images=2)[1] == [('net', 2, 0.4, 0)]
    assert snip(name='other')[1] == [('other', 1, 0.4, 0)]
    assert snip() == (first, [])
