"""The hook in MMEngine's loops: exact counts, exact resuming, averaged models, fine-tuning."""

import re

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS
from torch import nn

import mmslak
from mmslak.checkpoints import SPARSITY_STATE
from mmslak.engine.runner import Runner
from mmslak.sparsity import unpack_masks

ARCH = dict(depths=(1, 1, 1, 1), widths=(8, 8, 12, 16))

SGD = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))


@MODELS.register_module(force=True)
class SmallClassifier(BaseModel):
    """A SLaK with a linear head."""

    def __init__(self, arch=ARCH, **backbone):
        super().__init__()
        self.backbone = mmslak.models.SLaK(
            arch, (7, 7, 7, 5), 3, out_indices=-1, gap_before_final_norm=True,
            layer_scale_init_value=1.0, drop_path_rate=0.2, **backbone,
        )  # fmt: skip
        self.head = nn.Linear(self.backbone.widths[-1], 4)

    def forward(self, inputs, labels, mode='tensor'):
        scores = self.head(self.backbone(inputs)[-1])
        return dict(loss=nn.functional.cross_entropy(scores, labels)) if mode == 'loss' else scores


@DATASETS.register_module(force=True)
class RandomImages(torch.utils.data.Dataset):
    """Images with noise that differs each time an image is read."""

    def __len__(self):
        return 16

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        # The noise stands for an augmentation: it comes from the global random generator.
        image = torch.randn(3, 32, 32, generator=generator) + 0.1 * torch.randn(3, 32, 32)
        return dict(inputs=image, labels=index % 4)


def train(
    work_dir, iters=12, resume=False, hooks=(), optim=None, model=None, load=None, **sparsity
):
    """Train a small model as tools/train.py does, and return the runner."""
    update = dict(every=3, rate=0.4, rate_min=0.1)
    hook = dict(type='mmslak.DynamicSparsityHook', allocation='erk', update=update)
    runner = Runner(
        model=dict(type='SmallClassifier', **(model or {})),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            dataset=dict(type='RandomImages'),
            sampler=dict(type='InfiniteSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=iters),
        optim_wrapper=dict(
            dict(optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.1)), **(optim or {})
        ),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False),
            plain=dict(type='mmslak.PlainCheckpointHook'),
            exact_resume=dict(type='mmslak.ExactResumeHook'),
        ),
        custom_hooks=[*hooks, dict(hook, **sparsity)],
        log_processor=dict(by_epoch=False),
        log_level='ERROR',
        randomness=dict(seed=1),
        resume=resume,
        load_from=load,
        experiment_name=f'{work_dir.name}-{iters}-{resume}',
        default_scope='mmengine',
    )
    runner.train()
    return runner


def hook_of(runner):
    return next(h for h in runner.hooks if type(h).__name__ == 'DynamicSparsityHook')


def zeros(model):
    return {n: p == 0 for n, p in model.named_parameters() if p.ndim > 1}


def total(model):
    weights = [p for n, p in model.named_parameters() if p.ndim > 1]
    return sum(p.numel() for p in weights)


@pytest.mark.parametrize(
    ('optim', 'steps'),
    [
        (dict(), 12),
        (dict(clip_grad=dict(max_norm=0.1)), 12),
        (dict(accumulative_counts=2), 6),
        (dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.01)), 12),
        (dict(type='mmslak.AmpOptimWrapper', dtype='bfloat16'), 12),
    ],
)
def test_sparsity_is_exact(tmp_path, optim, steps):
    runner = train(tmp_path, optim=optim)
    dynamics = hook_of(runner).dynamics
    assert dynamics.steps == steps
    masked = dynamics.masks
    assert masked.numel == total(runner.model)
    assert masked.active == round(0.6 * masked.numel)
    state = runner.optim_wrapper.optimizer.state
    for name, parameter in masked.parameters.items():
        assert (parameter[~masked[name]] == 0).all(), name
        for key, moment in state[parameter].items():
            if moment.shape == parameter.shape:
                assert (moment[~masked[name]] == 0).all(), (name, key)
    # There are updates after steps 3, 6 and 9 of 12 optimiser steps, or after step 3 of 6.
    assert dynamics.explored > 0.6
    assert dynamics.total_steps == steps


