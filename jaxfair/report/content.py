"""What a report is made of: sections of text, tables and figures, rendered elsewhere."""

import dataclasses
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

__all__ = ["Block", "Image", "Plot", "Section", "Table", "Text"]


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `strong` marks what must not be overlooked."""

    text: str
    strong: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: `shown` is formatted for people, `data` (or shown) goes into tables/<name>.csv.

    `words` marks a table of words, which wrap, where numbers would scroll.
    """

    name: str
    shown: pd.DataFrame
    caption: str = ""
    data: pd.DataFrame | None = None
    words: bool = False


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure, written to plots/<name>.png and inlined as SVG; `alt` is read aloud."""

    name: str
    figure: Figure
    alt: str


@dataclasses.dataclass(frozen=True)
class Image:
    """A PNG with pixels of a patient or a phantom."""

    name: str
    png: bytes
    alt: str


Block = Text | Table | Plot | Image


@dataclasses.dataclass(frozen=True)
class Section:
    """A title and its blocks, in reading order."""

    title: str
    blocks: Sequence[Block]
