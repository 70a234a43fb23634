"""Parameters and multiply-adds, dense and sparse."""

from collections.abc import Callable, Mapping

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..engine.hooks.configured import configured_hooks
from ..models import branches_kept_apart
from ..sparsity import allocate, select_targets


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
        def count(layer: nn.Module, inputs: tuple, out: Tensor) -> None:
            # A transposed convolution takes each weight once for every position it reads.
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
        # Fused branches would not call the layers one by one.
        with torch.no_grad(), branches_kept_apart(model):
            run()
    finally:
        for handle in handles:
            handle.remove()
    return uses


#: Default input (height, width) in pixels for each toolbox, as in the paper's tables.
SHAPES = {'mmseg': (512, 2048), 'mmdet': (800, 1280), 'mmpretrain': (224, 224)}
#: What a detector's second stage sees: proposals for boxes, and regions for masks.
PROPOSALS, MASK_REGIONS = 1000, 100


def config_sparsity(cfg: Config) -> float:
    """Return the sparsity that a config trains with.

    Args:
        cfg (Config): A config of any of the three toolboxes.

    Returns:
        float: The sparsity of its ``DynamicSparsityHook``, 0 if the hook is off; 0.4, as in the
        paper, if the config has no such hook or the hook has no sparsity of its own.
    """
    hooks = configured_hooks(cfg, 'DynamicSparsityHook')
    if not hooks:
        return 0.4
    # A hook in custom_hooks comes last, and replaces the one in default_hooks.
    return 0.0 if hooks[-1].get('mode') == 'off' else hooks[-1].get('sparsity', 0.4)


def multiply_adds(run: Callable[[], object]) -> int:
    """Count the multiply-adds of all convolutions and matrix products in a piece of code.

    Unlike :func:`weight_uses` this includes what no layer shows: the products of queries,
    keys and values, and those with weights that belong to no convolution or linear layer,
    such as the projections in ``nn.MultiheadAttention``. Products element by element (norms,
    activations, gates) are left out, as in the published counts.

    Args:
        run (Callable): The code, such as ``lambda: model(x)``, without gradients. On the meta
            device only shapes are computed, and every fused attention is seen; on others a
            fused kernel that PyTorch has no formula for counts 0.

    Returns:
        int: Each multiply-add once, those on padding included.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    # PyTorch counts a multiplication and an addition as two.
    return counter.get_total_flops() // 2


def config_costs(
    cfg: Config,
    shape: tuple[int, int],
    sparsity: float = 0.4,
    kept: Mapping[str, int] | None = None,
) -> dict:
    """Count parameters and multiply-adds of a config's model, dense and sparse.

    The model runs on the meta device, where only shapes are computed. Multiply-adds are those
    of :func:`multiply_adds`, of what runs at test time, once each: for a segmentor backbone
    and decode head, for a detector also the neck, the RPN, the box heads on 1000 proposals
    and the mask heads on 100 regions. Sparse means that the convolutions and linear layers of
    the backbone (and of a classifier's head) keep only some of their weights, every layer the
    same share unless ``kept`` says otherwise, and zeros are left out.

    Args:
        cfg (Config): A config of any of the three toolboxes.
        shape (tuple[int, int]): Height and width of the one image, in pixels.
        sparsity (float): Share of the backbone's weights left out.
        kept (Mapping[str, int], optional): How many weights each layer keeps, by the name of
            the weight, such as from :func:`mmslak.analysis.snip_on_images.snip_allocation`, instead
            of the same share. What it has of another head counts nothing here.

    Returns:
        dict: ``params_dense``, ``params_sparse``, ``macs_dense`` and ``macs_sparse``, numbers.

    Raises:
        ValueError: If ``kept`` lacks a weight of the backbone or keeps more than it has.
    """
    settings = cfg.model.copy()
    if 'pretrained' in settings:
        settings.pretrained = None
    if cfg.get('default_scope') == 'mmpretrain':
        # Mixup and CutMix concern training only, and a line is logged for them every time.
        settings.pop('train_cfg', None)
    # Built on the CPU first: some backbones compute with numbers while they are built.
    # Synchronised batch norms run on accelerators only; ordinary ones count the same.
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        model = revert_sync_batchnorm(MODELS.build(settings)).eval().to('meta')
    uses: dict[str, int] = {}
    with torch.device('meta'):
        channels = settings.get('backbone', {}).get('in_channels', 3)
        image = torch.zeros(1, channels, *shape)
        macs = multiply_adds(lambda: uses.update(weight_uses(model, lambda: _run(model, image))))
    parameters = dict(model.named_parameters())
    left_out = {}
    if sparsity or kept is not None:
        weights = sparse_weights(model)
        if kept is None:
            kept = allocate(weights, sparsity, 'uniform')
        for name, weight in weights.items():
            if not 0 <= kept.get(name, -1) <= weight.numel():
                raise ValueError(
                    f'kept must tell how many of the {weight.numel()} weights of {name!r} are '
                    f'kept, got {kept.get(name)!r}'
                )
            left_out[name] = weight.numel() - kept[name]
    dense = sum(p.numel() for p in parameters.values())
    return dict(
        params_dense=dense,
        params_sparse=dense - sum(left_out.values()),
        macs_dense=macs,
        macs_sparse=macs - sum(uses.get(name, 0) * count for name, count in left_out.items()),
    )


def sparse_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Choose what the paper makes sparse: the backbone, and of a classifier the head.

    Args:
        model (nn.Module): A model of any of the three toolboxes.

    Returns:
        dict[str, nn.Parameter]: The weights of its convolutions and linear layers, by name.
    """
    weights = select_targets(model.backbone, 'all', 'backbone.')
    # Detectors and segmentors call theirs otherwise.
    if isinstance(getattr(model, 'head', None), nn.Module):
        weights.update(select_targets(model.head, 'all', 'head.'))
    return weights


def _run(model: nn.Module, image: Tensor) -> None:
    """Run what a model runs at test time, but for what has no weights."""
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
        # A cascade has a head a stage, others have one.
        heads = heads if isinstance(heads, nn.ModuleList) else [heads]
        extractors = extractors if isinstance(extractors, nn.ModuleList) else [extractors]
        for head, extractor in zip(heads, extractors, strict=True):
            size = extractor.roi_layers[0].output_size
            head(torch.zeros(count, channels, *size))
