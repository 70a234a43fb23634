"""The lowest values, and random values that are the same in every process."""

import subprocess
import sys

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmslak.sparsity import SparseMasks, random_stream
from mmslak.sparsity.selection import lowest

few = settings(max_examples=50, deadline=None, derandomize=True)


@few
@given(
    values=st.lists(st.sampled_from([0.0, -0.0, 1.0, -2.5, 3.0, np.inf, -np.inf]), max_size=30),
    data=st.data(),
)
def test_lowest_equals_a_stable_sort(values, data):
    count = data.draw(st.integers(0, len(values)))
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    expected = torch.zeros(len(values), dtype=torch.bool)
    expected[torch.tensor(order[:count], dtype=torch.long)] = True
    assert torch.equal(lowest(torch.tensor(values), count), expected)


def test_nan_counts_as_the_highest():
    values = torch.tensor([torch.nan, 3.0, torch.nan, 1.0])
    assert lowest(values, 3).tolist() == [True, True, False, True]


CHILD = """
import torch
from mmslak.sparsity import SparseMasks, random_stream
p = torch.nn.Parameter(torch.ones(30, 7))
m = torch.rand(30, 7, generator=random_stream(3, 5, 'layer.weight')) < 0.4
print(SparseMasks({'layer.weight': p}, {'layer.weight': m}).checksum())
"""


def test_random_values_and_checksums_are_the_same_in_another_process():
    done = subprocess.run([sys.executable, '-c', CHILD], capture_output=True, text=True, check=True)
    mask = torch.rand(30, 7, generator=random_stream(3, 5, 'layer.weight')) < 0.4
    masks = SparseMasks({'layer.weight': nn.Parameter(torch.ones(30, 7))}, {'layer.weight': mask})
    assert done.stdout.strip() == masks.checksum()


def test_random_values_depend_on_seed_step_and_name():
    draws = [
        torch.rand(4, generator=random_stream(*args)).tolist()
        for args in ((0, 0, 'a'), (1, 0, 'a'), (0, 1, 'a'), (0, 0, 'b'))
    ]
    assert len({tuple(draw) for draw in draws}) == 4
