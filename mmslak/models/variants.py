"""The named variants of SLaK: depths and widths of the four stages."""

from collections.abc import Sequence

from .arguments import as_tuple

#: name -> depths and base widths of the four stages (paper, section 4.1). ``nano`` is not in the
#: paper; it is for demonstrations and tests.
ARCHS = {
    'nano': dict(depths=(1, 1, 3, 1), widths=(16, 32, 64, 128)),
    'tiny': dict(depths=(3, 3, 9, 3), widths=(96, 192, 384, 768)),
    'small': dict(depths=(3, 3, 27, 3), widths=(96, 192, 384, 768)),
    'base': dict(depths=(3, 3, 27, 3), widths=(128, 256, 512, 1024)),
    'large': dict(depths=(3, 3, 27, 3), widths=(192, 384, 768, 1536)),
}
#: Width factor of the paper's models.
WIDTH_FACTOR = 1.3
#: Width factors that :func:`name_arch` tries, the usual ones first.
_FACTORS = (WIDTH_FACTOR, 1.0, *(i / 20 for i in range(2, 81)))


def resolve_arch(
    arch: str | dict, width_factor: float | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the depths and widths of the four stages of an architecture.

    Args:
        arch (str or dict): A name in :data:`ARCHS`, or a dict of ``depths`` and ``widths``.
        width_factor (float, optional): Widths are ``int(width * width_factor)``. Default: the
            paper's 1.3 for a name, 1.0 for a dict.

    Returns:
        tuple: Depths and widths, four positive integers each.

    Raises:
        ValueError: Naming the argument, the value got and what is allowed.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            allowed = ', '.join(map(repr, ARCHS))
            raise ValueError(
                f'arch must be one of {allowed} or a dict of depths and widths, got {arch!r}'
            )
        factor = WIDTH_FACTOR if width_factor is None else width_factor
        arch = ARCHS[arch]
    elif isinstance(arch, dict) and set(arch) == {'depths', 'widths'}:
        factor = 1.0 if width_factor is None else width_factor
    else:
        raise ValueError(f"arch as a dict must have exactly 'depths' and 'widths', got {arch!r}")
    depths = as_tuple('depths', arch['depths'], 4)
    if not factor > 0:
        raise ValueError(f'width_factor must be positive, got {width_factor!r}')
    widths = tuple(int(width * factor) for width in as_tuple('widths', arch['widths'], 4))
    for argument, values in (('depths', depths), ('widths', widths)):
        if not all(isinstance(value, int) and value > 0 for value in values):
            raise ValueError(f'{argument} must be positive integers, got {values}')
    return depths, widths


def name_arch(depths: Sequence[int], widths: Sequence[int]) -> dict:
    """Return the arguments ``arch`` and ``width_factor`` of these depths and widths.

    It is the inverse of :func:`resolve_arch`.

    Args:
        depths (Sequence[int]): Blocks of each of the four stages.
        widths (Sequence[int]): Channels of each of the four stages.

    Returns:
        dict: ``arch`` is a name if a named variant fits; otherwise it is a dict of ``depths`` and
        ``widths``, and ``width_factor`` is 1.
    """
    depths, widths = tuple(depths), tuple(widths)
    for factor in _FACTORS:
        for name in ARCHS:
            if resolve_arch(name, factor) == (depths, widths):
                return dict(arch=name, width_factor=factor)
    return dict(arch=dict(depths=depths, widths=widths), width_factor=1.0)
