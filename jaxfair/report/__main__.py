"""Tables and plots from run folders, or from anyone's table of predictions.

    jaxfair report RUN [RUN ...] --out DIR
    jaxfair report --predictions FILE [--groups sex,age_group] --out DIR

Only numpy, pandas and matplotlib: no accelerator, no model.
"""

import inspect
import os
import pathlib
import sys
from collections.abc import Sequence

import pandas as pd

from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.errors import InputError
from jaxfair.fairness.predictions import checked
from jaxfair.files import write_text
from jaxfair.report.content import Table
from jaxfair.report.html import as_html
from jaxfair.report.markdown import as_markdown
from jaxfair.report.sections import sections
from jaxfair.report.single import Run, load_run, run_from_predictions

__all__ = ["COMMAND", "Run", "load_run", "main", "run", "run_from_predictions", "tables"]


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
    return _write([load_run(path) for path in workdirs], pathlib.Path(out), with_images)


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """Returns every table of one run's report, as it is shown, by the name of its file."""
    blocks = [block for section in sections([run]) for block in section.blocks]
    return {block.name: block.shown for block in blocks if isinstance(block, Table)}


COMMAND = Command(
    name="report",
    about=f"{__doc__.strip()}\n\n{inspect.getdoc(checked)}",
    words="RUN",
    flags=(
        Flag("out", str, None, "folder to write the report to"),
        Flag("predictions", str, None, "a .csv or .parquet table instead of runs"),
        Flag("groups", list, None, "columns of that table to form groups from"),
        Flag("with-images", bool, False, "show images of patients"),
        Flag("seed", int, 0, "seed of the bootstrap, for a table"),
        Flag("bootstraps", int, 2000, "resamples of patients, for a table"),
    ),
)


def main(argv: Sequence[str]) -> int:
    """Runs the command; 0 when done, 2 for refused input."""
    return execute(COMMAND, argv, _act)


def _act(line: Line) -> int:
    out = _write(_runs(line), pathlib.Path(line.flags["out"]), line.flags["with-images"])
    print(f"The report is {out / 'report.html'} (and report.md, tables/, plots/ beside it).")
    return 0


def _runs(line: Line) -> list[Run]:
    predictions = line.flags["predictions"]
    if line.flags["out"] is None:
        raise InputError("Give --out DIR, the folder to write the report to.")
    if bool(line.words) == (predictions is not None):
        raise InputError("Give either run folders or --predictions FILE, and not both.")
    if line.words:
        return [load_run(folder) for folder in line.words]
    options = {"seed": line.flags["seed"], "n_bootstrap": line.flags["bootstraps"]}
    return [run_from_predictions(predictions, line.flags["groups"], **options)]


def _write(runs: Sequence[Run], out: pathlib.Path, with_images: bool) -> pathlib.Path:
    content = sections(runs, with_images=with_images)
    write_text(out / "report.html", as_html(content))
    write_text(out / "report.md", as_markdown(content, out))
    return out


if __name__ == "__main__":
    sys.exit(main(sys.argv))
