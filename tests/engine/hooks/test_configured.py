"""Finding hooks in configs."""

from mmengine.config import Config

from mmslak.engine import ThroughputHook
from mmslak.engine.hooks.configured import configured_hooks


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
