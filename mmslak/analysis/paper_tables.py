"""The paper's tables as Markdown: the paper's numbers, our counts and the differences."""

from .paper import TABLES, row_of
from .paper_counts import Count, Counts, missing_packages
from .paper_differences import (
    FAR,
    QUANTITIES,
    contradictions,
    far_off,
    format_quantity,
    reason_for,
)

INTRODUCTION = """\
# The paper's tables, counted from real models

Written by `{command}`; do not edit it by hand.

Each row is built from its config (of this package, of MMPretrain or of MMDetection; ResMLP is
timm's, through MMPretrain's wrapper) and counted as in `tools/analysis/complexity.py`: the
convolutions and matrix products, including those of attention, that run at test time. Each
multiply-add counts once, including those on padding; detectors have 1000 proposals. Accuracies are
not compared here.
{summary}

Sparse networks are counted without their masked weights. *Uniform*: every layer of the backbone,
and of a classifier the head, has the same density. {snip}
"""
SNIP_TEXT = """\
*SNIP*, as in the paper: the active weights are
those with the highest |g * w| of the whole classifier, and the backbones of segmentors and
detectors inherit the number of each layer. The scores are those of {num} real images at 224 x 224
in one batch, with the loss of the untrained network (layer scale 1e-6, no Mixup); multiply-adds
are the mean over {seeds} initialisation{s}.
"""


def document(
    counts: Counts, command: str, snip_images: int | None = None, snip_seeds: int = 0
) -> str:
    """Write all tables that were counted as one Markdown document.

    Args:
        counts (Counts): From :func:`mmslak.analysis.paper_counts.count_tables`.
        command (str): The command that writes the document.
        snip_images (int, optional): Number of images that SNIP scored. Default: SNIP was not
            counted.
        snip_seeds (int): Number of initialisations that SNIP scored.
    """
    snip = ''
    if snip_images is not None:
        snip = SNIP_TEXT.format(num=snip_images, seeds=snip_seeds, s='s' * (snip_seeds > 1))
    introduction = INTRODUCTION.format(command=command, summary=summary(counts), snip=snip)
    lines = [introduction.strip(), '']
    for number in sorted(counts):
        lines += table_lines(number, counts[number])
    return '\n'.join(lines + contradiction_lines(counts))


def summary(counts: Counts) -> str:
    """Return a sentence with how many numbers are close to the paper's.

    Sparse networks are counted with SNIP, the paper's allocation, if it was computed.
    """
    near = total = 0
    for number, rows in counts.items():
        for row, found in zip(TABLES[number].rows, rows, strict=True):
            if found:
                printed = (row.params is not None) + (row.gmacs is not None)
                total += printed
                near += printed - len(far_off(row, _last(found)))
    return f"{near} of {total} numbers are within 3 % of the paper's."


def _last(found: dict[str, Count]) -> dict[str, Count]:
    """Select the paper's allocation, because SNIP comes after the uniform allocation."""
    return dict(list(found.items())[-1:])


def table_lines(number: int, counts: list[dict[str, Count]]) -> list[str]:
    """Format one table as Markdown, followed by the reasons of the differences.

    Args:
        number (int): Number of the table in the paper.
        counts (list[dict[str, Count]]): The counts of each row by allocation.
    """
    title, rows = TABLES[number]
    lines = [
        f'## Table {number}: {title}',
        '',
        '| model | allocation | parameters, M: paper | ours | difference '
        '| multiply-adds, G: paper | ours | difference |',
        '|---|---|---|---|---|---|---|---|',
    ]
    notes = []
    for row, found in zip(rows, counts, strict=True):
        if not found:
            absent = 'in no library'
            if row.network:
                absent = f'needs {", ".join(missing_packages(row.network))}'
            lines.append(
                f'| {row.label} | | {row.params} | {absent} | | {row.gmacs} | {absent} | |'
            )
        for allocation, count in found.items():
            cells = [row.label, '' if allocation == 'dense' else allocation]
            for quantity in QUANTITIES:
                paper, value = getattr(row, quantity), getattr(count, quantity)
                difference = f'{value / paper - 1:+.1%}' if paper else ''
                cells += [paper or 'not given', format_quantity(value, quantity), difference]
            lines.append('| ' + ' | '.join(map(str, cells)) + ' |')
        for quantity, allocation, difference in far_off(row, found):
            reason = reason_for(number, row.label, quantity, allocation)
            notes.append(
                f'- {row.label}, {QUANTITIES[quantity][0]}'
                f'{"" if allocation == "dense" else f", {allocation}"}, {difference:+.1%}: '
                f'{reason}{_spread(found[allocation], quantity)}.'
            )
    if notes:
        lines += ['', f'Differences of more than {100 * FAR:.0f} %:', '', *notes]
    return [*lines, '']


def _spread(count: Count, quantity: str) -> str:
    if quantity != 'gmacs' or count.lowest == count.highest:
        return ''
    low, high = (format_quantity(value, 'gmacs') for value in (count.lowest, count.highest))
    return f' (here {low} to {high} over the initialisations)'


def contradiction_lines(counts: Counts) -> list[str]:
    """Format where the paper's numbers contradict each other, and what we count.

    Args:
        counts (Counts): The tables that were counted.

    Returns:
        list[str]: Empty if none of these numbers is in the tables that were counted.
    """
    lines, listed = [], set()
    for item in contradictions():
        # Table 4 has the same network twice.
        if item.table not in counts or item.reason in listed:
            continue
        listed.add(item.reason)
        row = row_of(item.table, item.label)
        found = counts[item.table][TABLES[item.table].rows.index(row)]
        (count,) = _last(found).values()
        cells = [
            item.table,
            item.label,
            ', '.join(QUANTITIES[item.quantity]),
            getattr(row, item.quantity),
            format_quantity(item.value, item.quantity),
            format_quantity(getattr(count, item.quantity), item.quantity),
            item.reason,
        ]
        lines.append('| ' + ' | '.join(map(str, cells)) + ' |')
    if not lines:
        return []
    return [
        '## Where the paper contradicts itself',
        '',
        '| table | model | quantity | printed | by its other numbers | ours | reason |',
        '|---|---|---|---|---|---|---|',
        *lines,
        '',
        "The sums are of the paper's rounded numbers. Other contradictions:",
        '',
        '- Table 3 has DeiT-B with 87 M parameters at 224 x 224 but 86 M at 384 x 384, although '
        'larger',
        '  images only add position embeddings.',
        '- Tables 1, 2 and 4 list three kernel sizes (7-7-7) for four stages in some rows.',
        '- Table 8 is headed SLaK-S; its caption and its numbers are those of SLaK-T.',
        '',
    ]
