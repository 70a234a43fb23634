"""The paper's numbers, and the rows that configs reproduce."""

import pytest

from mmslak.analysis.paper import TABLES, row_of, row_of_config


def test_tables_are_complete():
    """Groups of columns in tables 1 and 2 of the paper are rows here."""
    assert {number: len(rows) for number, (_, rows) in TABLES.items()} == {
        1: 7, 2: 12, 3: 28, 4: 10, 5: 5, 7: 8, 8: 5,
    }  # fmt: skip


def test_rows_have_unique_labels():
    for number, (_, rows) in TABLES.items():
        assert len({row.label for row in rows}) == len(rows), number
    assert row_of(3, 'SLaK-T').gmacs == 5.0


@pytest.mark.parametrize(
    ('config', 'params', 'gmacs'),
    # Tables 1 to 5 of the paper.
    [
        ('upernet_slak_t_80k_ade20k', 65, 936),
        ('upernet_slak_t_ade20k', 65, 936),
        ('upernet_slak_s_ade20k', 91, 1028),
        ('upernet_slak_b_ade20k', 135, 1172),
        ('upernet_convnext_t_ade20k', 60, 939),
        ('upernet_convnext_s_ade20k', 82, 1027),
        ('upernet_convnext_b_ade20k', 122, 1170),
        ('slak_t_in1k', 30, 5.0),
        ('slak_t_120e_in1k', 30, 5.0),
        ('slak_s_in1k', 55, 9.8),
        ('slak_b_in1k', 95, 17.1),
        ('slak_b_384_in1k', 95, 50.3),
        ('convnext_t_in1k', 29, 4.5),
        ('convnext_s_in1k', 50, 8.7),
        # Not 45.0 G, the row of the same config with 384 x 384 pixels.
        ('convnext_b_in1k', 89, 15.4),
        ('swin_t_in1k', 28, 4.5),
        ('swin_s_in1k', 50, 8.7),
        ('swin_b_in1k', 88, 15.4),
        ('convnext_t_naive_120e_in1k', 32, 6.5),
        ('convnext_t_replknet_120e_in1k', 32, 6.1),
        ('faster_rcnn_slak_t_voc', 49, 205),
        ('faster_rcnn_slak_t_voc0712', 49, 205),
        ('faster_rcnn_convnext_t_voc', 45, 208),
        ('faster_rcnn_convnext_t_replknet_voc', 55, 207),
    ],
)
def test_a_config_finds_its_row(config, params, gmacs):
    _, row = row_of_config(config)
    assert (row.params, row.gmacs) == (params, gmacs)
    assert bool(row.sparsity) == ('slak' in config)


@pytest.mark.parametrize('config', ['slak_nano_in1k', 'deit-small_4xb256_in1k', 'resnet50', ''])
def test_other_configs_have_no_row(config):
    assert row_of_config(config) is None
