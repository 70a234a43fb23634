"""The measured communication of two processes."""

import json

import pytest
from helpers import run_tool

pytest.importorskip('mmseg')


@pytest.mark.slow
def test_gradients_take_four_bytes_per_parameter_and_masks_eight_in_all():
    config = 'configs/sample/upernet_slak_nano_ade20k.py'
    found = json.loads(
        run_tool('tools/benchmark/communication.py', config, '--json').splitlines()[-1]
    )
    measured, (eight, *_) = found['measured'], found['estimated']
    assert measured['parameters'] == 1_243_630
    assert measured['gradients']['bytes'] == 4 * measured['parameters']
    assert measured['snip']['bytes'] == 4 * measured['targets']
    assert measured['first_masks'] == measured['update'] == dict(bytes=8, calls=1)
    # A ring of 8 sends 7/8 of the gradients twice.
    assert eight['gradients_mb'] == pytest.approx(2 * 7 / 8 * 4 * 1.243630)
    assert eight['masks_bytes'] == 8 * 7 / 50