def test_gradients_are_masked_before_clipping(tmp_path, monkeypatch):
    clipped = []
    clip = torch.nn.utils.clip_grad_norm_

    def watch(parameters, **kwargs):
        parameters = list(parameters)
        clipped.append([(p, p.grad.clone()) for p in parameters])
        return clip(parameters, **kwargs)

    monkeypatch.setattr(torch.nn.utils, 'clip_grad_norm_', watch)
    runner = train(tmp_path, optim=dict(clip_grad=dict(max_norm=0.1)), update=dict(every=100))
    masks = hook_of(runner).dynamics.masks
    names = {id(p): n for n, p in masks.parameters.items()}
    assert len(clipped) == 12
    for gradients in clipped:
        for parameter, gradient in gradients:
            if id(parameter) in names:
                assert (gradient[~masks[names[id(parameter)]]] == 0).all()


@pytest.mark.parametrize('grow', ['random', 'gradient', 'momentum'])
@pytest.mark.parametrize('interrupted_at', [8, 9])
def test_resumed_training_is_bitwise_equal(tmp_path, grow, interrupted_at):
    """Interrupted between two updates, and right after one."""
    update = dict(every=3, rate=0.4, rate_min=0.1, grow=grow)
    # The rate depends on the length of the training, so the first run must be interrupted.
    stop = dict(type='StopAt', at=interrupted_at)
    train(tmp_path / 'whole', update=update)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / 'resumed', update=update, hooks=[stop])
    train(tmp_path / 'resumed', update=update, resume=True)
    a, b = (
        torch.load(tmp_path / name / 'iter_12.pth', weights_only=True)
        for name in ('whole', 'resumed')
    )
    for name, value in a['state_dict'].items():
        assert torch.equal(value, b['state_dict'][name]), name
    for index, moments in a['optimizer']['state'].items():
        for key, value in moments.items():
            assert torch.equal(value, b['optimizer']['state'][index][key])
    assert a[SPARSITY_STATE]['steps'] == b[SPARSITY_STATE]['steps'] == 12
    masks, resumed = unpack_masks(a[SPARSITY_STATE]), unpack_masks(b[SPARSITY_STATE])
    assert all(torch.equal(mask, resumed[name]) for name, mask in masks.items())
    for key in ('explored', 'averages'):
        assert all(
            torch.equal(v, b[SPARSITY_STATE][key][n]) for n, v in a[SPARSITY_STATE][key].items()
        )


@HOOKS.register_module(force=True)
class StopAt(Hook):
    """Interrupt the training after an iteration."""

    priority = 'LOWEST'

    def __init__(self, at):
        self.at = at

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.at:
            raise KeyboardInterrupt


def test_averaged_model_is_exactly_as_sparse(tmp_path):
    runner = train(tmp_path, hooks=[dict(type='EMAHook', momentum=0.2)], iters=10)
    ema = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook').ema_model.module
    masks = hook_of(runner).dynamics.masks
    average = dict(ema.named_parameters())
    # Weights that have just grown are zero in both models.
    for name, parameter in masks.parameters.items():
        assert torch.equal(average[name] != 0, parameter != 0), name
    assert all((average[n][~masks[n]] == 0).all() for n in masks.parameters)
    assert any(not torch.equal(average[n], p) for n, p in masks.parameters.items())


def test_snip_allocation(tmp_path):
    snip = train(tmp_path / 'snip', allocation='snip', iters=4)
    masks = hook_of(snip).dynamics.masks
    assert masks.active == round(0.6 * masks.numel)
    densities = {round(masks.density(n), 3) for n in masks.parameters}
    assert len(densities) > 3


def test_snip_uses_the_precision_and_the_batches_of_the_training(tmp_path, monkeypatch):
    seen = []
    forward = SmallClassifier.forward

    def watched(self, inputs, labels, mode='tensor'):
        seen.append((len(inputs), torch.is_autocast_enabled('cpu')))
        return forward(self, inputs, labels, mode)

    monkeypatch.setattr(SmallClassifier, 'forward', watched)
    optim = dict(type='mmslak.AmpOptimWrapper', dtype='bfloat16', accumulative_counts=2)
    train(tmp_path, allocation='snip', iters=2, optim=optim)
    # Two batches for the scores and two iterations.
    assert seen == [(4, True)] * 4


