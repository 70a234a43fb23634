"""Hooks of the configs: names, options by name, and configs of users that list custom_hooks."""

from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import MODELS

from mmslak.analysis.complexity import config_sparsity
from mmslak.cli.config import load_config, prepare
from mmslak.engine.runner import Runner

ROOT = Path(__file__).parents[2]
CONFIGS = [p for p in sorted(ROOT.glob('configs/**/*.py')) if '_base_' not in p.parts]
TOOLBOXES = ('mmseg', 'mmdet', 'mmpretrain')
pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')


@pytest.fixture(autouse=True)
def toolboxes():
    for toolbox in TOOLBOXES:
        pytest.importorskip(toolbox)


@MODELS.register_module(force=True)
class HookOrderToy(BaseModel):
    def __init__(self, **kwargs):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, mode='tensor'):
        return self.weight


def hooks_of(path, work_dir, options=None):
    """Return the hooks of the config's runner, in the order in which they run."""
    cfg = load_config(path, options)
    for split in ('train', 'val', 'test'):
        cfg.update({f'{split}_{what}': None for what in ('dataloader', 'cfg', 'evaluator')})
    cfg.update(optim_wrapper=None, param_scheduler=None)
    cfg.model = ConfigDict(type='mmengine.HookOrderToy')
    cfg.update(work_dir=str(work_dir), log_level='ERROR', experiment_name=str(work_dir))
    cfg.get('visualizer', {}).pop('name', None)
    prepare(cfg)
    return Runner.from_cfg(cfg).hooks


def names(hooks):
    return [type(hook).__name__ for hook in hooks]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_hook_has_a_name(path):
    cfg = load_config(path)
    assert 'custom_hooks' not in cfg
    kinds = {name: hook.type.split('.')[-1] for name, hook in cfg.default_hooks.items()}
    expected = dict(
        sparsity='DynamicSparsityHook',
        ema='EMAHook',
        finish_training='FinishTrainingHook',
        cuda_graph='CUDAGraphHook',
    )
    for name, kind in kinds.items():
        assert expected.get(name, kind) == kind
        assert kind not in expected.values() or expected.get(name) == kind


def test_hooks_of_pre_training_run_in_order(tmp_path):
    """The average first; masks before checkpoints; the end of the training after both."""
    assert names(hooks_of(ROOT / 'configs/slak_t_in1k.py', tmp_path)) == [
        'RuntimeInfoHook', 'ExactResumeHook', 'EMAHook', 'IterTimerHook', 'DistSamplerSeedHook',
        'VisualizationHook', 'StepImagesHook', 'LoggerHook', 'ParamSchedulerHook',
        'DynamicSparsityHook', 'NonFiniteHook', 'SafeCheckpointHook', 'PlainCheckpointHook',
        'FinishTrainingHook', 'ThroughputHook', 'StopSignalHook',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('config', 'sparsity'),
    [('slak_t_in1k', 0.4), ('sample/upernet_slak_nano_ade20k', 0.4),
     ('sample/cascade_mask_rcnn_slak_nano_coco', 0.4), ('sample/faster_rcnn_slak_nano_voc', 0.4)],
)  # fmt: skip
def test_sparsity_is_set_by_name(config, sparsity):
    path = ROOT / f'configs/{config}.py'
    hook = load_config(path).default_hooks.sparsity
    assert 'mode' not in hook and config_sparsity(load_config(path)) == sparsity
    assert config_sparsity(load_config(path, {'default_hooks.sparsity.mode': 'off'})) == 0
    assert config_sparsity(load_config(path, {'default_hooks.sparsity.sparsity': 0.8})) == 0.8


def test_settings_of_a_smaller_config_are_merged():
    sparsity = load_config(ROOT / 'configs/slak_s_in1k.py').default_hooks.sparsity
    assert sparsity == dict(
        type='mmslak.DynamicSparsityHook', sparsity=0.4, allocation='snip', targets='all',
        update=dict(every=100, rate=0.3, rate_min=0.005, schedule='cosine', grow='random'),
    )  # fmt: skip


@pytest.mark.parametrize('base', [None, 'configs/upernet_slak_t_ade20k.py'])
def test_custom_hooks_of_a_user_are_used(tmp_path, base):
    """Alone, and instead of the hook of the same type in a config that it inherits from."""
    base = f"_base_ = '{ROOT / base}'\n" if base else 'model = dict()\n'
    hook = "dict(type='mmslak.DynamicSparsityHook', sparsity=0.7)"
    config = tmp_path / 'mine.py'
    config.write_text(
        base + "custom_imports = dict(imports=['mmslak'])\n"
        f"custom_hooks = [{hook}, dict(type='EmptyCacheHook')]\n"
    )
    assert config_sparsity(load_config(config)) == 0.7
    hooks = hooks_of(config, tmp_path / 'work')
    (sparsity,) = (hook for hook in hooks if type(hook).__name__ == 'DynamicSparsityHook')
    assert (sparsity.sparsity, sparsity.mode) == (0.7, 'dynamic')
    assert 'EmptyCacheHook' in names(hooks)
    options = {'custom_hooks.0.mode': 'off'}
    assert config_sparsity(load_config(config, options)) == 0
