"""What larger kernels cost, full and decomposed: figure 4 of the paper."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from mmengine.config import Config
from torch import Tensor

from ..ops import decomposed_conv2d, depthwise_conv2d
from .complexity import config_costs
from .latency import measure_in_turns
from .paper import SPARSITY

#: Kernel sizes in the claim of section 6.2: decomposed kernels of the first size cost less than
#: full kernels of the second size.
CLAIM = (151, 51)
SMALL_KERNEL = 5
#: name -> mode of the blocks, and sparsity.
VARIANTS = {
    'full': ('naive', 0.0),
    'decomposed': ('decomposed', 0.0),
    'decomposed, sparse': ('decomposed', SPARSITY),
}

#: variant -> parameters in millions, and multiply-adds in G.
Costs = dict[str, tuple[float, float]]


def network_costs(cfg: Config, kernel: int, size: int) -> Costs:
    """Count ConvNeXt-T with the same kernel size in all stages (figure 4, left).

    Args:
        cfg (Config): Config of SLaK-T as a classifier.
        kernel (int): Kernel size M, odd.
        size (int): Side of the image in pixels.

    Returns:
        dict: variant -> parameters in millions, and multiply-adds in G.
    """
    costs = {}
    for name, (mode, sparsity) in VARIANTS.items():
        variant = Config(cfg.to_dict())
        variant.merge_from_dict(
            {
                'model.backbone.mode': mode,
                'model.backbone.kernel_sizes': (kernel,) * 4,
                'model.backbone.small_kernel': SMALL_KERNEL,
                'model.backbone.width_factor': 1.0,
                'model.head.in_channels': 768,
            }
        )
        counts = config_costs(variant, (size, size), sparsity)
        which = 'sparse' if sparsity else 'dense'
        costs[name] = (counts[f'params_{which}'] / 1e6, counts[f'macs_{which}'] / 1e9)
    return costs


def claim_sentence(costs: Mapping[int, Costs]) -> str:
    """Say whether the paper's claim on parameters and multiply-adds holds, with the numbers.

    Args:
        costs (Mapping[int, Costs]): For each kernel size, at least those in :data:`CLAIM`.
    """
    large, small = CLAIM
    full = costs[small]['full']
    parts, holds = [], True
    for name in list(VARIANTS)[1:]:
        ours = costs[large][name]
        holds = holds and ours[0] < full[0] and ours[1] < full[1]
        parts.append(f'{name} {ours[0]:.1f} M parameters and {ours[1]:.2f} G multiply-adds')
    verdict = 'holds' if holds else 'does not hold'
    return (
        f"The paper's claim (section 6.2) that ConvNeXt-T with {large} x {large} kernels, "
        f'decomposed, costs less than with full {small} x {small} kernels {verdict}: '
        f'{"; ".join(parts)}; full {full[0]:.1f} M and {full[1]:.2f} G.'
    )


@dataclass(frozen=True)
class Latency:
    """Median time of one forward pass, in milliseconds.

    Args:
        implementation (str): One of :data:`mmslak.ops.IMPLEMENTATIONS`.
        resolution (int): Side R of the feature map.
        kernel (int): Kernel size M.
        full (float): Milliseconds of an M x M kernel.
        decomposed (float): Milliseconds of an M x N and an N x M kernel.
    """

    implementation: str
    resolution: int
    kernel: int
    full: float
    decomposed: float


def operators(
    channels: int, kernel: int, device: str, implementation: str
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Make the full and the decomposed operator with random weights.

    The decomposed operator is the sum of an M x N and an N x M kernel, because the N x N kernel
    can be merged into them.

    Returns:
        tuple: Two functions of a feature map of shape (N, C, R, R) to one of the same shape.
    """
    full, tall, wide = (
        torch.randn(channels, 1, *shape, device=device) / kernel
        for shape in ((kernel, kernel), (kernel, SMALL_KERNEL), (SMALL_KERNEL, kernel))
    )

    def run_full(x: Tensor) -> Tensor:
        return depthwise_conv2d(x, full, implementation=implementation)

    def run_decomposed(x: Tensor) -> Tensor:
        return decomposed_conv2d(x, tall, wide, implementation=implementation)

    return run_full, run_decomposed


def measure_latency(
    cases: Sequence[tuple[int, int]],
    implementations: Sequence[str],
    batch: int,
    channels: int,
    device: str = 'cpu',
    repeats: int = 10,
    progress: Callable[[str], object] = lambda case: None,
) -> list[Latency]:
    """Time the full and the decomposed operator in float32 (figure 4, right).

    Args:
        cases (Sequence[tuple[int, int]]): Resolutions R and kernel sizes M.
        implementations (Sequence[str]): Of :data:`mmslak.ops.IMPLEMENTATIONS`.
        batch, channels (int): N and C of the feature maps, of shape (N, C, R, R).
        device (str): ``cpu`` or ``cuda``.
        repeats (int): See :func:`mmslak.analysis.latency.measure_in_turns`.
        progress (Callable): Called with the name of the case after each run.

    Returns:
        list[Latency]: One for each case and implementation.
    """
    torch.manual_seed(0)
    # With TF32 it would not be float32, in which the paper measured.
    torch.backends.cudnn.allow_tf32 = False
    found = []
    with torch.inference_mode():
        for resolution, kernel in cases:
            x = torch.randn(batch, channels, resolution, resolution, device=device)
            runs = {}
            for name in implementations:
                full, decomposed = operators(channels, kernel, device, name)
                runs[name, 'full'] = lambda full=full, x=x: full(x)
                runs[name, 'decomposed'] = lambda decomposed=decomposed, x=x: decomposed(x)
            case = f'{resolution} x {resolution}, M {kernel}'
            costs = measure_in_turns(
                {key: lambda run=run: run for key, run in runs.items()},
                device,
                repeats,
                lambda case=case: progress(case),
            )
            found += [
                Latency(
                    name, resolution, kernel, costs[name, 'full'].ms, costs[name, 'decomposed'].ms
                )
                for name in implementations
            ]
    return found


def latency_sentences(found: Sequence[Latency]) -> list[str]:
    """Say for each implementation whether the paper's claim on latency holds, with the numbers."""
    sentences = []
    for implementation in dict.fromkeys(item.implementation for item in found):
        rows = [i for i in found if i.implementation == implementation and i.kernel >= CLAIM[1]]
        if not rows:
            continue
        ratios = [item.full / item.decomposed for item in rows]
        verdict = 'holds' if min(ratios) > 4 else 'does not hold everywhere'
        sentences.append(
            f"The paper's claim that decomposed kernels are more than 4 times as fast {verdict} "
            f'with {implementation!r} for kernels of {CLAIM[1]} and more: they are '
            f'{min(ratios):.2f} to {max(ratios):.2f} times as fast as full kernels.'
        )
    return sentences
