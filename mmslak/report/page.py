"""The HTML file of a report."""

import base64
import html
import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

#: Pictures are made no wider than this, in pixels.
_WIDTH = 480
_STYLE = """
:root { --line: #d8dee6; --soft: #5d6b7a; --accent: #1f5fa8; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2733; max-width: 1100px; margin: 0 auto;
  padding: 24px; background: #fff; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 36px 0 10px; }
p.note { color: var(--soft); margin: 4px 0 12px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 600; }
table.code th { text-align: left; }
td.code { font-family: ui-monospace, monospace; font-size: 13px; text-align: left;
  overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
img { max-width: 100%; height: auto; display: block; }
.images { display: grid; gap: 18px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); }
figure { margin: 0; }
figure .row { display: grid; grid-template-columns: repeat(3, 1fr); gap: 4px; }
figcaption { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
@media (max-width: 600px) { body { padding: 12px; } th, td { padding: 4px 6px; } }
@media print {
  body { max-width: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


def page(title: str, note: str, sections: Sequence[tuple[str, str]]) -> str:
    """Return the file.

    Args:
        title (str): Heading.
        note (str): Line below it.
        sections (Sequence[tuple[str, str]]): Headings, and HTML below each.
    """
    body = ''.join(
        f'<section><h2>{html.escape(name)}</h2>{text}</section>' for name, text in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>'
        f'<h1>{html.escape(title)}</h1><p class="note">{html.escape(note)}</p>{body}'
        '</body></html>\n'
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], code: bool = False) -> str:
    """Return a table; with ``code`` the cells are shown as code."""
    kind = ' class="code"' if code else ''
    head = ''.join(f'<th>{html.escape(str(text))}</th>' for text in heads)
    body = ''.join(
        f'<tr>{"".join(f"<td{kind}>{html.escape(str(text))}</td>" for text in row)}</tr>'
        for row in rows
    )
    return (
        f'<div class="wide"><table{kind}><thead><tr>{head}</tr></thead>'
        f'<tbody>{body}</tbody></table></div>'
    )


def note(text: str) -> str:
    """Return a remark."""
    return f'<p class="note">{html.escape(text)}</p>'


def figure(drawn: Figure, text: str) -> str:
    """Return a figure as SVG inside the page, and close it."""
    with io.StringIO() as out:
        drawn.savefig(out, format='svg')
        svg = out.getvalue()
    plt.close(drawn)
    encoded = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/svg+xml;base64,{encoded}">'


def picture(image: Image.Image, text: str) -> str:
    """Return a picture as JPEG inside the page."""
    image = image.convert('RGB')
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, max(1, round(image.height * _WIDTH / image.width))))
    with io.BytesIO() as out:
        image.save(out, format='JPEG', quality=85)
        encoded = base64.b64encode(out.getvalue()).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/jpeg;base64,{encoded}">'


def pictures(items: Sequence[tuple[float, str, Sequence[Image.Image]]]) -> str:
    """Return images with truth and prediction, and their scores."""
    cells = []
    for score, name, row in items:
        shown = ''.join(
            picture(image, text)
            for image, text in zip(row, ('image', 'truth', 'prediction'), strict=True)
        )
        cells.append(
            f'<figure><div class="row">{shown}</div>'
            f'<figcaption>{html.escape(name)}: {score:.3f}</figcaption></figure>'
        )
    return f'<div class="images">{"".join(cells)}</div>'


def confusion_figure(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw a confusion matrix, each row as shares of the true class."""
    used = np.flatnonzero(confusion.sum(0) + confusion.sum(1))
    part, names = confusion[np.ix_(used, used)], [names[i] for i in used]
    shares = part / np.maximum(part.sum(1, keepdims=True), 1)
    side = min(9.0, max(4.0, 0.42 * len(names) + 1.6))
    drawn, panel = plt.subplots(figsize=(side + 1, side), layout='constrained')
    shown = panel.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    size = max(4, min(9, 200 / max(1, len(names))))
    panel.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    panel.set_yticks(range(len(names)), names, fontsize=size)
    panel.set(xlabel='predicted', ylabel='true')
    if len(names) <= 20:
        for i, j in np.ndindex(shares.shape):
            if shares[i, j] >= 0.005:
                colour = 'white' if shares[i, j] > 0.55 else 'black'
                panel.text(j, i, f'{100 * shares[i, j]:.0f}', ha='center', va='center',
                           fontsize=size * 0.85, color=colour)  # fmt: skip
    drawn.colorbar(shown, ax=panel, shrink=0.8, label='share of the true class')
    return drawn
