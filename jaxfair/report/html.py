"""Sections as one HTML file that needs nothing else: no network, no script, any browser."""

import base64
import html
import re
from collections.abc import Sequence

from jaxfair.report import plots
from jaxfair.report.content import Block, Plot, Section, Table, Text

__all__ = ["as_html"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --page: #ffffff; --soft: #f3f5f7;
  --line: #d5dae0; --quiet: #57606a; --warn: #a3341b; --mark: #fff1e0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --page: #15181c;
  --soft: #1f242a; --line: #38404a; --quiet: #a3adb8; --warn: #ff9d7a; --mark: #3a2a1a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 84rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: .75rem;
  border-top: 1px solid var(--line); overflow-wrap: anywhere; }
p { max-width: 70ch; margin: .5rem 0; }
header { background: var(--soft); border-left: 4px solid var(--warn); padding: .25rem 1rem 1rem; }
summary { cursor: pointer; margin: 1rem 0; }
nav ul { columns: 20rem; padding-left: 1.1rem; font-size: .9rem; }
a { color: inherit; }
.scroll { overflow-x: auto; margin: .75rem 0 .25rem; border: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; font-size: .85rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { background: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: var(--page); }
th:first-child { background: var(--soft); }
table.words td, table.words th { text-align: left; white-space: normal; }
tr.worse td { background: var(--mark); }
td.quiet, td small { color: var(--quiet); }
.caption { color: var(--quiet); font-size: .85rem; }
figure { display: inline-block; margin: .75rem .75rem .75rem 0; max-width: 100%;
  vertical-align: top; }
figure svg, figure img { display: block; max-width: 100%; height: auto; }
figure img { image-rendering: pixelated; min-width: 10rem; }
figcaption { color: var(--quiet); font-size: .8rem; }
@media (max-width: 40rem) { body { padding: .6rem; font-size: 15px; } h1 { font-size: 1.3rem; }
  figure { display: block; overflow-x: auto; margin-right: 0; } figure svg { max-width: none; }
  th:first-child, td:first-child { white-space: normal; min-width: 7rem; max-width: 40vw; } }
@media print { nav { display: none; } .scroll { overflow: visible; } }
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Forbids the page every request, so that no browser can be made to ask anyone for anything."""

_INTERVAL = re.compile(r"(-?[\d.]+) (\[-?[\d.]+, -?[\d.]+\])")
_QUIET = {"too few", "undefined", "none", "one seed"}


def as_html(sections: Sequence[Section]) -> str:
    """Returns the whole page: styles, figures (SVG) and images (PNG) inline."""
    first, rest = sections[0], sections[1:]
    title = html.escape(first.title)
    body = "\n".join(_section(section, i) for i, section in enumerate(rest))
    links = "\n".join(
        f'<li><a href="#s{i}">{html.escape(section.title)}</a></li>'
        for i, section in enumerate(rest)
    )
    head = "\n".join(map(_block, first.blocks))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{title}</h1>\n{head}\n</header>\n"
        f"<nav><details><summary>Contents</summary><ul>\n{links}\n</ul></details></nav>\n"
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _section(section: Section, index: int) -> str:
    blocks = "\n".join(map(_block, section.blocks))
    return f'<section id="s{index}">\n<h2>{html.escape(section.title)}</h2>\n{blocks}\n</section>'


def _block(block: Block) -> str:
    if isinstance(block, Text):
        text = html.escape(block.text)
        return f"<p><strong>{text}</strong></p>" if block.strong else f"<p>{text}</p>"
    if isinstance(block, Table):
        return _table(block)
    alt = html.escape(block.alt)
    if isinstance(block, Plot):
        svg = plots.as_svg(block.figure, block.name)
        picture = svg.replace(
            "<svg", f'<svg role="img" aria-label="{alt}" id="{html.escape(block.name)}"', 1
        )
    else:
        data = base64.b64encode(block.png).decode()
        picture = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
    return f"<figure>\n{picture}\n<figcaption>{alt}</figcaption>\n</figure>"


def _table(block: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(str(c))}</th>' for c in block.shown.columns)
    rows = "\n".join(_row(row) for row in block.shown.itertuples(index=False))
    wordy = ' class="words"' if block.words else ""
    caption = f'<p class="caption">{html.escape(block.caption)}</p>' if block.caption else ""
    label = html.escape(block.caption or block.name)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f"<table{wordy}>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody>\n</table></div>\n{caption}"
    )


def _row(row: tuple) -> str:
    cells = [str(cell) for cell in row]
    worse = ' class="worse"' if "worse" in cells else ""
    return f"<tr{worse}>{''.join(map(_cell, cells))}</tr>"


def _cell(text: str) -> str:
    if text in _QUIET:
        return f'<td class="quiet">{text}</td>'
    found = _INTERVAL.fullmatch(text)
    if found:
        return f"<td>{found[1]}<br><small>{found[2]}</small></td>"
    return f"<td>{html.escape(text)}</td>"
