"""Texts next to the pictures of the page."""

import html
from collections.abc import Sequence

import numpy as np


def legend_html(entries: Sequence[tuple[str, str, tuple[int, int, int]]]) -> str:
    """Return a legend as HTML, whose entries continue in the next line if there is no room.

    Args:
        entries (Sequence): Name, share and (R, G, B) colour of each class, as
            :func:`mmslak.analysis.drawing.legend` returns them.
    """
    items = [
        '<span style="white-space: nowrap"><span style="display: inline-block; width: 0.9em; '
        'height: 0.9em; border: 1px solid #8888; border-radius: 2px; vertical-align: -0.08em; '
        f'margin-right: 0.4em; background: rgb{colour}"></span>{html.escape(name)} '
        f'<span style="opacity: 0.65">{html.escape(share)}</span></span>'
        for name, share, colour in entries
    ]
    joined = '\n'.join(items)
    return f'<div style="display: flex; flex-wrap: wrap; gap: 0.3em 1.1em">{joined}</div>'


def message_html(text: str) -> str:
    """Return a message about a file as HTML, or nothing for an empty text."""
    if not text:
        return ''
    return (
        '<div role="alert" style="padding: 0.6em 0.9em; border-left: 4px solid #c62828; '
        f'background: #c628281a; overflow-wrap: anywhere">{html.escape(text)}</div>'
    )


def top_classes(scores: np.ndarray, classes: Sequence[str], most: int = 5) -> dict[str, float]:
    """Return the classes of the highest scores.

    Args:
        scores (np.ndarray): Probability of each class.
        classes (Sequence[str]): Their names. Those that occur twice are numbered.
        most (int): Number of classes.

    Returns:
        dict[str, float]: Score by name, the highest one first.
    """
    found: dict[str, float] = {}
    for i in np.argsort(-scores, kind='stable')[:most]:
        name = classes[i] if list(classes).count(classes[i]) == 1 else f'{classes[i]} (class {i})'
        found[name] = float(scores[i])
    return found
