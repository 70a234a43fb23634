"""The states of the random generators in checkpoints."""

import random
from types import SimpleNamespace

import numpy as np
import torch

from mmslak.engine import RandomStateHook


def test_random_states_are_restored(tmp_path):
    runner = SimpleNamespace(world_size=1, _resume=True, train_loop=None)

    def draw():
        return torch.rand(3).tolist() + [random.random(), float(np.random.rand())]

    draw()
    checkpoint = {}
    RandomStateHook().before_save_checkpoint(runner, checkpoint)
    torch.save(checkpoint, tmp_path / 'c.pth')
    expected = draw()
    assert draw() != expected
    hook = RandomStateHook()
    hook.after_load_checkpoint(runner, torch.load(tmp_path / 'c.pth', weights_only=True))
    hook.before_train_epoch(runner)
    assert draw() == expected
    hook.before_train_epoch(runner)  # only once
    assert draw() != expected
