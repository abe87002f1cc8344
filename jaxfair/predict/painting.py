"""A map in colour over its film, with a line of text below it."""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["heat", "painted"]

STRENGTH = 0.6
"""Share of colour at the highest value of a map; there is none up to its median."""
TEXT, NARROWEST = 20, 384
"""Height of the letters, and the narrowest picture that has room for them."""
FRAME = 90
"""Grey of the line round what the model read."""


def heat(maps: np.ndarray) -> np.ndarray:
    """Returns (rows, columns) in [0, 1]: 0 up to the map's median, 1 at its highest value.

    Maps of some models lie far above 0 everywhere, and would be white all over.

    >>> heat(np.array([[5.0, 6.0, 8.0]])).tolist()
    [[0.0, 0.0, 1.0]]
    """
    low, high = float(np.median(maps)), float(maps.max())
    return np.clip((maps - low) / max(high - low, 1e-12), 0, 1)


def painted(film: np.ndarray, maps: np.ndarray, region: Sequence[float], text: str) -> np.ndarray:
    """Returns (h + band, w, 3) uint8: the film, the map over it from red to yellow, and the text.

    Args:
      film: (h, w) uint8.
      maps: (rows, columns); colour grows with its `heat`.
      region: (top, left, height, width) of the map, in pixels of the film; a line runs round it
        where it is not the whole film.
      text: stands in the band below, which hides nothing of the film.
    """
    shown = np.repeat(film[..., None], 3, -1).astype(np.float32)
    top, left, height, width = region
    down = _weights(film.shape[0], maps.shape[0], top, height)
    across = _weights(film.shape[1], maps.shape[1], left, width)
    low, high = float(np.median(maps)), float(maps.max())
    warm = np.clip(down @ (maps - low) @ across.T / max(high - low, 1e-12), 0, 1)
    colour = np.stack([np.full_like(warm, 255), 255 * warm, np.zeros_like(warm)], -1)
    share = STRENGTH * warm[..., None]
    shown = np.round(shown * (1 - share) + colour * share).astype(np.uint8)
    _frame(shown, np.asarray(down.any(1)), np.asarray(across.any(1)))
    return _with_band(shown, text)


def _weights(pixels: int, cells: int, start: float, extent: float) -> np.ndarray:
    """(pixels, cells) of linear interpolation between the middles of cells; 0 outside of them."""
    middles = np.arange(pixels) + 0.5
    at = (middles - start) / extent * cells - 0.5
    near = np.maximum(0, 1 - np.abs(np.clip(at, 0, cells - 1)[:, None] - np.arange(cells)))
    inside = (middles >= start) & (middles < start + extent)
    return (near * inside[:, None]).astype(np.float32)


def _frame(shown: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Draws a line round the rows and columns that were read, unless these are all."""
    if rows.all() and columns.all():
        return
    y, x = np.flatnonzero(rows)[[0, -1]], np.flatnonzero(columns)[[0, -1]]
    shown[y, x[0] : x[1] + 1] = FRAME
    shown[y[0] : y[1] + 1, x] = FRAME


def _with_band(shown: np.ndarray, text: str) -> np.ndarray:
    font = ImageFont.load_default(TEXT)
    width = max(shown.shape[1], NARROWEST)
    letters = int(width / font.getlength("n")) - 2
    lines = textwrap.wrap(text, letters)
    band = int(TEXT * 1.4) * len(lines) + TEXT // 2
    made = np.zeros((shown.shape[0] + band, width, 3), np.uint8)
    made[: shown.shape[0], : shown.shape[1]] = shown
    image = Image.fromarray(made)
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        draw.text((TEXT // 2, shown.shape[0] + TEXT // 4 + int(TEXT * 1.4) * i), line,
                  fill=(255, 255, 255), font=font)  # fmt: skip
    return np.asarray(image)
