"""Comparing a config with the signatures of registered classes."""

import pytest
from mmengine.config import Config
from mmengine.hooks import EmptyCacheHook
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import MODELS

from mmslak.cli.config_check import arguments_of, check_config, check_options
from mmslak.models import SLaK


class Base:
    def __init__(self, width: int, name: str = 'a', ratio: float | None = None):
        pass


class PassesOn(Base):
    def __init__(self, depth: int, **kwargs):
        super().__init__(**kwargs)


class UsesItself(Base):
    def __init__(self, depth: int, **kwargs):
        self.kwargs = kwargs


class CallsAnother(Base):
    def __init__(self, depth: int, **kwargs):
        super(Base, self).__init__(**kwargs)


def test_arguments_of_a_base_class_are_included():
    assert set(arguments_of(SLaK)) >= {'arch', 'kernel_sizes', 'init_cfg'}
    assert arguments_of(PassesOn) == dict(
        depth=(int,), width=(int,), name=(str,), ratio=(float, type(None))
    )
    assert arguments_of(UsesItself) is None and arguments_of(CallsAnother) is None
    assert set(arguments_of(DefaultOptimWrapperConstructor)) == {
        'optim_wrapper_cfg',
        'paramwise_cfg',
    }


@MODELS.register_module(force=True)
class ChecksOuter:
    def __init__(self, inner: dict):
        self.flag = inner.pop('extra')


MODELS.register_module(module=PassesOn, force=True)
MODELS.register_module(module=UsesItself, force=True)


def check(model, **others):
    cfg = dict(model=model, test_dataloader=dict(batch_size=1), test_cfg={}, test_evaluator={1: 1})
    check_config(Config(dict(cfg, **others)), 'test')


def test_valid_configs_pass():
    check(dict(type='PassesOn', depth=1, width=2))
    check(dict(type=PassesOn, depth=1, width=2, ratio=1))
    check(dict(type='UsesItself', anything=1))
    check(dict(type='mmslak.SLaK', arch='nano', norm_cfg=dict(type='BN', requires_grad=True)))
    # The class around a dict removes an argument.
    check(dict(type='ChecksOuter', inner=dict(type='PassesOn', depth=1, extra=2)))
    check(dict(type='UsesItself', nms=dict(type='nms', iou_threshold=0.5, class_agnostic=True)))
    for hook in ('EmptyCacheHook', EmptyCacheHook):
        check(dict(type='UsesItself'), custom_hooks=[dict(type=hook, priority='LOW')])
    # What the task does not need may be wrong.
    check(dict(type='UsesItself'), train_dataloader=dict(dataset=dict(type='Nothing')))


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (dict(type='PassesOn', widht=2), r"model\.widht: PassesOn has .* 'widht'; .* mean width\?"),
        (dict(type='UsesItself', a=[dict(type=Base, nam='b')]), r'model\.a\.0\.nam: Base has no'),
        (dict(type='PassOn'), r"model\.type: 'PassOn' is not registered; .* mean 'PassesOn'\?"),
        (dict(type='Zzzzzz'), r"'Zzzzzz' is not registered; import it with custom_imports"),
        (dict(type='PassesOn', width='two'), r"model\.width must be of type int, got 'two'"),
        (dict(type='PassesOn', depth=1, extra=2), "has no argument 'extra'"),
    ],
)
def test_mistakes_are_named(model, message):
    with pytest.raises(ValueError, match=message):
        check(model)


def test_options():
    cfg = Config(dict(model=dict(test_cfg=dict(mode='slide')), param_scheduler=[dict(end=1)]))
    check_options(
        cfg,
        {
            'model.test_cfg.stride': 1, 'param_scheduler.0.end': 2, 'randomness.seed': 0,
            'tta_model.type': 'A', 'model.backbone.init_cfg.type': 'Pretrained',
        },
    )  # fmt: skip
    for option, message in {
        'modle.type': 'did you mean model',
        'model.test_cfg.modes': 'did you mean mode',
        'param_scheduler.end': 'a list of 1 entries',
        'model.test_cfg.mode.x': "model.test_cfg.mode is 'slide'",
    }.items():
        with pytest.raises(ValueError, match=message):
            check_options(cfg, {option: 1})
