"""What the pages of both studies begin with: what was run, and at which epsilon."""

import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.arms.page import Told
from experiments.arms.study import paid
from experiments.arms.tables import markdown
from experiments.gaps.runs import Kept, Run, folder_of, kept_of
from experiments.gaps.trainings import SETTLED
from jaxfair import files
from jaxfair.report.plots import as_png

__all__ = [
    "TOLERANCE",
    "begin",
    "check_equal",
    "found_first",
    "p_text",
    "phantom_word",
    "save",
    "show",
    "worded",
]

TOLERANCE = 1e-3
"""Arms of a table may differ by so much in epsilon."""


def begin(runs: Sequence[Run], out: pathlib.Path) -> tuple[Told, list[Run]]:
    """Returns a page with what was run and what it cost, and the runs that are done."""
    told = Told()
    known = [(run, kept_of(out, run)) for run in runs]
    there = [run for run, kept in known if kept.done]
    if not there:
        told.say("**Not run.** The same command fills this page.")
        return told, there
    told.say(
        _whose(there),
        SETTLED,
        f"{len(there)} of {len(runs)} runs are done.",
        check_equal([(run, kept) for run, kept in known if kept.done]),
        _paid(out, there),
        _refused([(run, kept) for run, kept in known if kept.refused]),
    )
    return told, there


def check_equal(known: Sequence[tuple[Run, Kept]]) -> str:
    """Returns whether all runs of one epsilon claim the same, and what `account --verify` finds."""
    private = [(run, kept) for run, kept in known if math.isfinite(run.epsilon)]
    if not private:
        return "No run here is private."
    said = []
    for epsilon, part in itertools.groupby(
        sorted(private, key=lambda pair: -pair[0].epsilon), key=lambda pair: pair[0].epsilon
    ):
        claims = [float(kept.epsilon or math.nan) for _, kept in part]
        apart = max(claims) - min(claims)
        equal = "equal" if apart <= TOLERANCE else "NOT EQUAL"
        equal = f"ABOVE {epsilon:g}, {equal}" if max(claims) > epsilon else equal
        said.append(
            f"Epsilon {epsilon:g}: {len(claims)} runs claim {min(claims):.4f} to "
            f"{max(claims):.4f}, {equal} within {TOLERANCE:g}."
        )
    faults = [f"{run.place}: {'; '.join(kept.faults)}" for run, kept in private if kept.faults]
    said.append(
        f"`account --verify` finds no fault in these {len(private)} runs."
        if not faults
        else f"`account --verify` finds FAULTS in {len(faults)} runs, the first in {faults[0]}"
    )
    return " ".join(said)


def worded(row: Any) -> str:
    """Returns value [low, high] of a row with the fields of `levels.Level`."""
    if np.isnan(row.value):
        return "undefined"
    ends = "" if np.isnan(row.ci_low) else f" [{row.ci_low:+.3f}, {row.ci_high:+.3f}]"
    return f"{row.value:+.3f}{ends}"


def show(told: Told, name: str, figure: Figure) -> None:
    """Adds a figure, and the line of the page that shows it."""
    told.figures[name] = as_png(figure)
    told.say(f"![{name}]({name}.png)")


def found_first(told: Told, place: int, lines: Sequence[str]) -> None:
    """Puts what was found, a line each, before paragraph `place`."""
    told.text[place:place] = ["## What was found", "\n".join(f"- {line}" for line in lines)]


def phantom_word(runs: Sequence[Run]) -> str:
    """Returns "PHANTOM" where any of the images are drawn, else "REAL"."""
    return "PHANTOM" if any(run.config.data.get("phantom") for run in runs) else "REAL"


def p_text(value: float) -> str:
    """Returns a p as it is shown, "" where it is undefined."""
    return "" if np.isnan(value) else "< .001" if value < 0.001 else f"{value:.3f}"


def save(out: pathlib.Path, title: str, told: Told) -> None:
    """Writes page, figures and numbers into `out`/tables; what an earlier page had, goes."""
    folder = out / "tables"
    numbers = {f"{name}.csv": table for name, table in told.numbers.items() if not table.empty}
    figures = {f"{name}.png": figure for name, figure in told.figures.items()}
    for name, table in numbers.items():
        files.write_table(folder / name, table.round(5))
    for name, figure in figures.items():
        files.write_bytes(folder / name, figure)
    files.write_text(folder / "tables.md", "\n\n".join([f"# {title}", *told.text]) + "\n")
    for path in [*folder.glob("*.csv"), *folder.glob("*.png")]:
        if path.name not in numbers and path.name not in figures:
            path.unlink()


def _whose(runs: Sequence[Run]) -> str:
    drawn = [run for run in runs if run.config.data.get("phantom")]
    if not drawn:
        return ""
    names = ", ".join(sorted({run.data for run in drawn})) if len(drawn) < len(runs) else "all"
    return f"PHANTOM data, drawn films and no patients: {names}."


def _paid(out: pathlib.Path, runs: Sequence[Run]) -> str:
    """What all private runs on one source's people cost together (protocol P17)."""
    said = []
    for _, part in itertools.groupby(sorted(runs, key=_people_of), key=_people_of):
        own = list(part)
        names = ", ".join(sorted({run.data.split("-")[0] for run in own}))
        said.append(f"{names}: {paid([folder_of(out, run) for run in own])}")
    return "\n\n".join(said)


def _people_of(run: Run) -> str:
    """Whose images they are; drawn people of one seed are the same, however they are drawn."""
    data, drawn = run.config.data, run.config.data.get("phantom")
    return f"{data.source} {drawn.n_images} {drawn.seed}" if drawn else f"{data.source} {data.root}"


def _refused(known: Sequence[tuple[Run, Kept]]) -> str:
    if not known:
        return ""
    rows = {
        (run.data, run.method, run.arm, kept.refused): None for run, kept in known if not kept.done
    }
    table = pd.DataFrame(list(rows), columns=["data", "method", "arm", "refused, in its own words"])
    return "Not trained:\n\n" + markdown(table)