@pytest.mark.parametrize(
    'structure',
    ['neuron', 'tap', '2:4', dict(linear='neuron', large_kernels='tap', others='dense')],
    ids=str,
)
def test_structures_with_averages_mixed_precision_and_accumulation(tmp_path, structure):
    settings = dict(
        iters=10,
        model=dict(arch='nano'),
        structure=structure,
        allocation='snip',
        update=dict(every=2, rate=0.4, moments='layer'),
        optim=dict(type='mmslak.AmpOptimWrapper', dtype='bfloat16', accumulative_counts=2),
    )
    average = dict(type='EMAHook', momentum=0.2)
    runner = train(tmp_path / 'whole', hooks=[average], **settings)
    masks = hook_of(runner).dynamics.masks
    # Layers with 2:4 sparsity are half dense, whatever the sparsity is.
    if structure != '2:4':
        unit = 2 * runner.model.backbone.widths[0]  # the smallest neuron
        assert 0 <= round(0.6 * masks.numel) - masks.active < unit
    ema = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook').ema_model.module
    for model in (runner.model, ema):
        weights = dict(model.named_parameters())
        assert all(not weights[name][~masks[name]].any() for name in masks.masked)
        if 'neuron' in str(structure):
            count = 0
            for block in (b for stage in model.backbone.stages for b in stage):
                dead = (block.pwconv1.weight == 0).all(1)
                assert not block.pwconv2.weight[:, dead].any()
                assert not block.pwconv1.bias[dead].any()
                count += int(dead.sum())
            assert count
    # Interrupted right after an update.
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / 'resumed', hooks=[average, dict(type='StopAt', at=8)], **settings)
    train(tmp_path / 'resumed', hooks=[average], resume=True, **settings)
    a, b = (
        torch.load(tmp_path / name / 'iter_10.pth', weights_only=True)
        for name in ('whole', 'resumed')
    )
    for part in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(value, b[part][name]) for name, value in a[part].items())
    packed = (x[SPARSITY_STATE]['packed'] for x in (a, b))
    assert all(torch.equal(*pair) for pair in zip(*(p.values() for p in packed), strict=True))


