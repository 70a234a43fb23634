"""A classifier that learns from a teacher by knowledge distillation."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel, initialize
from torch import Tensor, nn

from ..registry import MODELS
from .arguments import PRETRAINED


def nkd_loss(
    student: Tensor, teacher: Tensor, target: Tensor, gamma: float = 1.5, temperature: float = 1.0
) -> Tensor:
    """Compute the loss of normalised knowledge distillation.

    S and T are the softmax outputs of student and teacher, t is the target class, and N(.) is the
    softmax with temperature ``l`` over all other classes::

        L = -T_t log S_t  -  gamma l^2 sum_{i != t} N(T)_i log N(S)_i

    It is added to the student's own loss.

    Source: Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified
    Approach with Normalized Loss and Customized Soft Labels", ICCV 2023. Huang et al., "Are Large
    Kernels Better Teachers than Transformers for ConvNets?", ICML 2023, use it to train ConvNeXt
    from SLaK.

    Args:
        student (Tensor): Logits of shape (N, C), C at least 2.
        teacher (Tensor): Logits of shape (N, C). They receive no gradient.
        target (Tensor): Classes of shape (N,), or soft labels of shape (N, C), such as those of
            Mixup; the class with the largest share is then the target.
        gamma (float): Weight of the second term.
        temperature (float): l.

    Returns:
        Tensor: The loss, a scalar, averaged over the batch.
    """
    teacher = teacher.detach()
    if target.dim() == 2:
        target = target.argmax(1)
    target = target.reshape(-1, 1)
    log_target = F.log_softmax(student, 1).gather(1, target)
    target_loss = -(F.softmax(teacher, 1).gather(1, target) * log_target).sum(1)
    classes = torch.arange(student.shape[1], device=student.device)
    others = (classes != target).nonzero()[:, 1].reshape(len(student), -1)
    log_student = F.log_softmax(student.gather(1, others) / temperature, 1)
    soft_teacher = F.softmax(teacher.gather(1, others) / temperature, 1)
    other_loss = -(soft_teacher * log_student).sum(1)
    return (target_loss + gamma * temperature**2 * other_loss).mean()


@MODELS.register_module()
class DistilledClassifier(BaseModel):
    """Train any MMPretrain classifier from a teacher by normalised knowledge distillation.

    The loss is the loss of the student plus ``weight`` times :func:`nkd_loss`. The teacher sees the
    same batch as the student, with Mixup and CutMix. It runs in evaluation mode without gradients,
    and checkpoints do not contain it. Only the student is tested.

    Args:
        student (dict): Config of a classifier of MMPretrain.
        teacher (dict): Config of a SLaK classifier with the same classes.
        teacher_checkpoint (str): Checkpoint of the teacher, of this package or of the authors.
        gamma (float): See :func:`nkd_loss`.
        temperature (float): See :func:`nkd_loss`.
        weight (float): Weight of :func:`nkd_loss`.
        data_preprocessor (dict, optional): The data preprocessor; MMEngine's runner passes it.
        init_cfg (dict, optional): Initialisation of this module; the student has an ``init_cfg`` of
            its own.

    Raises:
        ValueError: If weight, gamma or temperature is out of range, or if the checkpoint of the
            teacher is missing or does not fit it.
    """

    def __init__(
        self,
        student: dict,
        teacher: dict,
        teacher_checkpoint: str | None = None,
        gamma: float = 1.5,
        temperature: float = 1.0,
        weight: float = 1.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        if weight < 0 or gamma < 0 or temperature <= 0:
            raise ValueError(
                'model.weight and model.gamma must be 0 or positive, model.temperature positive, '
                f'got {weight!r}, {gamma!r} and {temperature!r}'
            )
        student = dict(student)
        if isinstance(data_preprocessor, dict):
            student['data_preprocessor'] = dict(data_preprocessor)
        student = MODELS.build(student)
        super().__init__(student.data_preprocessor, init_cfg)
        self.student = student
        self._teacher = _Outside(MODELS.build(dict(teacher)).eval().requires_grad_(False))
        self.teacher_checkpoint = teacher_checkpoint
        self.gamma, self.temperature, self.weight = gamma, temperature, weight

    @property
    def teacher(self) -> nn.Module:
        """The teacher, in evaluation mode. It is not part of the state of this module."""
        return self._teacher.module

    def init_weights(self) -> None:
        """Initialise the student and load the teacher."""
        super().init_weights()
        if self.teacher_checkpoint is None:
            raise ValueError(
                'model.teacher_checkpoint must be the checkpoint of the teacher, such as '
                'averaged.pth of its training, got None'
            )
        initialize(self.teacher, dict(type=PRETRAINED, checkpoint=self.teacher_checkpoint))

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """Run the student and, in mode ``loss``, also the teacher.

        Args:
            inputs (Tensor): Images of shape (N, C, H, W).
            data_samples (list, optional): Labels of the N images.
            mode (str): ``loss``, ``predict`` or ``tensor``.

        Returns:
            dict, list or Tensor: Losses, predictions or logits of shape (N, classes).
        """
        if mode != 'loss':
            return self.student(inputs, data_samples, mode)
        features = self.student.extract_feat(inputs)
        losses = self.student.head.loss(features, data_samples)
        with torch.no_grad():
            soft = self.teacher.to(inputs.device)(inputs, mode='tensor')
        if 'gt_score' in data_samples[0]:
            target = torch.stack([sample.gt_score for sample in data_samples])
        else:
            target = torch.cat([sample.gt_label for sample in data_samples])
        losses['loss_nkd'] = self.weight * nkd_loss(
            self.student.head(features), soft, target, self.gamma, self.temperature
        )
        return losses


class _Outside:
    """Keep a module out of its parent: it is not trained, averaged, copied or saved."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __deepcopy__(self, memo) -> '_Outside':
        return self
