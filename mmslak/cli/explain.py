"""Explains errors of a run whose cause is the config, in its words."""

import re
import traceback
from collections.abc import Iterator
from types import FrameType

from torch import nn

#: Beginning of PyTorch's message -> what to say about the module that raised it.
_CAUSES = {
    r'Given groups=.* to have (\d+) channels, but got (\d+) channels': (
        'expects {0} channels, but its input has {1}; correct in_channels of this part of the '
        'model, or the part before it'
    ),
    r'mat1 and mat2 shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)': (
        'expects {1} channels, but its input has {0}; correct in_channels of this part of the '
        'model, or the part before it'
    ),
    r'Expected more than 1 value per channel when training': (
        'is a batch norm, and the batch has only one value per channel, of which there is no '
        'variance; set train_dataloader.batch_size to 2 or more, and drop_last=True if the last '
        'batch can have one image'
    ),
    r'Target (\d+) is out of bounds': (
        'got the label {0}, which the model does not have; correct the labels, or set num_classes'
    ),
}
#: Errors by which a constructor refuses its arguments.
_REFUSALS = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError)


def explained(error: Exception, model: nn.Module | None = None) -> Exception:
    """Return a ValueError that explains an error, or the error itself if its cause is unknown.

    Args:
        error (Exception): Raised while a runner was built, or in its loop.
        model (nn.Module, optional): The model of the runner.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for pattern, text in _CAUSES.items():
        if found := re.match(pattern, str(error)):
            return ValueError(f'{_module_name(frames, model)} {text.format(*found.groups())}')
    built = [kind for frame in frames if (kind := _built_class(frame)) is not None]
    if built and isinstance(error, _REFUSALS):
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        return ValueError(
            f'{built[-1]} cannot be built from the config: {type(error).__name__}: '
            + ' '.join(text.split())
        )
    return error


def _built_class(frame: FrameType) -> str | None:
    """Return the name of the class that a frame of MMEngine's registry builds."""
    if frame.f_code.co_name != 'build_from_cfg':
        return None
    kind = frame.f_locals.get('obj_cls') or frame.f_locals.get('obj_type')
    return getattr(kind, '__name__', str(kind))


def _module_name(frames: list[FrameType], model: nn.Module | None) -> str:
    """Return the name of the innermost module of the model whose code runs in these frames."""
    while hasattr(model, 'module'):
        model = model.module
    names = {id(module): name for name, module in model.named_modules()} if model else {}
    for module in _modules(frames):
        if name := names.get(id(module)):
            return f'model.{name}'
    return 'the model'


def _modules(frames: list[FrameType]) -> Iterator[nn.Module]:
    for frame in reversed(frames):
        if isinstance(module := frame.f_locals.get('self'), nn.Module):
            yield module
