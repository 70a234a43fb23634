"""Parameter groups with MMEngine's rules."""

import pytest
from helpers import ROOT
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper

from mmslak.cli.config import load_config
from mmslak.models import build_model


@pytest.fixture
def logged(monkeypatch):
    """Collect what MMEngine's logger prints."""
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'callHandlers', lambda record: lines.append(record.getMessage()))
    monkeypatch.setattr(logger, 'level', 20)
    return lines


def settings_by_name(model, settings):
    """Return learning rate and weight decay of each parameter, and the number of groups."""
    wrapper = build_optim_wrapper(model, settings)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = wrapper.optimizer.param_groups
    found = {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in groups
        for p in group['params']
    }
    assert sum(len(group['params']) for group in groups) == len(found)
    return found, len(groups)


@pytest.mark.parametrize(
    ('toolbox', 'path', 'options', 'groups'),
    [
        ('mmpretrain', 'sample/slak_nano_in1k', {}, 2),
        # Its position biases are matrices without weight decay.
        ('mmpretrain', 'baselines/swin_t_in1k', {}, 3),
        (
            'mmseg',
            'upernet_slak_t_80k_ade20k',
            {
                'model.backbone.arch': 'nano',
                'model.decode_head.in_channels': [20, 41, 83, 166],
                'model.auxiliary_head.in_channels': 83,
            },
            2,
        ),
    ],
)
def test_settings_are_mmengines(toolbox, path, options, groups, logged):
    """Every parameter has the same settings, in few groups and with a short log."""
    pytest.importorskip(toolbox)
    cfg = load_config(ROOT / f'configs/{path}.py', options)
    model = build_model(cfg)
    logged.clear()
    ours, count = settings_by_name(model, cfg.optim_wrapper)
    assert count == groups
    assert not [line for line in logged if line.startswith('paramwise_options')]
    # Other tests may have left loggers that print more.
    (table,) = [line for line in logged if line.startswith('Parameter groups')]
    assert len(table.splitlines()) < 12
    theirs, count = settings_by_name(
        model, dict(cfg.optim_wrapper, constructor='DefaultOptimWrapperConstructor')
    )
    assert ours == theirs
    assert count == len(theirs)
    # The filter of the log is removed.
    assert len([line for line in logged if line.startswith('paramwise_options')]) > 50
