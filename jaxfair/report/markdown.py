"""Sections as Markdown, with tables as CSV and figures as PNG beside it."""

import pathlib
import re
from collections.abc import Sequence

import pandas as pd

from jaxfair.files import write_bytes, write_table
from jaxfair.report import plots
from jaxfair.report.content import Answer, Answers, Block, Plot, Section, Table, Text

__all__ = ["as_markdown", "markdown_table"]


def as_markdown(sections: Sequence[Section], out: pathlib.Path) -> str:
    """Returns the report as Markdown and writes its tables/ and plots/ into `out`.

    The first section's title is the headline.
    """
    lines = []
    for level, section in enumerate(sections):
        lines.append(f"{'#' if level == 0 else '##'} {_words(section.title)}")
        lines.extend(_block(block, out) for block in section.blocks)
    return "\n\n".join(lines) + "\n"


def markdown_table(table: pd.DataFrame) -> str:
    """Returns a pipe table; what a cell says is no markup."""
    rows = [list(map(_words, map(str, table.columns))), ["---"] * table.shape[1]]
    rows += [[_words(str(cell)) for cell in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _block(block: Block, out: pathlib.Path) -> str:
    if isinstance(block, Text):
        text = _words(block.text)
        loud = block.strong or block.loud
        return f"**{text}**" if loud else _START.sub(_ESCAPED, text)
    if isinstance(block, Table):
        data = block.shown if block.data is None else block.data
        write_table(out / "tables" / f"{block.name}.csv", data)
        note = f"\n\n{_words(block.note)}" if block.note else ""
        return f"{_START.sub(_ESCAPED, _words(block.title))}\n\n{markdown_table(block.shown)}{note}"
    if isinstance(block, Answers):
        return "\n\n".join(_answer(answer) for answer in block.answers)
    png = plots.as_png(block.figure) if isinstance(block, Plot) else block.png
    write_bytes(out / "plots" / f"{block.name}.png", png)
    alt = re.sub(r"([\[\]])", r"\\\1", _words(block.alt))
    return f"![{alt}](plots/{block.name}.png)"


def _answer(answer: Answer) -> str:
    lines = [f"**{_words(answer.question)} {_words(answer.verdict)}**", *map(_words, answer.lines)]
    return "\n\n".join([lines[0], *(_START.sub(_ESCAPED, line) for line in lines[1:])])


_MARKUP = re.compile(r"[\\`*|]|~(?=~)|(?<!\w)_|_(?!\w)|(?<=\])\(|(?<=\])\[")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#?\w+;)")
_ESCAPED = r"\1\\\2"
_START = re.compile(r"^(\d*)([#>+.)=\[-])")


def _words(text: str) -> str:
    """Text from files as words: no emphasis, link, code, tag, cell or line of its own."""
    text = _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))
    return _TAG.sub("&lt;", _ENTITY.sub("&amp;", text))
