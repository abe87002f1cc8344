"""GroupFrame: one metric by group, with its counts, its worst group and its gaps."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.errors import InputError
from jaxfair.fairness.catalog import metric_named
from jaxfair.fairness.groups import OVERALL, group_labels, natural
from jaxfair.fairness.predictions import checked, patient_codes
from jaxfair.fairness.values import checked_classes

__all__ = ["MIN_LABEL", "MIN_PATIENTS", "GroupFrame", "MetricFn", "enough", "too_few"]

MIN_PATIENTS = 50
MIN_LABEL = 10
"""Below 50 patients, or 10 patients of either label, a group is 'too few' (protocol S3)."""

MetricFn = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], float]


class GroupFrame:
    """The rows of one task and split, sliced by an attribute.

    Undefined values are NaN and stay visible; groups with too few patients are shown, left
    out of `worst`, `gap` and `ratio`, and named in `too_few`.

    Args:
      predictions: rows of one task (see `predictions.checked`).
      attribute: a column, or an intersection such as 'sex x age_group'.
      split: which rows; None takes all.
      thresholds: {rule: threshold or None} for metrics of decisions by name.

    >>> rows = pd.DataFrame({"y_true": [0, 1, 1], "y_score": [.1, .9, .3], "sex": ["F", "F", "M"]})
    >>> frame = GroupFrame(rows, "sex")
    >>> frame.counts()["positives"].to_dict()
    {'F': 1, 'M': 1}
    """

    def __init__(
        self,
        predictions: pd.DataFrame,
        attribute: str = OVERALL,
        *,
        split: str | None = "test",
        thresholds: Mapping[str, Any] | None = None,
    ) -> None:
        rows = checked(predictions)
        if rows["task"].nunique() > 1:
            raise ValueError(f"A GroupFrame holds one task, got {sorted(rows['task'].unique())}.")
        self.rows = rows if split is None else rows[rows["split"] == split].reset_index(drop=True)
        self.attribute, self.thresholds = attribute, thresholds
        self.labels = group_labels(self.rows, attribute)
        self.groups: list[str] = sorted(set(self.labels), key=natural)

    def counts(self) -> pd.DataFrame:
        """Returns patients, images, positives, patients of either label and 'too few' by group."""
        return pd.DataFrame(
            {g: _counts(self.rows[self.labels == g]) for g in self.groups}
        ).T.assign(too_few=lambda t: too_few(t))

    @functools.cached_property
    def too_few(self) -> list[str]:
        """The groups that are shown, but left out of comparisons."""
        table = self.counts()
        return list(table.index[table["too_few"]])

    @functools.cached_property
    def hidden(self) -> list[str]:
        """The groups whose values a report hides: too few, or all others together are too few.

        Whoever sees everybody and one of two groups sees the other. Counts stay visible, and of
        three groups or more each is hidden for itself: this is caution about small numbers, and
        no protection of patients (see protocol P18).
        """
        return [
            group for group in self.groups if group in self.too_few or self._rest_is_small(group)
        ]

    def _rest_is_small(self, group: str) -> bool:
        rest = self.rows[self.labels != group]
        return len(rest) > 0 and not enough(rest["y_true"].to_numpy(float), patient_codes(rest)[0])

    def part(self, group: str) -> pd.DataFrame:
        """Returns the rows of one group."""
        return self.rows[self.labels == group]

    def overall(self, metric: MetricFn | str) -> float:
        """Returns the metric on all rows."""
        return self._of(metric, np.ones(len(self.rows), dtype=bool))

    def by_group(self, metric: MetricFn | str) -> pd.Series:
        """Returns the metric of each group; NaN where it is undefined."""
        return pd.Series({g: self._of(metric, self.labels == g) for g in self.groups}, dtype=float)

    def to_rest(self, metric: MetricFn | str) -> pd.Series:
        """Returns each group's metric minus that of all rows outside it."""
        rest = {g: self._of(metric, self.labels != g) for g in self.groups}
        return self.by_group(metric) - pd.Series(rest, dtype=float)

    def worst(
        self, metric: MetricFn | str, *, higher_is_better: bool | None = None
    ) -> tuple[str, float]:
        """Returns the name and value of the worst group that has enough patients, or ('', NaN).

        Which end is worse stands in METRICS; of a function, lower is worse unless said.
        """
        if higher_is_better is None:
            named = isinstance(metric, str)
            higher_is_better = metric_named(str(metric)).higher_is_better if named else True
        if higher_is_better is None:
            raise InputError(
                f"Of {metric!r} neither end is worse; say which with higher_is_better."
            )
        values = self._comparable(metric)
        if values.empty:
            return "", float("nan")
        place = int(values.argmin() if higher_is_better else values.argmax())
        return str(values.index[place]), float(values.iloc[place])

    def gap(self, metric: MetricFn | str) -> float:
        """Returns max - min over the groups with enough patients; NaN with fewer than two.

        A gap is never zero by chance alone: read it beside its null (gaps.py).
        """
        values = self._comparable(metric)
        return float(values.max() - values.min()) if len(values) > 1 else float("nan")

    def _comparable(self, metric: MetricFn | str) -> pd.Series:
        enough = [name for name in self.groups if name not in self.too_few]
        return self.by_group(metric)[enough].dropna()

    def _of(self, metric: MetricFn | str, inside: npt.NDArray[np.bool_]) -> float:
        y = self.rows["y_true"].to_numpy(dtype=float)
        s = self.rows["y_score"].to_numpy(dtype=float)
        if not isinstance(metric, str):
            return float(metric(y[inside], s[inside])) if inside.any() else float("nan")
        line = metric_named(metric)
        if line.needs == "decisions" and self.thresholds is None:
            raise InputError(
                f"The metric {metric!r} is about decisions; give GroupFrame(thresholds=...) with"
                f" a threshold for {line.rule!r}, such as fit_thresholds finds on validation rows."
            )
        return line.of_group(y, s, inside, self.thresholds or {})


def too_few(counts: pd.DataFrame) -> pd.Series:
    """Returns True where `patients`, `patients_positive` or `patients_negative` is too small."""
    labels = counts[["patients_positive", "patients_negative"]].min(axis=1)
    return (counts["patients"] < MIN_PATIENTS) | (labels < MIN_LABEL)


def enough(y_true: npt.NDArray[np.float64], patients: npt.NDArray[np.int64]) -> bool:
    """Returns True if rows with these labels and patient codes are not 'too few'."""
    y = checked_classes(y_true)
    labels = [_distinct(patients[y == label]) for label in (0, 1)]
    return min(labels) >= MIN_LABEL and _distinct(patients) >= MIN_PATIENTS


def _distinct(codes: npt.NDArray[np.int64]) -> int:
    return int((np.bincount(codes) > 0).sum())


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    positive = rows["y_true"] == 1
    return {
        "patients": rows["patient_id"].nunique(),
        "images": len(rows),
        "positives": int(positive.sum()),
        "patients_positive": rows.loc[positive, "patient_id"].nunique(),
        "patients_negative": rows.loc[~positive, "patient_id"].nunique(),
    }
