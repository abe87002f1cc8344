"""Sections as one HTML file that needs nothing else: no network, no script, any browser.

The page is made from page.html by jinja2, which escapes every text; page.css goes into it. Its
policy forbids the page every request, so that no browser can be made to ask anyone for anything.
"""

import base64
import functools
import pathlib
from collections.abc import Iterator, Sequence

import jinja2
from markupsafe import Markup

from jaxfair.report import plots
from jaxfair.report.cells import Cell, as_cell
from jaxfair.report.content import Image, Plot, Section, Table

__all__ = ["as_html"]

_FOLDER = pathlib.Path(__file__).parent


def as_html(sections: Sequence[Section]) -> str:
    """Returns the whole page: styles, figures (SVG) and images (PNG) inline.

    The first section is the first page; links of cells lead to the section of that title.
    """
    first, rest = sections[0], sections[1:]
    links = {section.title: f"s{i}" for i, section in enumerate(rest)}
    style = Markup((_FOLDER / "page.css").read_text(encoding="utf-8"))
    return _template().render(first=first, rest=rest, links=links, style=style) + "\n"


@functools.cache
def _template() -> jinja2.Template:
    """page.html with its filters; autoescape is on, and what is undefined raises."""
    room = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    room.filters.update(
        kind=lambda block: type(block).__name__,
        rows=_rows,
        marked=lambda row: any(cell.kind == "worse" for cell in row),
        figures=lambda block: isinstance(block, Plot | Image),
        svg=_svg,
        base64=lambda block: base64.b64encode(block.png).decode(),
    )
    return room.get_template("page.html")


def _rows(block: Table) -> Iterator[list[Cell]]:
    for row in block.shown.itertuples(index=False, name=None):
        yield [as_cell(value) for value in row]


def _svg(block: Plot) -> Markup:
    """The figure's own SVG, whose texts matplotlib has escaped, with a name for readers."""
    start = Markup('<svg role="img" aria-label="{}" id="{}"').format(block.alt, block.name)
    return Markup(plots.as_svg(block.figure, block.name).replace("<svg", str(start), 1))
