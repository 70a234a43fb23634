"""Checks and defaults of the arguments of the backbone."""

from collections.abc import Sequence

from ..ops.aligned import CHOICES

#: How the large kernel of a block is built, see :class:`mmslak.models.SpatialMixing`.
MODES = ('decomposed', 'reparam', 'naive')
#: Type of the initialiser that reads checkpoints of this package and of the authors, see
#: ``mmslak.checkpoints.initializer``.
PRETRAINED = 'mmslak.Pretrained'


def check_kernels(kernel_size: int, small_kernel: int, mode: str) -> None:
    """Check the kernel sizes and the mode of a block.

    Args:
        kernel_size (int): Size M of the large kernel.
        small_kernel (int): Size N of the small kernel.
        mode (str): One of :data:`MODES`.

    Raises:
        ValueError: For an unknown mode, an even or non-positive kernel size, or a large kernel
            smaller than the small one.
    """
    if mode not in MODES:
        raise ValueError(f'mode must be one of {", ".join(map(repr, MODES))}, got {mode!r}')
    for argument, size in (('kernel_sizes', kernel_size), ('small_kernel', small_kernel)):
        if not isinstance(size, int) or isinstance(size, bool) or size < 1 or size % 2 == 0:
            raise ValueError(
                f'{argument} must be odd positive integers ("same" padding), got {size!r}'
            )
    if mode != 'naive' and kernel_size < small_kernel:
        raise ValueError(
            f'kernel_sizes must be at least small_kernel={small_kernel} in mode {mode!r}, '
            f'got {kernel_size}'
        )


def check_scalars(
    stages: int,
    in_channels: int,
    drop_path_rate: float,
    layer_scale_init_value: float,
    frozen_stages: int,
) -> None:
    """Check the other numbers among the arguments of a backbone.

    Args:
        stages (int): Number of stages. The other arguments are those of
            :class:`mmslak.models.SLaK`.

    Raises:
        ValueError: Naming the argument, the value got and what is allowed.
    """
    if not isinstance(in_channels, int) or in_channels < 1:
        raise ValueError(f'in_channels must be a positive integer, got {in_channels!r}')
    if not isinstance(drop_path_rate, (int, float)) or not 0 <= drop_path_rate < 1:
        raise ValueError(f'drop_path_rate must be in [0, 1), got {drop_path_rate!r}')
    if not isinstance(layer_scale_init_value, (int, float)) or not layer_scale_init_value >= 0:
        raise ValueError(
            f'layer_scale_init_value must be 0 or positive, got {layer_scale_init_value!r}'
        )
    if frozen_stages not in range(-1, stages + 1):
        raise ValueError(f'frozen_stages must be in -1..{stages}, got {frozen_stages!r}')


def check_aligned(aligned: bool | str) -> None:
    """Check the choice of aligned linear layers.

    Args:
        aligned (bool or str): One of :data:`mmslak.ops.aligned.CHOICES`.

    Raises:
        ValueError: If it is something else.
    """
    if not any(aligned is choice or aligned == choice == 'auto' for choice in CHOICES):
        raise ValueError(f"aligned must be 'auto', True or False, got {aligned!r}")


def as_tuple(argument: str, values: Sequence, length: int) -> tuple:
    """Return ``values`` as a tuple with one entry for each stage.

    Args:
        argument (str): Name of the argument, for the error.
        values (Sequence): Its value.
        length (int): Number of stages.

    Raises:
        ValueError: If there are more or fewer entries.
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != length:
        raise ValueError(
            f'{argument} must have {length} entries, one for each stage, got {values!r}'
        )
    return tuple(values)


def resolve_out_indices(out_indices: Sequence[int] | int, stages: int) -> tuple[int, ...]:
    """Return the stages to output, with negative indices counted from the last stage.

    Args:
        out_indices (Sequence[int] or int): The stages, in ascending order.
        stages (int): Number of stages.

    Raises:
        ValueError: If they are not distinct stages in ascending order.
    """
    indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    resolved = [i + stages if isinstance(i, int) and i < 0 else i for i in indices]
    if not resolved or resolved != sorted(set(resolved)) or not set(resolved) <= set(range(stages)):
        raise ValueError(
            f'out_indices must be distinct stages in ascending order, each in 0..{stages - 1} '
            f'(or -{stages}..-1 from the end), got {out_indices!r}'
        )
    return tuple(resolved)


def resolve_init_cfg(init_cfg: dict | list | None) -> list[dict]:
    """Return the settings that initialise a backbone.

    Random initialisation comes first because a checkpoint may lack some entries, such as the
    norms of the outputs. ``type='Pretrained'`` becomes this package's initialiser, which reads
    files safely and accepts the authors' format.

    Args:
        init_cfg (dict or list, optional): ``init_cfg`` of a module of MMEngine.

    Returns:
        list[dict]: Settings in the order in which they are applied.
    """
    random = dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0)
    given = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or [])
    pretrained = [dict(cfg, type=PRETRAINED) for cfg in given if _is_pretrained(cfg)]
    others = [cfg for cfg in given if not _is_pretrained(cfg)]
    return (others or [random]) + pretrained


def _is_pretrained(cfg: dict) -> bool:
    # MMEngine's class is named in the pure Python style of config files.
    kind = cfg['type']
    return kind in ('Pretrained', PRETRAINED) or getattr(kind, '__name__', '') == 'PretrainedInit'
