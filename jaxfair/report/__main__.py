"""Tables and plots from run folders, or from anyone's table of predictions.

    jaxfair report RUN [RUN ...] --out DIR
    jaxfair report --predictions FILE [--groups sex,age_group] --out DIR

Only numpy, pandas and matplotlib: no accelerator, no model.
"""

import inspect
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.errors import InputError
from jaxfair.fairness.predictions import checked

__all__ = ["COMMAND", "main"]


COMMAND = Command(
    name="report",
    about=f"{__doc__.strip()}\n\n{inspect.getdoc(checked)}",
    words="RUN",
    flags=(
        Flag("out", str, None, "folder to write the report to"),
        Flag(
            "predictions",
            str,
            None,
            "a table of predictions instead of runs (CSV, Excel or parquet)",
        ),
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
    from jaxfair.report.write import write_report  # plots and statistics: a second, not for --help

    out = write_report(_runs(line), pathlib.Path(line.flags["out"]), line.flags["with-images"])
    print(f"The report is {out / 'report.html'} (and report.md, tables/, plots/ beside it).")
    return 0


def _runs(line: Line) -> list[Any]:
    from jaxfair.report.loading import load_run, run_from_predictions

    predictions = line.flags["predictions"]
    if line.flags["out"] is None:
        raise InputError("Give --out DIR, the folder to write the report to.")
    if bool(line.words) == (predictions is not None):
        raise InputError("Give either run folders or --predictions FILE, and not both.")
    if line.words:
        return [load_run(folder) for folder in line.words]
    options = {"seed": line.flags["seed"], "n_bootstrap": line.flags["bootstraps"]}
    return [run_from_predictions(predictions, line.flags["groups"], **options)]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
