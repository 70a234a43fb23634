"""The end of a pre-training."""

import pytest

from mmslak.engine import FinishTrainingHook


def test_wrong_settings():
    with pytest.raises(ValueError, match='batches must be positive'):
        FinishTrainingHook(batches=0)
