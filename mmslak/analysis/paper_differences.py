"""Why some counts differ from the paper's: contradictions in the paper, and the allocation."""

from collections.abc import Mapping
from dataclasses import dataclass

from .paper import DEPTHS_T, KERNEL_SIZES, WIDTHS, Row, row_of
from .paper_counts import Count

#: quantity -> its name and unit.
QUANTITIES = {'params': ('parameters', 'M'), 'gmacs': ('multiply-adds', 'G')}
#: Differences above this share of the paper's number are explained.
FAR = 0.03
#: (width, height) of the images of tables 4 and 5.
_ADE20K, _VOC = (2048, 512), (1280, 800)

_UNIFORM = (
    'the paper allocates the sparsity by SNIP, which masks more weights than the uniform '
    'allocation in layers with large feature maps'
)
_SNIP = (
    'the allocation depends on the initial weights and on the images, which the paper does not '
    'specify'
)


def far_off(row: Row, counts: Mapping[str, Count]) -> list[tuple[str, str, float]]:
    """List the counts of a row that are more than 3 % away from the paper's.

    Args:
        row (Row): A row of the paper.
        counts (Mapping[str, Count]): Our counts by allocation.

    Returns:
        list[tuple[str, str, float]]: Quantity (``params`` or ``gmacs``), allocation, and the
        difference relative to the paper's number.
    """
    found = []
    for quantity in QUANTITIES:
        paper = getattr(row, quantity)
        for allocation, count in counts.items():
            difference = getattr(count, quantity) / paper - 1 if paper else 0.0
            if abs(difference) > FAR:
                found.append((quantity, allocation, difference))
    return found


def reason_for(table: int, label: str, quantity: str, allocation: str) -> str:
    """Explain why a count is more than 3 % away from the paper's.

    Args:
        table (int): Number of the table.
        label (str): Label of the row.
        quantity (str): ``params`` or ``gmacs``.
        allocation (str): ``dense``, ``uniform`` or ``SNIP``.

    Returns:
        str: The reason, or ``not explained``.
    """
    for item in contradictions():
        if (item.table, item.label, item.quantity) == (table, label, quantity):
            value = format_quantity(item.value, quantity)
            unit = QUANTITIES[quantity][1]
            return f"the paper's other numbers add up to {value} {unit}: {item.reason}"
    if (table, label, allocation) == (2, 'sparse groups, wide 7-7-7-7', 'SNIP'):
        extra = 2 * 7 * 5 + 5 * 5 - 7 * 7
        return (
            'more than the variation over initialisations; the paper does not say whether its '
            '7 x 7 kernels are decomposed as well, into 7 x 5, 5 x 7 and 5 x 5, which would add '
            f'{_kernel_gmacs(extra, WIDTHS["T"][1]):.2f} G if dense'
        )
    if label == 'Mixer-B/16':
        return (
            'its architecture (12 blocks on 196 tokens of 768 channels, hidden widths 384 and '
            f"3072) has {mixer_gmacs():.2f} G; the paper's number is probably a misprint of it"
        )
    reasons = {'uniform': _UNIFORM, 'SNIP': _SNIP} if quantity == 'gmacs' else {}
    return reasons.get(allocation, 'not explained')


def format_quantity(value: float, quantity: str) -> str:
    """Format parameters in millions or multiply-adds in G for the tables."""
    return f'{value:.2f}' if quantity == 'gmacs' and value < 100 else f'{value:.1f}'


def mixer_gmacs() -> float:
    """Compute the multiply-adds of Mixer-B/16 from its architecture, in G.

    12 blocks on 196 tokens of 768 channels; hidden widths 384 over tokens and 3072 over channels
    (Tolstikhin et al., 2021, table 1).
    """
    tokens, channels = 14**2, 768
    block = channels * 2 * tokens * 384 + tokens * 2 * channels * 3072
    return (12 * block + tokens * channels * 3 * 16**2 + channels * 1000) / 1e9


# --- contradictions in the paper ------------------------------------------------------------------


