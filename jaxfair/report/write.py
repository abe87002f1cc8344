"""Writes the report of run folders, or of anyone's table."""

import os
import pathlib
from collections.abc import Sequence

import pandas as pd

from jaxfair.errors import InputError
from jaxfair.files import write_text
from jaxfair.report.content import Table
from jaxfair.report.html import as_html
from jaxfair.report.markdown import as_markdown
from jaxfair.report.sections import sections
from jaxfair.report.single import Run, load_run

__all__ = ["run", "tables", "write_report"]


def run(
    workdirs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    with_images: bool = False,
) -> pathlib.Path:
    """Writes the report of one run, or the comparison of several, and returns its folder.

    Args:
      workdirs: run folders; each needs privacy.json and predictions.parquet.
      out: folder for report.html, report.md, tables/*.csv and plots/*.png; made if missing.
      with_images: show anomaly maps of real patients too; PHANTOM ones are always shown.

    Raises:
      InputError: if a folder is not a run, or lacks its privacy statement.
    """
    return write_report([load_run(path) for path in workdirs], pathlib.Path(out), with_images)


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """Returns every table of one run's report, as it is shown, by the name of its file."""
    blocks = [block for section in sections([run]) for block in section.blocks]
    return {block.name: block.shown for block in blocks if isinstance(block, Table)}


def write_report(runs: Sequence[Run], out: pathlib.Path, with_images: bool) -> pathlib.Path:
    """Writes report.html, report.md, tables and plots of `runs` into `out` and returns `out`."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out names the folder for the report.")
    content = sections(runs, with_images=with_images)
    write_text(out / "report.html", as_html(content))
    write_text(out / "report.md", as_markdown(content, out))
    return out
