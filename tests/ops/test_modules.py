"""The module."""

import pytest
import torch
from torch import nn

from mmslak.ops import LargeKernelConv2d


@pytest.mark.parametrize(
    ('kernel', 'options'),
    [
        (9, dict(padding=4, groups=6)),
        ((5, 21), dict(padding=(2, 10), groups=6, bias=False)),
        ((21, 5), dict(padding='same', groups=6, dtype=torch.float64)),
        ((5, 7), dict(padding=(4, 9), dilation=(2, 3), groups=6)),
        (7, dict(padding='same', dilation=3, groups=6)),
    ],
)
def test_same_state_and_output_as_conv2d(kernel, options):
    torch.manual_seed(0)
    theirs, ours = nn.Conv2d(6, 6, kernel, **options), LargeKernelConv2d(6, 6, kernel, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 6, 13, 17, dtype=options.get('dtype'))
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x[0]), theirs(x[0]))
    torch.testing.assert_close(ours(input=x), theirs(input=x))
    assert isinstance(ours, nn.Conv2d)


@pytest.mark.parametrize(
    ('arguments', 'options', 'message'),
    [
        (
            (4, 8, 5),
            dict(groups=4),
            r'not depth-wise \(4 input channels, 8 output channels, 4 groups\)',
        ),
        (
            (4, 4, 5),
            dict(groups=2),
            r'not depth-wise \(4 input channels, 4 output channels, 2 groups\)',
        ),
        ((4, 4, (5, 6)), {}, r'even kernel size \(5, 6\)'),
        ((4, 4, 5), dict(stride=2, padding=2), r'stride \(2, 2\)'),
        (
            (4, 4, 5),
            dict(padding=2, dilation=2),
            r'padding \(2, 2\) instead of "same" padding \(4, 4\)',
        ),
        ((4, 4, 5), dict(padding=1), r'padding \(1, 1\) instead of "same" padding \(2, 2\)'),
        ((4, 4, 5), dict(padding_mode='reflect'), "padding_mode 'reflect'"),
        ((4, 4, 5), dict(implementation='best'), "one of 'auto', .* got 'best'"),
    ],
)
def test_unsupported_convolutions_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        LargeKernelConv2d(*arguments, **options)


@pytest.mark.parametrize('shape', [(8, 5), (3, 5, 5), (2, 3, 5, 5), (1, 2, 8, 5, 5)])
def test_input_of_another_shape_is_named(shape):
    conv = LargeKernelConv2d(8, 8, 7)
    with pytest.raises(ValueError, match=r'\(N, 8, H, W\) or \(8, H, W\), got ') as error:
        conv(torch.zeros(shape))
    assert str(error.value).endswith(str(shape))