@dataclass(frozen=True)
class Contradiction:
    """A number of the paper, and the value that the paper's other numbers add up to.

    Args:
        table (int): Number of the table.
        label (str): Label of the row.
        quantity (str): ``params`` or ``gmacs``.
        value (float): The sum of the other numbers.
        reason (str): Which numbers these are.
    """

    table: int
    label: str
    quantity: str
    value: float
    reason: str


def contradictions() -> list[Contradiction]:
    """List the numbers of the paper that its other numbers contradict."""
    return [_naive_31(), *_upernet(), *_faster_rcnn()]


def _naive_31() -> Contradiction:
    """Compare the naive 31-29-27-13 row of table 1 with the RepLKNet row.

    The paper prints the kernels as 31-29-37-13 in tables 1 and 2, and as 31-29-27-13 elsewhere.
    """
    naive, replknet = row_of(1, 'naive 31-29-27-13'), row_of(1, 'RepLKNet 31-29-27-13')
    value = replknet.gmacs - _kernel_gmacs(5 * 5, WIDTHS['T'][0])
    added, width = 37**2 - KERNEL_SIZES[31][2] ** 2, WIDTHS['T'][0][2]
    printed_gmacs = value + _kernel_gmacs(added, (0, 0, width, 0))
    printed_params = naive.params + added * DEPTHS_T[2] * width / 1e6
    return Contradiction(
        1,
        naive.label,
        'gmacs',
        value,
        f'RepLKNet, which adds a 5 x 5 kernel to each block, has {replknet.gmacs} G; '
        f'{printed_gmacs:.1f} G belong to the kernels 31-29-37-13, as the paper prints them, but '
        f'these have {printed_params:.0f} M parameters instead of {naive.params} M',
    )


def _upernet() -> list[Contradiction]:
    """Compare SLaK with ConvNeXt in table 4, given their difference in table 3."""
    found = []
    for variant, labels in (
        ('T', ('120 epochs: SLaK-T', '300 epochs: SLaK-T')),
        ('S', ('300 epochs: SLaK-S',)),
        ('B', ('300 epochs: SLaK-B',)),
    ):
        convnext = row_of(4, f'300 epochs: ConvNeXt-{variant}')
        for label in labels:
            found += _wider_backbone(variant, 4, label, convnext, _ADE20K)
    return found


def _faster_rcnn() -> list[Contradiction]:
    """Compare the rows of table 5, given the differences in tables 3 and 4."""
    convnext = row_of(5, 'ConvNeXt-T')
    replknet = row_of(4, '120 epochs: ConvNeXt-T (RepLKNet)')
    without = row_of(4, '120 epochs: ConvNeXt-T')
    params, gmacs = replknet.params - without.params, replknet.gmacs - without.gmacs
    scaled = gmacs * _scale(_VOC) / _scale(_ADE20K)
    label = 'ConvNeXt-T (RepLKNet)'
    less = convnext.gmacs - row_of(5, label).gmacs
    return [
        Contradiction(
            5,
            label,
            'params',
            convnext.params + params,
            f"RepLKNet's kernels add {params} M to ConvNeXt-T in table 4",
        ),
        Contradiction(
            5,
            label,
            'gmacs',
            convnext.gmacs + scaled,
            f"RepLKNet's kernels add {gmacs} G to ConvNeXt-T at 2048 x 512 in table 4, which is "
            f'{scaled:.1f} G at 1280 x 800; in table 5 they take {less} G away',
        ),
        *_wider_backbone('T', 5, 'SLaK-T', convnext, _VOC),
    ]


