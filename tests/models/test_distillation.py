"""Normalised knowledge distillation against its formula, computed class by class."""

import copy
import math

import pytest
import torch

pytest.importorskip('mmpretrain')
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample
from mmpretrain.utils import register_all_modules

from mmslak.checkpoints import CheckpointError
from mmslak.models import nkd_loss


def formula(student, teacher, target, gamma, temperature):
    total = 0.0
    for s, t, label in zip(student.tolist(), teacher.tolist(), target, strict=True):
        shares = [[math.exp(v) for v in logits] for logits in (s, t)]
        soft = [[v / sum(share) for v in share] for share in shares]
        total += -soft[1][label] * math.log(soft[0][label])
        # Softmax over the other classes, with the temperature.
        shares = [
            {i: math.exp(v / temperature) for i, v in enumerate(logits) if i != label}
            for logits in (s, t)
        ]
        for i in shares[0]:
            n_s, n_t = (share[i] / sum(share.values()) for share in shares)
            total += -gamma * temperature**2 * n_t * math.log(n_s)
    return total / len(student)


@pytest.mark.parametrize(('gamma', 'temperature'), [(1.5, 1.0), (0.0, 1.0), (0.7, 3.0)])
def test_loss_equals_the_formula(gamma, temperature):
    torch.manual_seed(0)
    student, teacher = 2 * torch.randn(4, 5, dtype=torch.double), torch.randn(4, 5).double()
    target = torch.tensor([0, 3, 4, 1])
    expected = formula(student, teacher, target.tolist(), gamma, temperature)
    assert nkd_loss(student, teacher, target, gamma, temperature).item() == pytest.approx(expected)
    # The class with the largest share of a mixed label is the target.
    mixed = 0.4 * torch.eye(5)[target.roll(1)] + 0.6 * torch.eye(5)[target]
    assert nkd_loss(student, teacher, mixed, gamma, temperature).item() == pytest.approx(expected)


def test_only_the_student_has_gradients():
    student, teacher = (torch.randn(2, 3, requires_grad=True) for _ in range(2))
    nkd_loss(student, teacher, torch.tensor([0, 2])).backward()
    assert student.grad is not None and teacher.grad is None


def settings(checkpoint, **kwargs):
    head = dict(type='LinearClsHead', num_classes=5)
    return dict(
        dict(
            type='mmslak.DistilledClassifier',
            student=dict(
                type='ImageClassifier',
                backbone=dict(type='ConvNeXt', arch=dict(depths=[1] * 4, channels=[8] * 4)),
                head=dict(head, in_channels=8),
            ),
            teacher=dict(
                type='ImageClassifier',
                backbone=dict(
                    type='mmslak.SLaK', arch='nano', out_indices=(3,), gap_before_final_norm=True
                ),
                head=dict(head, in_channels=166),
            ),
            teacher_checkpoint=checkpoint,
        ),
        **kwargs,
    )


def build(cfg):
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(copy.deepcopy(cfg))


@pytest.fixture
def checkpoint(tmp_path):
    teacher = build(settings(None)).teacher
    teacher.init_weights()
    torch.save(dict(state_dict=teacher.state_dict()), tmp_path / 't.pth')
    return str(tmp_path / 't.pth')


def test_losses_of_student_and_teacher(checkpoint):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = build(settings(checkpoint, weight=2.0))
        model.init_weights()
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    for name, value in model.teacher.state_dict().items():
        assert torch.equal(value, weights[name])
    assert all(name.startswith('student.') for name in model.state_dict())
    assert not any('teacher' in name for name, _ in model.named_parameters())
    assert copy.deepcopy(model).teacher is model.teacher
    model.train()
    assert not model.teacher.training
    images, labels = torch.rand(3, 3, 64, 64), [0, 4, 2]
    samples = [DataSample().set_gt_label(label) for label in labels]
    torch.manual_seed(0)
    losses = model(images, samples, mode='loss')
    logits, soft = model(images), model.teacher(images)
    expected = 2 * formula(logits.detach().double(), soft.double(), labels, 1.5, 1.0)
    assert losses['loss_nkd'].item() == pytest.approx(expected, rel=1e-4)
    assert losses['loss'].item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).item(), rel=1e-4
    )
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad is None for p in model.teacher.parameters())
    assert len(model(images, mode='predict')) == 3


def test_wrong_settings_are_named(checkpoint, tmp_path):
    for kwargs in (dict(weight=-1), dict(temperature=0)):
        with pytest.raises(ValueError, match=r'model\.temperature positive'):
            build(settings(checkpoint, **kwargs))
    with pytest.raises(ValueError, match=r'model\.teacher_checkpoint must be the checkpoint'):
        build(settings(None)).init_weights()
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        build(settings(str(tmp_path / 'none.pth'))).init_weights()
    cfg = settings(checkpoint)
    cfg['teacher']['head']['num_classes'] = 7
    with pytest.raises(CheckpointError, match=r'head\.fc\.weight has shape \(5, 166\)'):
        build(cfg).init_weights()
