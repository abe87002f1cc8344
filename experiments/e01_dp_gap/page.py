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
from experiments.gaps.report import begin, found_first, p_text, phantom_word, save, show, worded
from experiments.gaps.runs import Run
from experiments.gaps.trainings import same_for_all_seeds

__all__ = ["found", "write"]

TITLE = "Gaps under privacy, and the composition of the training set"
PLAIN = math.inf
ALPHA = 0.05


def write(runs: Sequence[Run], out: pathlib.Path) -> None:
    """Writes tables, plots and page of what is there into `out`/tables."""
    told, there = begin(runs, out)
    if there:
        tables, place = made(there, out), len(told.text)
        told.numbers |= tables._asdict()
        for method, attribute in itertools.product(_all(there, "method"), PAIRS):
            _part(told, tables, method, attribute, phantom_word(there))
        if not tables.widening.empty:
            found_first(told, place, found(tables))
    save(out, TITLE, told)


def found(tables: Tables) -> list[str]:
    """Returns a line for each detector, attribute and split: where privacy changes AUROC gaps."""
    lines = [
        "AUROC is that of a group's own images, sAUROC of its negatives against all positives; a "
        "point is a hundredth.",
        f"{len(tables.widening)} changes of gaps by privacy were tested here, AUROC and sAUROC; "
        "beyond noise is p below .05 by Holm over all of them.",
    ]
    rows = tables.widening[tables.widening["metric"] == "AUROC"]
    for (method, attribute, split), part in rows.groupby(["method", "attribute", "split"]):
        clear = part[part["p_holm"] < ALPHA]
        wider, narrower = (clear["widened"] > 0).sum(), (clear["widened"] < 0).sum()
        said = f"{method}, {attribute}, split {split}: of {len(part)} AUROC gaps under privacy "
        said += f"{wider} are wider than without, beyond noise, and {narrower} narrower"
        if part["p_holm"].isna().all():
            said += f"; none has an interval, which takes {MIN_SEEDS} seeds"
        if len(clear):
            most = clear.loc[clear["widened"].abs().idxmax()]
            said += f"; the most at epsilon {most['epsilon']:g}, share {most['share']:g}: "
            said += worded(most)
        lines.append(said + ".")
    return lines


def _part(told: Told, tables: Tables, method: str, attribute: str, whose: str) -> None:
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
        private = sorted(set(own["epsilon"]) - {PLAIN}, reverse=True)
        for epsilon in dict.fromkeys([*private[:1], *private[-1:]]):  # all are in levels.csv
            for metric in METRICS:
                told.say(
                    f"{metric} in points; DP at epsilon {epsilon:g}:",
                    markdown(thesis_table(tables, epsilon, metric, **where)),
                )
        _widening(told, _where(tables.widening, **where))
        _laws(told, _where(tables.laws, **where))
        _figures(told, tables, where, whose)


def _widening(told: Told, rows: pd.DataFrame) -> None:
    if rows.empty:
        return
    shown = [
        {"epsilon": f"{r.epsilon:g}", "share of A": f"{r.share:g}", "metric": r.metric,
         "gap with privacy minus without [95 %]": worded(r), "larger in size by": r.widened,
         "p": p_text(r.p_value), "p, Holm": p_text(r.p_holm)}
        for r in rows.sort_values(["epsilon", "share"], ascending=[False, True]).itertuples()
    ]  # fmt: skip
    told.say("What privacy does to A - B:", markdown(pd.DataFrame(shown)))


def _laws(told: Told, rows: pd.DataFrame) -> None:
    if rows.empty:
        return
    shown = [
        {"epsilon": plots.named(r.epsilon), "metric": r.metric, "group": r.group,
         "slope per whole share [95 %]": worded(r), "p": p_text(r.p_value),
         "p of the regression, seeds alone": p_text(r.regression_p),
         "MAE of the line from the ends": r.mae, "mean r": r.r}
        for r in rows.itertuples()
    ]  # fmt: skip
    told.say(
        "Fairness laws: performance as a straight line in the share of A.",
        markdown(pd.DataFrame(shown)),
    )


def _figures(told: Told, tables: Tables, where: dict, whose: str) -> None:
    title = f"{whose}: {where['method']}, {where['attribute']}, split {where['split']}"
    pair = PAIRS[where["attribute"]]
    name = f"{where['method']}_{where['attribute']}_split-{where['split']}"
    for metric in METRICS:
        levels = _where(tables.levels, metric=metric, **where)
        gaps = _where(tables.gaps, metric=metric, **where)
        drawn = plots.levels_figure(levels, pair, metric, title)
        show(told, f"levels_{name}_{metric}", drawn)
        show(told, f"gaps_{name}_{metric}", plots.gaps_figure(gaps, pair, metric, title))
    null = _where(tables.gaps, metric="AUROC", **where)
    shown = [
        {"epsilon": plots.named(r.epsilon), "share of A": f"{r.share:g}", "A - B": r.value,
         "chance gives": r.null_mean, "in 95 % below": r.null_95, "excess": r.excess,
         "p": p_text(r.null_p)}
        for r in null.sort_values(["epsilon", "share"], ascending=[False, True]).itertuples()
    ]  # fmt: skip
    told.say(
        "AUROC gaps beside the size that chance alone gives (protocol S1); p is of each by itself:",
        markdown(pd.DataFrame(shown)),
    )
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