def _wider_backbone(
    variant: str, table: int, label: str, convnext: Row, shape: tuple[int, int]
) -> list[Contradiction]:
    """Add to ConvNeXt's numbers the difference to SLaK in table 3, and what the heads grow by.

    Args:
        variant (str): ``T``, ``S`` or ``B``.
        table (int): 4 (UPerNet) or 5 (Faster R-CNN with FPN).
        label (str): Label of SLaK's row.
        convnext (Row): ConvNeXt's row in the same table.
        shape (tuple[int, int]): Width and height of the image in pixels.
    """
    ours, theirs = row_of(3, f'SLaK-{variant}'), row_of(3, f'ConvNeXt-{variant}')
    more_params, more_gmacs = ours.params - theirs.params, ours.gmacs - theirs.gmacs
    scaled = more_gmacs * _scale(shape)
    params, gmacs = (_upernet_growth if table == 4 else _fpn_growth)(variant, shape)
    # UPerNet has an auxiliary head, which does not run at test time.
    all_heads, head = ('heads', 'head') if table == 4 else ('FPN', 'FPN')
    return [
        Contradiction(
            table,
            label,
            'params',
            convnext.params + more_params + params,
            f'{theirs.label} has {convnext.params} M in table {table}; in table 3 {ours.label} has '
            f'{more_params} M more; the wider feature maps add {params:.1f} M to the {all_heads}',
        ),
        Contradiction(
            table,
            label,
            'gmacs',
            convnext.gmacs + scaled + gmacs,
            f'{theirs.label} has {convnext.gmacs} G in table {table}; in table 3 {ours.label} has '
            f'{more_gmacs:.1f} G more at 224 x 224, which is {scaled:.1f} G at '
            f'{shape[0]} x {shape[1]}; the wider feature maps add {gmacs:.1f} G to the {head}',
        ),
    ]


def _scale(shape: tuple[int, int]) -> float:
    """Return the area of an image relative to 224 x 224; convolutions cost as much more."""
    return shape[0] * shape[1] / 224**2


def _kernel_gmacs(weights: int, widths: tuple[int, ...]) -> float:
    """Return the multiply-adds, in G, of depth-wise kernels in all blocks at 224 x 224.

    Args:
        weights (int): Weights of one kernel, such as 25.
        widths (tuple[int, ...]): Channels of the four stages, whose depths are those of ConvNeXt-T.
    """
    positions = sum(
        depth * width * (56 // 2**stage) ** 2
        for stage, (depth, width) in enumerate(zip(DEPTHS_T, widths, strict=True))
    )
    return weights * positions / 1e9


def _growth(variant: str, shape: tuple[int, int]) -> tuple[list[int], list[float]]:
    """Return how much wider SLaK's four feature maps are, and their numbers of positions."""
    added = [wide - narrow for narrow, wide in zip(*WIDTHS[variant], strict=True)]
    return added, [shape[0] * shape[1] / stride**2 for stride in (4, 8, 16, 32)]


def _upernet_growth(variant: str, shape: tuple[int, int]) -> tuple[float, float]:
    """Count what UPerNet's heads grow by on feature maps of 1.3 times the width.

    UPerHead (512 channels) has a 1 x 1 convolution on each of the first three feature maps. On
    the last one pyramid pooling has four 1 x 1 convolutions on pooled feature maps of 1, 4, 9 and
    36 positions, and a 3 x 3 convolution. The auxiliary head, which does not run at test time, has
    a 3 x 3 convolution to 256 channels on the third feature map.

    Returns:
        tuple[float, float]: Parameters in millions, multiply-adds in G.
    """
    added, positions = _growth(variant, shape)
    params = 512 * (sum(added[:3]) + (4 + 9) * added[3]) + 256 * 9 * added[2]
    products = sum(n * p for n, p in zip(added[:3], positions[:3], strict=True))
    products += added[3] * (1 + 4 + 9 + 36) + 9 * added[3] * positions[3]
    return params / 1e6, 512 * products / 1e9


def _fpn_growth(variant: str, shape: tuple[int, int]) -> tuple[float, float]:
    """Count what FPN grows by: a 1 x 1 convolution to 256 channels on each feature map."""
    added, positions = _growth(variant, shape)
    products = sum(n * p for n, p in zip(added, positions, strict=True))
    return 256 * sum(added) / 1e6, 256 * products / 1e9
