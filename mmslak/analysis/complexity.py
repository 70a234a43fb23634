"""Parameters and multiply-adds of networks, dense and sparse."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..engine.hooks.configured import configured_hooks
from ..models import branches_kept_apart, build_model
from ..sparsity import Units, allocate, find_units, select_model_targets


def weight_uses(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Count the multiply-adds that each weight of a convolution or linear layer is used in.

    Each multiply-add counts once, as in the paper, including those on padding. A layer has
    ``uses * weights`` multiply-adds, or ``uses * active weights`` without the masked ones.

    Args:
        model (nn.Module): The network; on the meta device only shapes are computed.
        run (Callable): Runs it on one input, such as ``lambda: model(x)``.

    Returns:
        dict[str, int]: By the name of the weight; without the layers that did not run.
    """
    uses: dict[str, int] = {}
    handles = []

    def counter(name: str):
        def count(layer: nn.Module, inputs: tuple, out: Tensor) -> None:
            # A transposed convolution uses each weight once for every position of its input.
            transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
            positions = inputs[0] if transposed else out
            channel = -1 if isinstance(layer, nn.Linear) else 1
            uses[name] = uses.get(name, 0) + positions.numel() // positions.shape[channel]

        return count

    for path, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
            name = f'{path}.weight' if path else 'weight'
            handles.append(layer.register_forward_hook(counter(name)))
    try:
        # Fused branches do not call the individual layers.
        with torch.no_grad(), branches_kept_apart(model):
            run()
    finally:
        for handle in handles:
            handle.remove()
    return uses


#: Default (height, width) of the image in pixels for each toolbox, as in the paper's tables.
SHAPES = {'mmseg': (512, 2048), 'mmdet': (800, 1280), 'mmpretrain': (224, 224)}
#: Regions per image in the second stage of a detector, for the box heads and for the mask heads.
PROPOSALS, MASK_REGIONS = 1000, 100


def default_shape(cfg: Config) -> tuple[int, int]:
    """Return the height and width in pixels for which a config's model is counted.

    Args:
        cfg (Config): A config of any toolbox.

    Returns:
        tuple[int, int]: Its ``input_size`` if it has one, else the size in the paper's tables.
    """
    if 'input_size' in cfg:
        return (cfg.input_size, cfg.input_size)
    return SHAPES.get(cfg.get('default_scope'), (224, 224))


def format_count(value: float) -> str:
    """Format a number with at least one decimal and at least three significant digits.

    Args:
        value (float): Not negative, such as parameters in millions.

    Returns:
        str: Such as ``957.3``, ``5.22`` or ``0.0312``.
    """
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 1
    return f'{value:.{max(1, decimals)}f}'


def config_sparsity(cfg: Config) -> float:
    """Return the sparsity that a config trains with.

    Args:
        cfg (Config): A config of any of the three toolboxes.

    Returns:
        float: The sparsity of its ``DynamicSparsityHook``; 0 if the hook is off; 0.4, as in the
        paper, if there is no hook or it does not name a sparsity.
    """
    hooks = configured_hooks(cfg, 'DynamicSparsityHook')
    if not hooks:
        return 0.4
    # A hook in custom_hooks comes last, and replaces the one in default_hooks.
    return 0.0 if hooks[-1].get('mode') == 'off' else hooks[-1].get('sparsity', 0.4)


def config_structure(cfg: Config) -> str | dict:
    """Return the structure of the sparsity that a config trains with.

    Args:
        cfg (Config): A config of any of the three toolboxes.

    Returns:
        str or dict: See :class:`mmslak.sparsity.DynamicSparsity`.
    """
    hooks = configured_hooks(cfg, 'DynamicSparsityHook')
    return hooks[-1].get('structure', 'unstructured') if hooks else 'unstructured'


