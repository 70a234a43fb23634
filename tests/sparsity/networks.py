"""Small networks, their data and a training step, for the tests of this directory."""

import torch
from torch import nn

OPTIMIZERS = {
    'adamw': lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.3),
    'amsgrad': lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.3, amsgrad=True),
    'sgd': lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
}


def small_network():
    """Return a network for tests that do not train."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 6, (9, 5), groups=6, padding='same'),
        nn.Flatten(),
        nn.Linear(6 * 36, 5),
    )


def network(seed=0):
    """Return a network to train on :func:`batch`."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, (9, 5), groups=8, padding='same'),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def batch(step):
    """Return images (4, 3, 8, 8) and labels of 10 classes that depend only on ``step``."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(4, 3, 8, 8, generator=generator), torch.randint(
        10, (4,), generator=generator
    )


def train_step(model, optimizer, sparsity, step, clip=None):
    """Train on the batch of ``step``, with gradient clipping if ``clip`` is given."""
    images, labels = batch(step)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    sparsity.before_step()
    if clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return sparsity.step(optimizer)
