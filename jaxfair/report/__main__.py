"""`python -m jaxfair.report RUN [RUN ...] --out DIR`: tables and plots from run folders.

`python -m jaxfair.report --predictions FILE [--groups sex,age_group] --out DIR` does the same
for anyone's table. Only numpy, pandas and matplotlib: no accelerator, no model.
"""

import os
import pathlib
import sys
from collections.abc import Sequence

import pandas as pd
from absl import flags

from jaxfair.errors import InputError
from jaxfair.fairness.predictions import checked
from jaxfair.files import write_text
from jaxfair.report.content import Table
from jaxfair.report.html import as_html
from jaxfair.report.markdown import as_markdown
from jaxfair.report.sections import sections
from jaxfair.report.single import Run, load_run, run_from_predictions

__all__ = ["Run", "load_run", "main", "run", "run_from_predictions", "tables"]


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


def main(argv: Sequence[str]) -> int:
    """Runs the command; 0 when done, 2 for refused input."""
    values = _flags()
    if "--help" in argv[1:]:
        print(f"{__doc__}\n{checked.__doc__}\n{values.get_help()}")
        return 0
    try:
        folders = values(list(argv))[1:]
        runs = _runs(folders, values)
        out = _write(runs, pathlib.Path(values.out), bool(values["with-images"].value))
    except (flags.Error, InputError) as error:
        print(str(error), file=sys.stderr)
        return 2
    print(f"The report is {out / 'report.html'} (and report.md, tables/, plots/ beside it).")
    return 0


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "Folder to write the report to.", flag_values=values)
    flags.DEFINE_string("predictions", None, "A .csv or .parquet table.", flag_values=values)
    flags.DEFINE_list("groups", None, "Columns to form groups from.", flag_values=values)
    flags.DEFINE_boolean("with-images", False, "Show images of patients.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Seed of the bootstrap.", flag_values=values)
    flags.DEFINE_integer("bootstraps", 2000, "Resamples of patients.", flag_values=values)
    return values


def _runs(folders: Sequence[str], values: flags.FlagValues) -> list[Run]:
    if values.out is None:
        raise InputError("Give --out DIR, the folder to write the report to.")
    if bool(folders) == (values.predictions is not None):
        raise InputError("Give either run folders or --predictions FILE, and not both.")
    if folders:
        return [load_run(folder) for folder in folders]
    options = {"seed": values.seed, "n_bootstrap": values.bootstraps}
    return [run_from_predictions(values.predictions, values.groups, **options)]


def _write(runs: Sequence[Run], out: pathlib.Path, with_images: bool) -> pathlib.Path:
    content = sections(runs, with_images=with_images)
    write_text(out / "report.html", as_html(content))
    write_text(out / "report.md", as_markdown(content, out))
    return out


if __name__ == "__main__":
    sys.exit(main(sys.argv))
