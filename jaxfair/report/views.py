"""The tables of one run and task: as numbers for files, and as text for people.

Groups with too few patients keep their counts and lose their values: "too few" is said
instead (protocol S3). What is undefined is called so.
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.fairness import calibration, metrics, parity
from jaxfair.fairness.catalog import METRICS
from jaxfair.fairness.contrasts import MIRRORED
from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.gaps import Gap, max_min_gap
from jaxfair.fairness.groups import OVERALL, group_labels, natural
from jaxfair.fairness.predictions import patient_codes
from jaxfair.report.cells import Number, Quiet, Word, cells, name, number, p_text
from jaxfair.report.family import (
    CONTROL,
    SEED,
    Family,
    Probabilities,
    probabilities_of,
)
from jaxfair.report.headline import headline_table
from jaxfair.report.measured import Measured
from jaxfair.report.single import Run
from jaxfair.report.verdict import TITLES, harm, verdict

__all__ = ["TaskView", "run_views"]

_ENDS = {"ci_low": "difference_low", "ci_high": "difference_high"}


class TaskView:
    """One run and task with its slices, each computed once."""

    def __init__(self, run: Run, task: str, family: Family) -> None:
        self.run, self.task, self.family = run, task, family
        self.rows = run.rows(task)
        self.frames = {name: GroupFrame(self.rows, name) for name in run.attributes}
        self.threshold = run.threshold(task)

    @functools.cached_property
    def contrasts(self) -> pd.DataFrame:
        """Each group against the rest (contrasts.py), corrected for all labels of the run.

        Groups that are hidden (`small`) count as too few and have no values.
        """
        table = self.family.contrasts
        table = table[table["task"] == self.task].reset_index(drop=True)
        hidden = {name: self.small(name) for name in self.frames}
        names = table[["attribute", "group"]].to_numpy()
        table["too_few"] |= np.array([group in hidden[a] for a, group in names], dtype=bool)
        table.loc[table["too_few"], ["value", "rest", "difference"]] = np.nan
        return table

    def verdict(self) -> list[str]:
        """The sentences above the headline (verdict.py); the first is the strongest."""
        low = self.headline[self.headline["auroc_high"] < 0.5]
        below = {
            name(a, g): float(value)
            for a, g, value in zip(low["attribute"], low["group"], low["auroc"], strict=True)
            if a != OVERALL
        }
        whole = low.loc[low["attribute"] == OVERALL, "auroc"]
        inverted = None if whole.empty else float(whole.iloc[0])
        return verdict(self.contrasts, inverted, below, self.family.size, self.family.labels)

    def shown_contrasts(self) -> pd.DataFrame:
        """Each group against the rest as text, without those that have too few patients."""
        table = self.contrasts[~self.contrasts["too_few"] & (self.contrasts["why"] != MIRRORED)]
        return pd.DataFrame(
            {
                "group": [name(a, g) for a, g in table[["attribute", "group"]].to_numpy()],
                "statistic": [TITLES[s] for s in table["statistic"]],
                "group's": cells(table, "value"),
                "rest's": cells(table, "rest"),
                "difference": cells(table.rename(columns=_ENDS), "difference", interval=True),
                "p": [p_text(p) for p in table["p"]],
                "p, corrected": [p_text(p) for p in table["p_corrected"]],
                "note": [
                    Word(harm(row) or row["why"], row["flagged"]) for _, row in table.iterrows()
                ],
            }
        )

    @functools.cached_property
    def headline(self) -> pd.DataFrame:
        """The headline table (headline.py): one row per group, all metrics as columns."""
        rows = self.run.fairness[self.run.fairness["task"] == self.task]
        small = {attribute: self.small(attribute) for attribute in self.frames}
        return headline_table(rows, self.contrasts, self.calibration, small)

    def small(self, attribute: str) -> list[str]:
        """Groups of an attribute whose values are hidden: they or their rest are too few."""
        return [] if attribute == OVERALL else self.frames[attribute].hidden

    def enough(self, attribute: str) -> list[str]:
        """Groups of an attribute with enough patients in them and in the rest, in order."""
        frame = self.frames[attribute]
        return [group for group in frame.groups if group not in frame.hidden]

    @functools.cached_property
    def gaps(self) -> pd.DataFrame:
        """The max-min gap of the AUROC of each attribute beside its null."""
        found = {attribute: self._gap(attribute) for attribute in self.frames}
        table = pd.DataFrame(found.values(), columns=list(Gap._fields))
        return table.assign(
            attribute=list(found), groups=[len(self.enough(name)) for name in found]
        )

    def shown_gaps(self) -> pd.DataFrame:
        """The gaps as text."""
        table = self.gaps
        return pd.DataFrame(
            {
                "attribute": table["attribute"],
                "groups": table["groups"],
                "max-min AUROC": [Number(v) for v in table["value"]],
                "by chance alone: mean": [Number(v) for v in table["null_mean"]],
                "95 % below": [Number(v) for v in table["null_95"]],
                "p": [p_text(p) or Quiet("undefined") for p in table["p_value"]],
            }
        )

    def _gap(self, attribute: str) -> Gap:
        frame = self.frames[attribute]
        use = np.isin(frame.labels.astype(str), self.enough(attribute))
        rows = frame.rows[use]
        control = None
        if CONTROL in rows and CONTROL not in attribute.split(" x "):
            control = group_labels(rows, CONTROL).astype(str)
        return max_min_gap(
            rows["y_true"],
            rows["y_score"],
            frame.labels[use].astype(str),
            patient_codes(rows)[0],
            seed=SEED,
            control=control,
            n_replicates=int(np.clip(4e7 / max(len(rows), 1), 199, 999)),
        )

    @functools.cached_property
    def measured(self) -> Measured:
        """The gaps of AUROC, decisions and calibration (measured.py)."""
        groups = {name: self.enough(name) for name in self.frames}
        gaps = {row["attribute"]: _gap_of(row) for row in self.gaps.to_dict("records")}
        return Measured(self.run, self.task, groups, gaps, self.probabilities)

    @functools.cached_property
    def probabilities(self) -> Probabilities | None:
        """Probabilities of the test rows, bin edges from validation, and how they were made."""
        return probabilities_of(self.run, self.task)

    @functools.cached_property
    def calibration(self) -> pd.DataFrame:
        """Slope, intercept and errors of calibration by group; ECE beside its null mean."""
        rows = []
        for attribute, group, inside in self._slices():
            rows.append((attribute, group, *self._calibrated(inside)))
        names = ["slope", "intercept", "squared_error", "brier", "ece", "ece_null"]
        return pd.DataFrame(rows, columns=["attribute", "group", *names])

    def _calibrated(self, inside: np.ndarray) -> tuple[float, ...]:
        if self.probabilities is None:
            return (np.nan,) * 6
        p, edges, _ = self.probabilities
        y, p = self.rows["y_true"].to_numpy()[inside], p[inside]
        n_draws = int(np.clip(2e6 / max(len(p), 1), 10, 200))
        return (
            calibration.calibration_slope(y, p),
            calibration.calibration_intercept(y, p),
            calibration.debiased_squared_error(y, p, edges),
            calibration.brier(y, p),
            calibration.ece(y, p, edges),
            calibration.ece_null(p, edges, seed=SEED, n_draws=n_draws),
        )

    def _slices(self) -> list[tuple[str, str, np.ndarray]]:
        found: list[tuple[str, str, Any]] = [(OVERALL, "all", np.ones(len(self.rows), dtype=bool))]
        for attribute, frame in self.frames.items():
            found += [(attribute, g, frame.labels == g) for g in self.enough(attribute)]
        return found

    def shown_calibration(self) -> pd.DataFrame:
        """The calibration table as text."""
        table = self.calibration
        columns = {
            "slope": "slope (1)",
            "intercept": "intercept (0)",
            "squared_error": "squared error, debiased (0)",
            "brier": "Brier",
            "ece": "ECE",
            "ece_null": "ECE if perfect",
        }
        groups = [name(a, g) for a, g in table[["attribute", "group"]].to_numpy()]
        shown = {title: table[column].map(Number) for column, title in columns.items()}
        return pd.DataFrame({"group": groups, **shown})

    def shown_metrics(self) -> pd.DataFrame:
        """Every metric of METRICS: over all test rows, in the worst group, and what it means."""
        whole = self.headline[self.headline["attribute"] == OVERALL].assign(too_few=False)
        rows = []
        for key, metric in METRICS.items():
            digits = 3 if metric.high <= 1 else 0
            (value,) = cells(whole, key, interval=True, digits=digits)
            span = f"{metric.low:g} to {metric.high:g}"
            rows.append((metric.title, value, self._worst(key, digits), span, metric.meaning))
        names = ["metric", "all [95 %]", "worst group", "range", "what it is"]
        return pd.DataFrame(rows, columns=names)

    def _worst(self, key: str, digits: int) -> str:
        """'sex: F .712', over the groups that have enough patients."""
        better = METRICS[key].higher_is_better
        table = self.headline[self.headline["attribute"] != OVERALL]
        known = table.dropna(subset=[key]) if key in table else table[:0]
        if known.empty or better is None:
            return ""
        values = known[key].to_numpy(dtype=float)
        row = known.iloc[int(values.argmin() if better else values.argmax())]
        return f"{name(row['attribute'], row['group'])}, {number(row[key], digits)}"

    def parity(self, attribute: str) -> pd.DataFrame:
        """Gaps of decisions at the validated threshold, as text."""
        table = parity.parity_table(self.frames[attribute], self.threshold)
        chance = ["" if np.isnan(v) else Number(v) for v in table["chance"]]
        return pd.DataFrame(
            {
                "criterion": table["criterion"],
                "difference": [Number(v) for v in table["difference"]],
                "by chance alone": chance,
                "undefined in": table["undefined"],
                "too few in": table["too_few"],
            }
        )

    def stratified(self, attribute: str) -> pd.DataFrame | None:
        """AUROC by group within each view, as text; None where it makes no sense."""
        if CONTROL not in self.rows or CONTROL in attribute.split(" x "):
            return None
        large = self.enough(attribute)
        if not large:
            return None
        rows = []
        for group in large:
            within = GroupFrame(self.frames[attribute].part(group), CONTROL)
            values = within.by_group(metrics.auroc)
            few = within.hidden
            rows.append(
                {str(g): Quiet("too few") if g in few else Number(v) for g, v in values.items()}
            )
        views = sorted({view for row in rows for view in row}, key=natural)
        told = [
            [group, *(row.get(view, Quiet("none")) for view in views)]
            for group, row in zip(large, rows, strict=True)
        ]
        return pd.DataFrame(told, columns=["group", *views])


def _gap_of(row: Mapping[Any, Any]) -> Gap:
    return Gap(*(row[name] for name in Gap._fields))


def run_views(run: Run, n_draws: int | None = None) -> list[TaskView]:
    """Returns the views of all labels of a run, whose comparisons are one family."""
    family = Family(run, n_draws)
    return [TaskView(run, task, family) for task in run.tasks]
