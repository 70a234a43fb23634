"""The end of pre-training; tests/e2e/test_classification.py runs the hook."""

import pytest

from mmslak.engine import FinishTrainingHook


def test_wrong_setting_is_named():
    with pytest.raises(ValueError, match='batches must be positive'):
        FinishTrainingHook(batches=0)
