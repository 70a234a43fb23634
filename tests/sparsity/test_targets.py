"""Which weights are maskable."""

import pytest
from networks import small_network
from torch import nn

from mmslak.sparsity import SparseMasks, select_model_targets, select_targets

models = pytest.importorskip('mmslak.models', exc_type=ImportError)
SLaK, SpatialMixing = models.SLaK, models.SpatialMixing


def test_all_convolutions_and_linear_layers():
    model = small_network()
    assert list(select_targets(model)) == ['0.weight', '2.weight', '4.weight']
    assert list(select_targets(model, prefix='backbone.')) == [
        'backbone.0.weight',
        'backbone.2.weight',
        'backbone.4.weight',
    ]
    assert select_targets(model)['2.weight'] is model[2].weight
    assert list(select_targets(model[0])) == ['weight']


def test_all_weights_of_slak_have_two_or_four_dimensions():
    model = SLaK('nano')
    expected = [n for n, p in model.named_parameters() if p.ndim in (2, 4)]
    assert list(select_targets(model)) == expected


@pytest.mark.parametrize('mode', ['decomposed', 'reparam', 'naive'])
def test_large_kernels_are_those_of_the_spatial_mixing(mode):
    model = SLaK('nano', kernel_sizes=(13, 11, 9, 7), mode=mode)
    expected = [
        f'{path}.{branch}.conv.weight'
        for path, module in model.named_modules()
        if isinstance(module, SpatialMixing)
        for branch in module.branch_names
        if branch != 'small'
    ]
    assert list(select_targets(model, 'large_kernels')) == expected


def test_patterns_include_and_exclude():
    model = small_network()
    assert list(select_targets(model, dict(include=['[02].*']))) == ['0.weight', '2.weight']
    assert list(select_targets(model, dict(exclude=['n.0.*']), 'n.')) == [
        'n.2.weight',
        'n.4.weight',
    ]
    both = dict(include=['0*', '2*'], exclude=['2*'])
    assert list(select_targets(model, both)) == ['0.weight']


def test_shared_parameter_is_selected_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert list(select_targets(model)) == ['0.weight']
    assert SparseMasks(select_targets(model)).numel == 16


@pytest.mark.parametrize(
    ('targets', 'message'),
    [
        ('convs', "'all', 'large_kernels' or a dict"),
        ({}, 'dict of include and exclude'),
        (dict(only=['*']), 'dict of include and exclude'),
        (dict(include='*'), 'targets.include must be a list'),
        (dict(include=['*'], exclude=['nothing*']), "targets.exclude has the pattern 'nothing*'"),
        (dict(include=['1.*']), "targets.include has the pattern '1.*'"),
        (dict(exclude=['*']), 'selects no weight'),
    ],
)
def test_wrong_targets_are_named(targets, message):
    with pytest.raises(ValueError) as caught:
        select_targets(small_network(), targets)
    assert message in str(caught.value)


def test_network_without_large_kernels_is_an_error():
    with pytest.raises(ValueError, match='selects no weight of Linear'):
        select_targets(nn.Linear(2, 2), 'large_kernels')


class Model(nn.Module):
    """A model with a backbone and, if given, a head under the name of a classifier's head."""

    def __init__(self, head=None):
        super().__init__()
        self.backbone, self.decode_head = small_network(), nn.Linear(5, 2)
        if head is not None:
            self.head = head


def test_targets_of_a_model_are_the_backbone_and_the_head_of_a_classifier():
    backbone = ['backbone.0.weight', 'backbone.2.weight', 'backbone.4.weight']
    assert list(select_model_targets(Model())) == backbone
    classifier = Model(nn.Linear(5, 2))
    assert list(select_model_targets(classifier)) == [*backbone, 'head.weight']
    assert list(select_model_targets(classifier, 'large_kernels')) == ['backbone.2.weight']
    patterns = dict(include=['decode_head.*'])
    assert list(select_model_targets(classifier, patterns)) == ['decode_head.weight']


def test_model_without_a_backbone_needs_patterns():
    model = small_network()
    with pytest.raises(ValueError, match=r"targets='all' needs a model with a backbone"):
        select_model_targets(model)
    assert list(select_model_targets(model, dict(include=['0.*']))) == ['0.weight']
