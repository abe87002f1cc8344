"""Writes the report of run folders, or of anyone's table."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import pandas as pd

from jaxfair.errors import InputError
from jaxfair.fairness.agreement import check_runs
from jaxfair.files import read_json, write_text
from jaxfair.report.content import Table
from jaxfair.report.html import as_html
from jaxfair.report.loading import load_run
from jaxfair.report.markdown import as_markdown
from jaxfair.report.sections import sections
from jaxfair.report.single import Run
from jaxfair.run.folder import RunFolder

__all__ = ["compared", "run", "tables", "write_report"]


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


def compared(workdir: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Returns the runs of a run's own report: the one that it was compared with, then itself.

    `before.json` names the first; where that is no longer there, the report is of the run alone.
    """
    folder = RunFolder(pathlib.Path(workdir))
    if not folder.before.is_file():
        return [folder.path]
    earlier = folder.path / read_json(folder.before)["run"]
    return [earlier, folder.path] if RunFolder(earlier).trained() else [folder.path]


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """Returns every table of one run's report, as it is shown, by the name of its file."""
    blocks = [block for section in sections([run]) for block in section.blocks]
    return {block.name: block.shown for block in blocks if isinstance(block, Table)}


def write_report(runs: Sequence[Run], out: pathlib.Path, with_images: bool) -> pathlib.Path:
    """Writes report.html, report.md, tables and plots of `runs` into `out` and returns `out`.

    Raises:
      InputError: `out` is a file, or runs contradict each other or are one and the same (see
        `agreement.check_runs`).
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out names the folder for the report.")
    runs = _told_apart(runs)
    check_runs([run.predictions for run in runs], [run.name for run in runs])
    content = sections(runs, with_images=with_images)
    write_text(out / "report.html", as_html(content))
    write_text(out / "report.md", as_markdown(content, out))
    return out


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """Runs in folders of one name get as much of their paths as tells them apart."""
    names = [run.name for run in runs]
    found = []
    for run in runs:
        parts = run.path.resolve().parts
        others = [r.path.resolve().parts for r in runs if r is not run and r.name == run.name]
        n = 1
        while any(parts[-n:] == other[-n:] for other in others) and n < len(parts):
            n += 1
        name = run.name if names.count(run.name) == 1 else "/".join(parts[-n:])
        found.append(dataclasses.replace(run, name=name))
    return found
