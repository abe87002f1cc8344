"""What a report is made of: sections of text, tables and figures, rendered elsewhere."""

import dataclasses
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

__all__ = ["Answer", "Answers", "Block", "Image", "Plot", "Section", "Table", "Text"]


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `strong` marks what must not be overlooked, `loud` what nobody may miss."""

    text: str
    strong: bool = False
    loud: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: `shown` holds cells for people, `data` (or shown) goes into tables/<name>.csv.

    `title` is its caption, `note` what is to be known beside it. The first `heads` columns say
    what a row is about. `words` marks a table of words, which wrap, where numbers would scroll.
    """

    name: str
    shown: pd.DataFrame
    title: str
    note: str = ""
    data: pd.DataFrame | None = None
    words: bool = False
    heads: int = 1


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure, written to plots/<name>.png and inlined as SVG; `alt` says what it shows."""

    name: str
    figure: Figure
    alt: str


@dataclasses.dataclass(frozen=True)
class Image:
    """A PNG with pixels of a patient or a phantom."""

    name: str
    png: bytes
    alt: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """A question of the first page.

    Attributes:
      key: 'good', 'fair' or 'private'; the verdict's id is 'verdict-' and it.
      question: its heading.
      verdict: the answer, a sentence or two.
      lines: what is to be known beside it.
      warn: whether the answer is one that must not be overlooked.
      brief: the verdict where several runs stand side by side; '' for the verdict itself.
    """

    key: str
    question: str
    verdict: str
    lines: Sequence[str] = ()
    warn: bool = False
    brief: str = ""


@dataclasses.dataclass(frozen=True)
class Answers:
    """The questions of the first page, side by side where there is room."""

    answers: Sequence[Answer]


Block = Text | Table | Plot | Image | Answers


@dataclasses.dataclass(frozen=True)
class Section:
    """A title and its blocks, in reading order; `folded` ones are opened by the reader."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False
