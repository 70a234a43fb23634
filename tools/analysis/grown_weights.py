"""Print the lengths of the first steps of a grown weight under Adam, for each rule for its moments.

    python tools/analysis/grown_weights.py

All gradients are 1, so that a weight of a new Adam, and one that was always active, moves by one
learning rate in every step. The weight grows after 1000 steps.
"""

import torch
from torch import nn

from mmslak.sparsity import DynamicSparsity, select_targets

#: Steps before the weight grows, and the steps after it that are printed.
OLD_STEPS, SHOWN = 1000, (1, 10, 100)


def step_lengths(moments: str) -> dict[str, list[float]]:
    """Return the lengths of 100 steps in learning rates.

    Args:
        moments (str): A rule of :class:`mmslak.sparsity.UpdateRule`.

    Returns:
        dict[str, list[float]]: Of the ``grown`` weight and of a ``kept`` one.
    """
    layer = nn.Linear(4, 1, bias=False)
    mask = {'weight': torch.tensor([[True, True, True, False]])}
    update = dict(every=OLD_STEPS, rate=0.34, schedule='constant', moments=moments)
    dynamics = DynamicSparsity(
        select_targets(layer), None, update=update, init=mask, total_steps=OLD_STEPS + 200
    )
    layer.weight.data = torch.tensor([[9.0, 8.0, 7.0, 0.0]])
    optimizer = torch.optim.Adam(layer.parameters(), 1e-3)
    lengths = []
    for step in range(1, OLD_STEPS + 101):
        layer.weight.grad = torch.ones(1, 4)
        dynamics.before_step()
        before = layer.weight.detach().clone()
        optimizer.step()
        if step > OLD_STEPS:
            lengths.append((before - layer.weight.detach()).flatten() / 1e-3)
        dynamics.step(optimizer)
    return {
        'grown': [float(length[3]) for length in lengths],
        'kept': [float(length[0]) for length in lengths],
    }


def main() -> None:
    """Print the table."""
    print('step after it grew   ' + ''.join(f'{step:>8}' for step in SHOWN))
    for moments in ('zero', 'layer'):
        lengths = step_lengths(moments)['grown']
        print(f'moments={moments!r:<13}' + ''.join(f'{lengths[step - 1]:8.2f}' for step in SHOWN))


if __name__ == '__main__':
    main()
