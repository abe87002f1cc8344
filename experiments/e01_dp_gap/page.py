"""The page of the study: tables, plots and sentences, made anew from whatever was run."""

import itertools
import math
import pathlib
from collections.abc import Sequence

import pandas as pd

from experiments.arms.page import Told
from experiments.arms.tables import markdown
from experiments.e01_dp_gap import plots
from experiments.e01_dp_gap.tables import METRICS, Tables, made, thesis_table
from experiments.gaps.levels import MIN_SEEDS, PAIRS
from experiments.gaps.report import begin, save, worded
from experiments.gaps.runs import Run
from experiments.gaps.trainings import same_for_all_seeds
from jaxfair.report.plots import as_png

__all__ = ["write"]

TITLE = "Gaps under privacy, and the composition of the training set"
PLAIN = math.inf


def write(runs: Sequence[Run], out: pathlib.Path) -> None:
    """Writes tables, plots and page of what is there into `out`/tables."""
    told, there = begin(runs, out)
    if there:
        tables = made(there, out)
        told.numbers |= tables._asdict()
        for method, attribute in itertools.product(_all(there, "method"), PAIRS):
            _part(told, tables, method, attribute)
    save(out, TITLE, told)


def _part(told: Told, tables: Tables, method: str, attribute: str) -> None:
    """Adds what is known of one detector and attribute, split by split."""
    own = _where(tables.levels, method=method, attribute=attribute)
    for split in sorted(set(own["split"])):
        where = {"method": method, "attribute": attribute, "split": split}
        a, b = PAIRS[attribute]
        told.say(
            f"## {method}, {attribute} ({a} are A, {b} are B), split {split}",
            "Without privacy this detector adds up all patients without noise: every seed gives "
            "the same, so that one training stands for all."
            if same_for_all_seeds(method, PLAIN)
            else "",
        )
        for epsilon in sorted(set(own["epsilon"]) - {PLAIN}, reverse=True):
            for metric in METRICS:
                told.say(
                    f"{metric} in points; DP at epsilon {epsilon:g}:",
                    markdown(thesis_table(tables, epsilon, metric, **where)),
                )
        _widening(told, _where(tables.widening, **where))
        _laws(told, _where(tables.laws, **where))
        _figures(told, tables, where)


def _widening(told: Told, rows: pd.DataFrame) -> None:
    if rows.empty:
        return
    shown = [
        {"epsilon": f"{r.epsilon:g}", "share of A": f"{r.share:g}", "metric": r.metric,
         "gap with privacy minus without [95 %]": worded(r), "larger in size by": r.widened,
         "p": r.p_value}
        for r in rows.itertuples()
    ]  # fmt: skip
    told.say("What privacy does to A - B:", markdown(pd.DataFrame(shown)))


def _laws(told: Told, rows: pd.DataFrame) -> None:
    if rows.empty:
        return
    shown = [
        {"epsilon": plots.named(r.epsilon), "metric": r.metric, "group": r.group,
         "slope per whole share [95 %]": worded(r), "p": r.p_value,
         "p of the regression, seeds alone": r.regression_p,
         "MAE of the line from the ends": r.mae, "mean r": r.r}
        for r in rows.itertuples()
    ]  # fmt: skip
    told.say(
        "Fairness laws: performance as a straight line in the share of A.",
        markdown(pd.DataFrame(shown)),
    )


def _figures(told: Told, tables: Tables, where: dict) -> None:
    pair = PAIRS[where["attribute"]]
    name = f"{where['method']}_{where['attribute']}_split-{where['split']}"
    for metric in METRICS:
        levels = _where(tables.levels, metric=metric, **where)
        gaps = _where(tables.gaps, metric=metric, **where)
        told.figures[f"levels_{name}_{metric}"] = as_png(plots.levels_figure(levels, pair, metric))
        told.figures[f"gaps_{name}_{metric}"] = as_png(plots.gaps_figure(gaps, pair, metric))
    null = _where(tables.gaps, metric="AUROC", **where)
    shown = null[["epsilon", "share", "value", "null_mean", "null_95", "excess", "null_p"]]
    shown = shown.assign(epsilon=[plots.named(e) for e in shown["epsilon"]])
    told.say("AUROC gaps beside what chance alone gives (protocol S1):", markdown(shown))
    if (null["seeds"] < MIN_SEEDS).any():
        told.say(f"There is no interval below {MIN_SEEDS} seeds (protocol S5).")


def _all(runs: Sequence[Run], name: str) -> list:
    return list(dict.fromkeys(getattr(run, name) for run in runs))


def _where(table: pd.DataFrame, **where: object) -> pd.DataFrame:
    if table.empty:
        return table
    kept = pd.Series(True, table.index)
    for name, value in where.items():
        kept &= table[name] == value
    return table[kept]
