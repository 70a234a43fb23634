"""Sheets of pictures, such as images with their label maps and predictions."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont


def picture_sheet(
    rows: Sequence[Sequence[Image.Image]],
    captions: Sequence[str],
    path: str | Path,
    cell: int = 192,
    across: int = 2,
    legend: Sequence[tuple[str, tuple[int, int, int]]] = (),
) -> None:
    """Write a sheet of pictures with captions above its columns.

    Args:
        rows (Sequence): Rows of pictures that belong together, such as image, ground truth and
            prediction. Each picture is scaled to fit its cell.
        captions (Sequence[str]): Caption of each picture in a row.
        path (str or Path): PNG file to write; its directory is created.
        cell (int): Longer side of a picture in pixels.
        across (int): Number of rows next to each other.
        legend (Sequence): Names and (R, G, B) colours, shown below the pictures.
    """
    gap, line = 8, 24
    block = len(captions) * (cell + gap) + gap
    columns = min(across, len(rows))
    lines = -(-len(rows) // columns)
    # No cell is higher than the highest picture in it.
    tall = max(_fitted(picture, cell)[1] for row in rows for picture in row)
    font = ImageFont.load_default(size=14)
    width = columns * block + gap
    entries = _legend_positions(legend, font, width, gap)
    legend_height = (entries[-1][1] + line) if entries else 0
    height = line + lines * (tall + gap) + gap + legend_height
    sheet = Image.new('RGB', (width, height), 'white')
    draw = ImageDraw.Draw(sheet)
    for column in range(columns):
        for k, caption in enumerate(captions):
            x = gap + column * block + k * (cell + gap) + cell // 2
            draw.text((x, line // 2), caption, fill='black', font=font, anchor='mm')
    for i, row in enumerate(rows):
        top = line + (i // columns) * (tall + gap)
        for k, picture in enumerate(row):
            left = gap + (i % columns) * block + k * (cell + gap)
            size = _fitted(picture, cell)
            # Interpolation between the colours of label maps would show other classes.
            label_map = picture.mode == 'P'
            resample = Image.Resampling.NEAREST if label_map else Image.Resampling.LANCZOS
            fitted = picture.resize(size, resample).convert('RGB')
            sheet.paste(fitted, (left + (cell - size[0]) // 2, top + (tall - size[1]) // 2))
    below = line + lines * (tall + gap) + gap
    for (x, y), (name, colour) in zip(entries, legend, strict=True):
        draw.rectangle((x, below + y + 4, x + 14, below + y + 18), fill=tuple(colour))
        draw.text((x + 20, below + y + 11), name, fill='black', font=font, anchor='lm')
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _fitted(picture: Image.Image, cell: int) -> tuple[int, int]:
    """Return the size of a picture after scaling its longer side to ``cell``."""
    scale = cell / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return width, height


def _legend_positions(legend, font, width: int, gap: int) -> list[tuple[int, int]]:
    """Return the positions of the legend's entries, from left to right in one or more lines."""
    positions, x, y = [], gap, 0
    for name, _ in legend:
        wide = 20 + round(font.getlength(name)) + 2 * gap
        if x + wide > width and x > gap:
            x, y = gap, y + 24
        positions.append((x, y))
        x += wide
    return positions
