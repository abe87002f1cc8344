"""Tables, plots and one page of a part of a study, from whatever of it has been run."""

import pathlib
from collections.abc import Sequence

import pandas as pd

from experiments.arms import plots, tables
from experiments.arms.cells import PLAIN, Arm, Cell, Data
from experiments.arms.measures import measures_of
from experiments.arms.study import paid
from experiments.arms.train import CORRELATED, INDEPENDENT
from jaxfair import files
from jaxfair.report.plots import as_png

__all__ = [
    "CELLS",
    "TESTS",
    "Told",
    "begin",
    "both_tests",
    "gaps_and_front",
    "leakage",
    "read",
    "write",
]

CELLS = 400
"""Positives of a group from which a gap of decisions is more than noise (protocol S10)."""

TESTS = {CORRELATED: "own test set", INDEPENDENT: "independent site"}

RULE = {"rule": "min_gap", "per_group": False}


class Told:
    """What a page says: paragraphs, tables and figures, in order.

    Attributes:
      text: the paragraphs.
      figures: file name -> PNG.
      numbers: file name -> table, as it was computed.
    """

    def __init__(self) -> None:
        """Begins empty."""
        self.text: list[str] = []
        self.figures: dict[str, bytes] = {}
        self.numbers: dict[str, pd.DataFrame] = {}

    def say(self, *paragraphs: str) -> None:
        """Adds paragraphs."""
        self.text += [paragraph for paragraph in paragraphs if paragraph]


def read(out: pathlib.Path, data: Data) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the measures of all finished runs under `out`, and their leakage; empty without."""
    folders = [path.parent for path in sorted(out.glob("runs/*/measures.csv"))]
    measures = [measures_of(folder, data) for folder in folders]
    leaks = [
        pd.read_csv(path).assign(**Cell.named(path.parent.name)._asdict())
        for path in sorted(out.glob("runs/*/leakage.csv"))
        if path.stat().st_size > 2
    ]
    join = lambda parts: pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return join(measures), join(leaks)


def write(out: pathlib.Path, data: Data, told: Told) -> None:
    """Writes page, figures and numbers of a part into `out`; figures of an earlier page go."""
    for path in out.glob("*.png"):
        if path.stem not in told.figures:
            path.unlink()
    for name, table in told.numbers.items():
        files.write_table(out / f"{name}.csv", table.round(5))
    for name, figure in told.figures.items():
        files.write_bytes(out / f"{name}.png", figure)
    files.write_text(out / "tables.md", "\n\n".join([f"# {data.title}", *told.text]) + "\n")


def begin(out: pathlib.Path, data: Data, arms: Sequence[Arm]) -> tuple[Told, pd.DataFrame]:
    """Returns a page with what was run and what it cost, and the measures with FATE."""
    told, (measures, leaks) = Told(), read(out, data)
    folders = [path.parent for path in sorted(out.glob("runs/*/measures.csv"))]
    if measures.empty:
        told.say("**Not run.** The same command fills this page.")
        return told, pd.DataFrame()
    table = tables.with_fate(tables.summary(measures))
    told.numbers |= {"measures": measures, "summary": table}
    told.say(
        f"{len(folders)} runs. Task {data.task}; groups of {', '.join(data.attributes)}. "
        f"{data.differs}",
        paid(folders),
        *_needs(arms),
    )
    if not leaks.empty:
        told.numbers["leakage"] = leaks
    return told, table


def both_tests(table: pd.DataFrame) -> list[str]:
    """Returns the test sets that were scored, that of the run's own data first."""
    there = set(table["on"])
    return [name for name in (CORRELATED, INDEPENDENT) if name in there]


def gaps_and_front(told: Told, table: pd.DataFrame, arms: Sequence[Arm], data: Data) -> None:
    """Adds, for each test set and attribute, gaps beside their nulls and the front."""
    for on in both_tests(table):
        for attribute in data.attributes:
            where = {"on": on, "attribute": attribute, **RULE}
            mark = f"{on}_{attribute.replace(' ', '')}"
            part = tables.chosen(table, **where)
            title = f"{data.title}\n{TESTS[on]}, {attribute}"
            told.figures[f"front_{mark}"] = as_png(plots.pareto_figure(part, arms, title=title))
            told.say(
                f"## Accuracy and gap: {TESTS[on]}, {attribute}",
                f"![AUROC against delta-EO of every arm, one threshold for all](front_{mark}.png)",
            )
            for epsilon in sorted(set(part["epsilon"]), reverse=True):
                gaps = tables.gaps_with_nulls(table, arms, epsilon=epsilon, **where)
                name = "plain" if epsilon == PLAIN else f"epsilon-{epsilon:g}"
                told.figures[f"gap_{mark}_{name}"] = as_png(
                    plots.gaps_figure(gaps, title=f"{title}, {name}")
                )
                few = gaps.loc[gaps["measure"] == "delta-EO", "smallest"].min()
                told.say(
                    f"### Gaps beside chance: {TESTS[on]}, {attribute}, {name}",
                    f"![delta-EO of every arm beside chance](gap_{mark}_{name}.png)",
                    tables.markdown(gaps.drop(columns="arm")),
                    f"The smallest group has {few:.0f} positives, fewer than {CELLS}: its gaps of "
                    "decisions are mostly noise."
                    if few < CELLS
                    else "",
                )


def leakage(told: Told, arms: Sequence[Arm]) -> None:
    """Adds what probes read within labels, the mean of the runs that were probed."""
    leaks = told.numbers.get("leakage")
    if leaks is None:
        return
    titles = {arm.name: arm.title for arm in arms}
    leaks = leaks.assign(on=leaks["on"].map(TESTS))
    whole = leaks[(leaks["label"] == "within") & leaks["value"].isna()]
    keys = ["epsilon", "on", "attribute", "arm", "embedding", "probe"]
    found = whole.groupby(keys)[["auroc", "chance"]].agg(["mean", "std"])
    rows = [
        dict(zip(keys, key, strict=True))
        | {"AUROC": row["auroc", "mean"], "sd": row["auroc", "std"]}
        for key, row in found.iterrows()
    ]
    shown = pd.DataFrame(rows, columns=[*keys, "AUROC", "sd"])
    shown["arm"] = shown["arm"].map(titles)
    shown["epsilon"] = shown["epsilon"].map(lambda e: "none" if e == PLAIN else f"{e:g}")
    told.say(
        "## What a fresh probe reads of the attribute, within label values",
        "Mean over folds of one seed; .5 is chance. Intervals of each run stand in leakage.csv.",
        tables.markdown(shown),
    )


def _needs(arms: Sequence[Arm]) -> list[str]:
    needing = [f"{arm.title} ({arm.needs})" for arm in arms if arm.needs]
    if not needing:
        return ["Every arm needs the image alone when it is used."]
    return [
        f"Beside the image these need to know of a patient: {', '.join(needing)}; and whoever "
        "decides by thresholds per subgroup needs the group."
    ]
