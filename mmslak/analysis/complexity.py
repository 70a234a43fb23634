"""Parameters and multiply-adds, dense and sparse."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def weight_uses(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Count in how many multiply-adds each weight of a convolution or linear layer takes part.

    A multiply-add counts once, as in the paper, and taps that fall on padding count like all
    others. A layer's multiply-adds are then ``uses * weights``, or ``uses * kept weights``
    where zeros are left out.

    Args:
        model (nn.Module): The network; on the meta device only shapes are computed.
        run (Callable): Runs it on one input, such as ``lambda: model(x)``.

    Returns:
        dict[str, int]: By the name of the weight; layers that did not run are not in it.
    """
    uses: dict[str, int] = {}
    handles = []

    def counter(name: str):
        def count(layer: nn.Module, _, out: Tensor) -> None:
            channel = -1 if isinstance(layer, nn.Linear) else 1
            uses[name] = uses.get(name, 0) + out.numel() // out.shape[channel]

        return count

    for path, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
            name = f'{path}.weight' if path else 'weight'
            handles.append(layer.register_forward_hook(counter(name)))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return uses
