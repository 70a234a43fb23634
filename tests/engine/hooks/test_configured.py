"""Finding hooks in configs."""

from mmengine.config import Config

from mmslak.engine import ThroughputHook
from mmslak.engine.hooks.configured import (
    configured_hooks,
    remove_disabled_hooks,
    remove_replaced_hooks,
)


def test_hooks_are_found_in_both_places_and_can_be_changed():
    cfg = Config(
        dict(
            default_hooks=dict(ema=dict(type='mmpretrain.EMAHook', a=1), off=None),
            custom_hooks=[dict(type='EMAHook', a=2), dict(type='Other'), dict(type=ThroughputHook)],
        )
    )
    found = configured_hooks(cfg, 'EMAHook')
    assert [hook.a for hook in found] == [1, 2]
    found[0].a = 3
    assert cfg.default_hooks.ema.a == 3
    assert len(configured_hooks(cfg, 'ThroughputHook')) == 1
    assert configured_hooks(Config(), 'EMAHook') == []


def test_a_hook_in_custom_hooks_replaces_the_named_one():
    cfg = Config(
        dict(
            default_hooks=dict(
                sparsity=dict(type='mmslak.DynamicSparsityHook', mode='fixed'),
                ema=dict(type='mmpretrain.EMAHook'),
                checkpoint=dict(type='CheckpointHook'),
                throughput=None,
            ),
            custom_hooks=[dict(type='DynamicSparsityHook'), dict(type='CheckpointHook')],
        )
    )
    remove_replaced_hooks(cfg)
    # Several checkpoint hooks are allowed.
    assert set(cfg.default_hooks) == {'ema', 'checkpoint', 'throughput'}
    assert len(cfg.custom_hooks) == 2
    remove_replaced_hooks(empty := Config())
    assert not empty


def test_disabled_hooks_are_removed():
    hooks = dict(throughput=None, ema=None, checkpoint=None, logger=dict(type='LoggerHook'))
    cfg = Config(dict(default_hooks=hooks))
    remove_disabled_hooks(cfg)
    # MMEngine needs None for its own hooks, because it would register them otherwise.
    assert cfg.default_hooks == dict(checkpoint=None, logger=dict(type='LoggerHook'))
    remove_disabled_hooks(Config())