def multiply_adds(run: Callable[[], object]) -> int:
    """Count the multiply-adds of all convolutions and matrix products in a piece of code.

    Unlike :func:`weight_uses` this includes the products of queries, keys and values, and those
    with weights outside of convolutions and linear layers, such as the projections in
    ``nn.MultiheadAttention``. Element-wise products (norms, activations, gates) are not counted,
    as usual in publications.

    Args:
        run (Callable): The code, such as ``lambda: model(x)``; it runs without gradients. On the
            meta device only shapes are computed, and every fused attention is counted; on other
            devices fused kernels for which PyTorch has no formula count 0.

    Returns:
        int: Number of multiply-adds, including those on padding.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    # PyTorch counts a multiplication and an addition as two operations.
    return counter.get_total_flops() // 2


def config_costs(
    cfg: Config,
    shape: tuple[int, int],
    sparsity: float = 0.4,
    kept: Mapping[str, int] | None = None,
) -> dict:
    """Count parameters and multiply-adds of a config's model, dense and sparse.

    The model runs on the meta device, where only shapes are computed. Multiply-adds are those
    of :func:`multiply_adds` at test time: backbone and decode head of a segmentor; backbone, neck,
    RPN, the box heads on 1000 proposals and the mask heads on 100 regions of a detector. In the
    sparse model, the weights of :func:`mmslak.sparsity.select_model_targets` are partly masked and
    not counted.

    Args:
        cfg (Config): A config of any of the three toolboxes.
        shape (tuple[int, int]): Height and width of the image in pixels.
        sparsity (float): Share of these weights that is masked, the same in every layer.
        kept (Mapping[str, int], optional): Number of active weights of each layer, by the name of
            the weight, such as from :mod:`mmslak.analysis.snip_allocation`. It replaces
            ``sparsity``. Entries of other layers are ignored, because a backbone may inherit the
            allocation of a classifier.

    Returns:
        dict: Numbers ``params_dense``, ``params_sparse``, ``macs_dense``, ``macs_sparse``, and
        ``macs_executed``, which merged networks compute: they compute with the zeros of masked
        weights, but without masked neurons.

    Raises:
        ValueError: If ``kept`` has no valid number for a layer, or the model has no backbone.
    """
    settings = cfg.model.copy()
    if 'pretrained' in settings:
        settings.pretrained = None
    if cfg.get('default_scope') == 'mmpretrain':
        # Mixup and CutMix are not needed here, and MMPretrain logs a line about them.
        settings.pop('train_cfg', None)
    # Built on the CPU first, because some backbones compute with numbers while they are built.
    model = build_model(cfg, settings).eval().to('meta')
    uses: dict[str, int] = {}
    with torch.device('meta'):
        channels = settings.get('backbone', {}).get('in_channels', 3)
        image = torch.zeros(1, channels, *shape)
        macs = multiply_adds(lambda: uses.update(weight_uses(model, lambda: _run(model, image))))
    parameters = dict(model.named_parameters())
    masked, removed = {}, set()
    if sparsity or kept is not None:
        weights = select_model_targets(model)
        units, _ = find_units(weights, config_structure(cfg), model)
        removed = {name for u in units if u.structure == 'neuron' for name in u.names}
        masked = _masked(units, sparsity) if kept is None else _complement(weights, kept)
    dense = sum(p.numel() for p in parameters.values())
    return dict(
        params_dense=dense,
        params_sparse=dense - sum(masked.values()),
        macs_dense=macs,
        macs_sparse=macs - sum(uses.get(name, 0) * count for name, count in masked.items()),
        macs_executed=macs - sum(uses.get(name, 0) * masked[name] for name in removed),
    )


def _masked(units: Sequence[Units], sparsity: float) -> dict[str, int]:
    """Return the number of masked weights by name, if the sparsity of all layers is the same."""
    allocated = {group.name: group for group in units if group.allocated}
    kept = allocate(allocated, sparsity, 'uniform')
    counts: dict[str, int] = {}
    for group in units:
        # Layers with 2:4 sparsity keep one half.
        active = kept.get(group.name, group.count // 2)
        for part in group.parts:
            masked = (group.count - active) * part.size
            counts[part.name] = counts.get(part.name, 0) + masked
    return counts


def _complement(weights: Mapping[str, Tensor], kept: Mapping[str, int]) -> dict[str, int]:
    """Return the number of masked weights by name from the number of active ones."""
    for name, weight in weights.items():
        if not 0 <= kept.get(name, -1) <= weight.numel():
            raise ValueError(
                f'kept must have a number from 0 to {weight.numel()} for {name!r}, got '
                f'{kept.get(name)!r}'
            )
    return {name: weight.numel() - kept[name] for name, weight in weights.items()}


def _run(model: nn.Module, image: Tensor) -> None:
    """Run the parts of a model that have weights and run at test time."""
    if not hasattr(model, 'roi_head'):
        model(image, mode='tensor')
        return
    features = model.extract_feat(image)
    model.rpn_head(features)
    roi_head, channels = model.roi_head, features[0].shape[1]
    for kind, count in (('bbox', PROPOSALS), ('mask', MASK_REGIONS)):
        heads = getattr(roi_head, f'{kind}_head', None)
        extractors = getattr(roi_head, f'{kind}_roi_extractor', None)
        if heads is None:
            continue
        # A cascade has one head per stage.
        heads = heads if isinstance(heads, nn.ModuleList) else [heads]
        extractors = extractors if isinstance(extractors, nn.ModuleList) else [extractors]
        for head, extractor in zip(heads, extractors, strict=True):
            size = extractor.roi_layers[0].output_size
            head(torch.zeros(count, channels, *size))