def test_masked_neurons_are_left_out_of_the_products(tmp_path, monkeypatch):
    # Two updates; the weights change after the second one.
    settings = dict(iters=8, structure='neuron', allocation='uniform', optim=SGD)
    runner = train(tmp_path / 'left_out', **settings)
    masks = hook_of(runner).dynamics.masks
    for name, block in runner.model.named_modules():
        if isinstance(block, mmslak.models.SLaKBlock):
            active = masks[f'{name}.pwconv1.weight'].any(1)
            assert 0 < active.count_nonzero() < len(active)
            assert torch.equal(block.active_units, active.nonzero().flatten())
    monkeypatch.setattr(mmslak.models.SLaK, 'leave_out_zero_units', lambda *_: None)
    whole = train(tmp_path / 'whole', **settings)
    assert all(
        block.active_units is None
        for block in whole.model.modules()
        if isinstance(block, mmslak.models.SLaKBlock)
    )
    for a, b in zip(runner.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_fixed_masks_of_neurons_are_recovered_from_weights(tmp_path):
    masks = hook_of(train(tmp_path / 'a', iters=4, structure='neuron')).dynamics.masks
    weights = str(tmp_path / 'weights.pth')
    saved = torch.load(tmp_path / 'a' / 'iter_4.pth', weights_only=True)
    torch.save(dict(state_dict=saved['state_dict']), weights)
    runner = train(tmp_path / 'b', iters=2, mode='fixed', structure='neuron', load=weights)
    found = hook_of(runner).dynamics.masks
    # Single weights that have grown can still be zero, but the first layer of a neuron is not.
    neurons = [name for name in masks.masked if 'pwconv' in name]
    assert neurons and all(torch.equal(found[name], masks[name]) for name in neurons)


def test_training_is_reproducible(tmp_path):
    runs = [train(tmp_path / d, mode='off', iters=1) for d in ('a', 'b')]
    states = [r.model.state_dict() for r in runs]
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_targets_are_the_backbone_and_the_head_of_a_classifier(tmp_path):
    runner = train(tmp_path, iters=1)
    assert set(hook_of(runner).dynamics.masks.parameters) == {
        n for n, p in runner.model.named_parameters() if p.ndim > 1
    }
    runner = train(tmp_path, iters=1, targets='large_kernels')
    assert set(hook_of(runner).dynamics.masks.parameters) == {
        f'backbone.stages.{i}.0.mixing.{b}.conv.weight' for i in range(3) for b in ('tall', 'wide')
    }
    runner = train(tmp_path, iters=1, targets=dict(include=['head.*']))
    assert set(hook_of(runner).dynamics.masks.parameters) == {'head.weight'}


def test_fine_tuning_keeps_the_masks(tmp_path):
    pretrained = train(tmp_path / 'pretrain', iters=9)
    masks = hook_of(pretrained).dynamics.masks
    checkpoint = str(tmp_path / 'pretrain/iter_9.pth')

    def check(runner, exact=True):
        found = hook_of(runner).dynamics.masks
        assert found.masked
        for name in found.masked:
            if exact:
                assert torch.equal(found[name], masks[name])
            weights = dict(runner.model.named_parameters())[name]
            assert (weights[~found[name]] == 0).all()
            assert (weights[~masks[name]] == 0).all()

    check(train(tmp_path / 'a', mode='fixed', load=checkpoint, iters=5))
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')
    check(train(tmp_path / 'b', mode='fixed', model=dict(init_cfg=init_cfg), iters=5))
    # Without saved masks, the masks are recovered from zero weights.
    weights = str(tmp_path / 'weights.pth')
    torch.save(dict(state_dict=torch.load(checkpoint, weights_only=True)['state_dict']), weights)
    check(train(tmp_path / 'c', mode='fixed', load=weights, iters=5), exact=False)
    runner = train(tmp_path / 'd', init='from_weights', load=weights, iters=5)
    found = hook_of(runner).dynamics.masks
    assert found.active == sum(int((~z).sum()) for z in zeros_of(weights, found).values())
    # With mode='off' the weights become dense, as in the authors' code.
    runner = train(tmp_path / 'e', mode='off', load=checkpoint, iters=5)
    assert hook_of(runner).dynamics is None
    assert sum(int(z.sum()) for z in zeros(runner.model).values()) < 0.1 * total(runner.model)
    # A dense network has no masks to keep.
    assert hook_of(train(tmp_path / 'f', mode='fixed', iters=2)).dynamics is None


def test_dynamic_training_starts_with_the_masks_of_its_checkpoint(tmp_path):
    """Exactly: a weight that has just grown is zero, and still active."""
    masks = hook_of(train(tmp_path / 'a', iters=9)).dynamics.masks
    checkpoint = str(tmp_path / 'a' / 'iter_9.pth')
    # No update of the masks in two iterations.
    for work_dir, settings in (('b', {}), ('c', dict(init='from_weights'))):
        runner = train(tmp_path / work_dir, load=checkpoint, iters=2, **settings)
        found = hook_of(runner).dynamics.masks
        assert found.masked == masks.masked
        assert all(torch.equal(found[name], masks[name]) for name in masks.masked)
    runner = train(tmp_path / 'd', load=checkpoint, iters=2, init='random', seed=7)
    found = hook_of(runner).dynamics.masks
    assert not all(torch.equal(found[name], masks[name]) for name in masks.masked)


@pytest.mark.parametrize('resume', [False, True])
def test_masks_of_init_cfg_are_not_applied_to_the_weights_of_another_file(tmp_path, resume):
    train(tmp_path / 'sparse', iters=3)
    sparse = str(tmp_path / 'sparse' / 'iter_3.pth')
    init_cfg = dict(type='Pretrained', checkpoint=sparse, prefix='backbone.')
    work_dir = tmp_path / 'dense'
    train(work_dir, iters=2, mode='off')
    other = dict(resume=True) if resume else dict(load=str(work_dir / 'iter_2.pth'))
    work_dir = work_dir if resume else tmp_path / 'other'
    runner = train(work_dir, iters=4, mode='fixed', model=dict(init_cfg=init_cfg), **other)
    assert sum(int(z.sum()) for z in zeros(runner.model).values()) < 0.1 * total(runner.model)


@pytest.mark.parametrize(
    ('names', 'prefix'),
    [('', {}), ('', dict(prefix='')), ('', dict(prefix=None)), ('backbone.', dict(prefix=None)),
     ('student.net.', dict(prefix='student.net'))],
)  # fmt: skip
def test_masks_of_a_backbone_with_another_prefix_are_used(tmp_path, names, prefix):
    """Exactly, because zeros of the weights would not show which weights have just grown."""
    masks = hook_of(train(tmp_path / 'a', iters=9)).dynamics.masks
    saved = torch.load(tmp_path / 'a' / 'iter_9.pth', weights_only=True)

    def renamed(values):
        return {
            names + name.removeprefix('backbone.'): value
            for name, value in values.items()
            if name.startswith('backbone.')
        }

    state = saved[SPARSITY_STATE]
    state.update(shapes=renamed(state['shapes']), packed=renamed(state['packed']))
    file = str(tmp_path / 'renamed.pth')
    torch.save({'state_dict': renamed(saved['state_dict']), SPARSITY_STATE: state}, file)
    init_cfg = dict(type='Pretrained', checkpoint=file, **prefix)
    runner = train(tmp_path / 'b', mode='fixed', model=dict(init_cfg=init_cfg), iters=2)
    found = hook_of(runner).dynamics.masks
    compared = [name for name in masks.masked if name.startswith('backbone.')]
    assert compared and all(torch.equal(masks[name], found[name]) for name in compared)


def test_masks_that_are_not_used_are_named(tmp_path):
    train(tmp_path / 'a', iters=2)
    saved = torch.load(tmp_path / 'a' / 'iter_2.pth', weights_only=True)
    state = saved[SPARSITY_STATE]
    renamed, left_out = list(state['packed'])[:2]
    for part in ('shapes', 'packed'):
        state[part][f'student.{renamed}'] = state[part].pop(renamed)
    torch.save(saved, tmp_path / 'renamed.pth')
    lines = []
    train(
        tmp_path / 'b', mode='fixed', load=str(tmp_path / 'renamed.pth'), iters=2,
        targets=dict(include=['*'], exclude=[left_out]),
        hooks=[dict(type='Collect', lines=lines)],
    )  # fmt: skip
    count = len(state['packed'])
    assert lines == [
        f'Sparsity: 2 of the {count} masks in the checkpoint are not used: {left_out} (targets '
        'does not select it, so that it is trained densely), '
        f'student.{renamed} (the model has no such weight)'
    ]


@HOOKS.register_module(force=True)
class Collect(Hook):
    """Collect the warnings about masks."""

    def __init__(self, lines):
        self.lines = lines

    def before_run(self, runner):
        warning = runner.logger.warning

        def collect(text, *args, **kwargs):
            if 'Sparsity' in text:
                self.lines.append(text)
            warning(text, *args, **kwargs)

        runner.logger.warning = collect


def zeros_of(path, masks):
    """Return which weights in a file are zero, for the weights that ``masks`` selects."""
    state = torch.load(path, weights_only=True)['state_dict']
    return {n: state[n] == 0 for n in masks.parameters}


def test_resuming_with_other_settings_names_the_difference(tmp_path):
    train(tmp_path, iters=4)
    with pytest.raises(ValueError, match=r'sparsity is 0\.4 in the saved state and 0\.5 here'):
        train(tmp_path, iters=6, resume=True, sparsity=0.5)
    with pytest.raises(ValueError, match=r'selected only in the saved state: backbone'):
        train(tmp_path, iters=6, resume=True, targets='large_kernels')


def test_sparsities_by_pattern_are_shares_of_masked_weights(tmp_path):
    """The example of docs/sparsity.md, as MMEngine reads it from a config, and resumed."""
    line = next(
        line for line in (ROOT / 'docs/sparsity.md').read_text().splitlines()
        if '| set the sparsity of layers by name |' in line
    )  # fmt: skip
    (example,) = re.findall('`(allocation=.*)`', line)
    settings = Config.fromstring(f'settings = dict({example})', '.py').settings
    train(tmp_path, iters=1, sparsity=0.4, **settings)
    saved = torch.load(tmp_path / 'iter_1.pth', weights_only=True)
    for name, mask in unpack_masks(saved[SPARSITY_STATE]).items():
        stage = name.removeprefix('backbone.stages.')[0]
        masked = {'0': 0.2, '3': 0.5}.get(stage, 0.4)
        assert (~mask).sum().item() == mask.numel() - round((1 - masked) * mask.numel()), name
    train(tmp_path, iters=2, resume=True, sparsity=0.4, **settings)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(mode='static'), ['mode', 'static', 'fixed']),
        (dict(init='zeros'), ['init', 'zeros', 'from_weights']),
        (dict(sparsity=1.2), ['sparsity', '1.2']),
        (dict(allocation='er'), ['allocation', "'er'", 'snip']),
        (dict(allocation={'backbone.*': 0.2}), ['allocation', 'sparsities', 'backbone.*']),
        (dict(update=dict(grow='best')), ['update.grow', 'best', 'gradient']),
        (dict(update=dict(evry=3)), ['evry']),
        (dict(update=dict(moments='mean')), ['update.moments', 'mean', 'layer']),
        (dict(structure='rows'), ['structure', 'rows', 'neuron']),
        (dict(structure=dict(linear='tap')), ["structure['linear']", 'tap', '2:4']),
        (dict(targets=dict(include=['neck.*'])), ['targets.include', 'neck.*']),
        (dict(init='from_weights'), ['from_weights', 'no weight is zero']),
    ],
)
def test_wrong_settings_are_named_before_training(tmp_path, settings, words):
    with pytest.raises(ValueError) as error:
        train(tmp_path, iters=1, **settings)
    for word in words:
        assert word in str(error.value)
