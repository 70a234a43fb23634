"""Comparison of state dicts, checked name by name."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmslak.checkpoints import compare

names = st.sampled_from(['a', 'b', 'c', 'd', 'bn.num_batches_tracked'])
states = st.dictionaries(names, st.sampled_from([(), (2,), (2, 3), (3, 2)]).map(torch.zeros))


@given(states, states)
def test_every_difference_is_found(file, model):
    found = compare(file, model)
    for name in {*file, *model}:
        in_file, in_model = name in file, name in model
        shapes = in_file and in_model and (tuple(file[name].shape), tuple(model[name].shape))
        assert (name in found.unknown) == (in_file and not in_model)
        counter = name.endswith('num_batches_tracked')
        assert (name in found.missing) == (in_model and not in_file and not counter)
        different = bool(shapes) and shapes[0] != shapes[1]
        assert (name in found.reshaped) == different
        if different:
            assert found.reshaped[name] == shapes
    assert bool(found) == bool(found.reshaped or found.missing or found.unknown)


@pytest.mark.parametrize(
    ('file', 'model', 'text'),
    [
        (
            dict(a=(2,), c=(1,)),
            dict(a=(3,), b=(1,)),
            'a has shape (2,) in the file and (3,) in the model',
        ),
        (
            dict(c=(1,)),
            dict(b=(4, 1)),
            'b is missing in the file and has shape (4, 1) in the model',
        ),
        (
            dict(a=(1,), c=(1,)),
            dict(a=(1,)),
            'c is missing in the model and has shape (1,) in the file',
        ),
    ],
)
def test_first_difference(file, model, text):
    file, model = ({k: torch.zeros(s) for k, s in state.items()} for state in (file, model))
    assert compare(file, model).first() == text


def test_first_without_a_difference_is_an_error():
    state = dict(a=torch.zeros(2))
    assert not compare(state, state)
    with pytest.raises(ValueError, match='no difference'):
        compare(state, state).first()
