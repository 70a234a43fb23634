"""A trained model as a network from images to tensors, without data samples and results."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..checkpoints import load_weights
from ..models import SLaK, build_model

#: Toolbox -> what its models are exported as.
_TASKS = dict(mmpretrain='classification', mmseg='segmentation', mmdet='detection')
#: Task -> smallest side of an image in pixels if sizes are dynamic. torch.export treats feature
#: maps of size 1 apart, and the neck of a detector may halve the last feature map twice.
MIN_SIZES = dict(classification=64, segmentation=64, detection=160)
#: Names of the flag of a data preprocessor that swaps the channels of BGR images.
_SWAPS = ('to_rgb', 'channel_conversion', '_channel_conversion')


class ImageNetwork(nn.Module):
    """Normalisation of images, and a classifier, a segmentor, or a detector without its heads.

    Args:
        model (nn.Module): A classifier of MMPretrain, a segmentor of MMSegmentation or a detector
            of MMDetection. It is used in evaluation mode.

    Attributes:
        task (str): ``classification``, ``segmentation`` or ``detection``.
        channel_order (str): ``RGB`` or ``BGR``, the order that the images must have.

    Raises:
        ValueError: If the model is of another kind.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        packages = [kind.__module__.split('.')[0] for kind in type(model).__mro__]
        self.task = next((_TASKS[name] for name in packages if name in _TASKS), None)
        method = dict(segmentation='encode_decode', detection='extract_feat').get(self.task)
        if self.task is None or (method and not hasattr(model, method)):
            raise ValueError(
                'model.type must be a classifier of MMPretrain, an EncoderDecoder of '
                'MMSegmentation or a detector of MMDetection to be exported as a graph, got '
                f'{type(model).__name__}'
            )
        self.model = model.eval()
        preprocessor = model.data_preprocessor
        swapped = any(getattr(preprocessor, name, False) for name in _SWAPS)
        self.channel_order = 'RGB' if swapped else 'BGR'
        mean, std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
        if getattr(preprocessor, '_enable_normalize', False):
            mean, std = preprocessor.mean, preprocessor.std
        self.register_buffer('mean', mean.clone())
        self.register_buffer('std', std.clone())

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs of the network.

        Args:
            image (Tensor): Images of shape (N, C, H, W) with values from 0 to 255, channels in
                :attr:`channel_order`.

        Returns:
            tuple[Tensor]: The logits of a classifier, of shape (N, classes); the logits of a
            segmentor, of shape (N, classes, H, W); or the feature maps of a detector.
        """
        x = (image - self.mean) / self.std
        if self.task == 'detection':
            with _Subsampling():
                return tuple(self.model.extract_feat(x))
        if self.task == 'segmentation':
            return (self.model.encode_decode(x, [dict(img_shape=x.shape[2:])]),)
        return (self.model(x, mode='tensor'),)

    def prepare(self, dynamic: bool = False) -> None:
        """Merge the branches of SLaK, and replace what formats of graphs lack, in place.

        Args:
            dynamic (bool): Also replace adaptive pooling, which ONNX has for one size only.

        Raises:
            ValueError: If the branches cannot be merged.
        """
        for module in list(self.modules()):
            if isinstance(module, SLaK):
                module.switch_to_deploy()
            for name, child in module.named_children():
                if dynamic and type(child) is nn.AdaptiveAvgPool2d:
                    setattr(module, name, _AveragePool(child.output_size))

    def window(self) -> dict:
        """Return size and stride in pixels of the windows of a segmentor, if it is tested so."""
        test_cfg = getattr(self.model, 'test_cfg', None) or {}
        if self.task != 'segmentation' or test_cfg.get('mode') != 'slide':
            return {}
        return dict(window=list(test_cfg['crop_size']), window_stride=list(test_cfg['stride']))


class _Subsampling(TorchFunctionMode):
    """Replaces max pooling of single positions, as in an FPN, by a slice.

    ``torch.export`` accepts the pooling for feature maps of an odd size only.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.max_pool2d and args[1:] == (1,) and not kwargs.get('return_indices'):
            step = kwargs['stride']
            return args[0][..., ::step, ::step]
        return function(*args, **kwargs)


class _AveragePool(nn.Module):
    """Adaptive average pooling by two weighted sums, for feature maps of any size."""

    def __init__(self, size: int | tuple[int, int]):
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else size

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``x`` of shape (N, C, H, W) as ``nn.AdaptiveAvgPool2d`` does."""
        rows, columns = (
            _averages(length, bins, x) for length, bins in zip(x.shape[-2:], self.size, strict=True)
        )
        # Matrix products would reshape x, which torch.export allows for some sizes only.
        x = (x.unsqueeze(-3) * rows.unsqueeze(-1)).sum(-2)
        return (x.unsqueeze(-2) * columns).sum(-1)


def _averages(length: int, bins: int | None, like: Tensor) -> Tensor:
    """Return the matrix of shape (bins, length) that averages in the bins of adaptive pooling."""
    if bins is None:
        return torch.eye(length, dtype=like.dtype, device=like.device)
    position = torch.arange(length, device=like.device)
    i = torch.arange(bins, device=like.device).unsqueeze(1)
    first = i * length // bins
    end = ((i + 1) * length + bins - 1) // bins
    inside = (position >= first) & (position < end)
    return inside.to(like.dtype) / (end - first).to(like.dtype)


def build_network(cfg: Config, checkpoint: Mapping, source: str = 'the checkpoint') -> ImageNetwork:
    """Build the network of a config with the weights of a checkpoint.

    Args:
        cfg (Config): Config of a classifier, segmentor or detector.
        checkpoint (Mapping): From :func:`mmslak.checkpoints.read_checkpoint`.
        source (str): Name of the checkpoint, for errors.

    Returns:
        ImageNetwork: In evaluation mode, with the branches as in the config.

    Raises:
        ValueError: If the model cannot be exported.
        CheckpointError: If the checkpoint does not fit the model.
    """
    settings = dict(cfg.model)
    # As MMEngine's runner does.
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = build_model(cfg, settings)
    network = ImageNetwork(model)
    load_weights(model, checkpoint, source)
    return network.requires_grad_(False)
