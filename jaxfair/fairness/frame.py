"""GroupFrame: one metric by group, with its counts, its worst group and its gaps."""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.fairness.groups import OVERALL, group_labels
from jaxfair.fairness.predictions import checked
from jaxfair.schema import UNKNOWN

__all__ = ["MIN_LABEL", "MIN_PATIENTS", "GroupFrame", "enough_patients", "too_few"]

MIN_PATIENTS = 50
MIN_LABEL = 10
"""Below 50 patients, or 10 patients of either label, a group is 'too few' (protocol S3)."""

Metric = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], float]


class GroupFrame:
    """The rows of one task and split, sliced by an attribute.

    Undefined values are NaN and stay visible; groups with too few patients are shown, left
    out of `worst`, `gap` and `ratio`, and named in `too_few`.

    Args:
      predictions: rows of one task (see `predictions.checked`).
      attribute: a column, or an intersection such as 'sex x age_group'.
      control: column whose strata are kept apart in `stratified` and `standardised` (view,
        scanner).
      split: which rows; None takes all.

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
        control: str | None = None,
        split: str | None = "test",
    ) -> None:
        rows = checked(predictions)
        if rows["task"].nunique() > 1:
            raise ValueError(f"A GroupFrame holds one task, got {sorted(rows['task'].unique())}.")
        self.rows = rows if split is None else rows[rows["split"] == split].reset_index(drop=True)
        self.attribute, self.control = attribute, control
        self.labels = group_labels(self.rows, attribute)
        self.groups: list[str] = sorted(set(self.labels), key=lambda name: (UNKNOWN in name, name))

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

    def part(self, group: str) -> pd.DataFrame:
        """Returns the rows of one group."""
        return self.rows[self.labels == group]

    def overall(self, metric: Metric) -> float:
        """Returns the metric on all rows."""
        return _apply(metric, self.rows)

    def by_group(self, metric: Metric) -> pd.Series:
        """Returns the metric of each group; NaN where it is undefined."""
        return pd.Series(
            {g: _apply(metric, self.rows[self.labels == g]) for g in self.groups}, dtype=float
        )

    def to_rest(self, metric: Metric) -> pd.Series:
        """Returns each group's metric minus that of all rows outside it."""
        rest = {g: _apply(metric, self.rows[self.labels != g]) for g in self.groups}
        return self.by_group(metric) - pd.Series(rest, dtype=float)

    def worst(self, metric: Metric, *, higher_is_better: bool = True) -> tuple[str, float]:
        """Returns the name and value of the worst group that has enough patients, or ('', NaN)."""
        values = self._comparable(metric)
        if values.empty:
            return "", float("nan")
        place = int(values.argmin() if higher_is_better else values.argmax())
        return str(values.index[place]), float(values.iloc[place])

    def gap(self, metric: Metric) -> float:
        """Returns max - min over the groups with enough patients; NaN with fewer than two.

        A gap is never zero by chance alone: read it beside its null (gaps.py).
        """
        values = self._comparable(metric)
        return float(values.max() - values.min()) if len(values) > 1 else float("nan")

    def ratio(self, metric: Metric) -> float:
        """Returns min / max over the groups with enough patients; NaN with fewer than two."""
        values = self._comparable(metric)
        if len(values) < 2 or not values.max() > 0:
            return float("nan")
        return float(values.min() / values.max())

    def stratified(self, metric: Metric) -> pd.DataFrame:
        """Returns the metric by group (rows) within each stratum of `control` (columns)."""
        strata = self._strata()
        return pd.DataFrame(
            {
                stratum: {
                    g: _apply(metric, self.rows[(self.labels == g) & (strata == stratum)])
                    for g in self.groups
                }
                for stratum in sorted(set(strata))
            }
        )

    def standardised(self, metric: Metric) -> pd.Series:
        """Returns the metric of each group averaged over strata in their pooled proportions.

        NaN for a group in which the metric is undefined in a stratum: nothing is guessed.
        """
        strata = pd.Series(self._strata())
        shares = strata.value_counts(normalize=True).sort_index()
        return self.stratified(metric).mul(shares, axis=1).sum(axis=1, skipna=False)

    def _comparable(self, metric: Metric) -> pd.Series:
        enough = [name for name in self.groups if name not in self.too_few]
        return self.by_group(metric)[enough].dropna()

    def _strata(self) -> npt.NDArray[np.object_]:
        if self.control is None:
            raise ValueError("Give GroupFrame(control=...) the column whose strata to keep apart.")
        return group_labels(self.rows, self.control)


def too_few(counts: pd.DataFrame) -> pd.Series:
    """Returns True where `patients`, `patients_positive` or `patients_negative` is too small."""
    labels = counts[["patients_positive", "patients_negative"]].min(axis=1)
    return (counts["patients"] < MIN_PATIENTS) | (labels < MIN_LABEL)


def enough_patients(rows: pd.DataFrame) -> bool:
    """Returns True if these rows are not 'too few'."""
    return not too_few(pd.DataFrame([_counts(rows)])).item()


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    positive = rows["y_true"] == 1
    return {
        "patients": rows["patient_id"].nunique(),
        "images": len(rows),
        "positives": int(positive.sum()),
        "patients_positive": rows.loc[positive, "patient_id"].nunique(),
        "patients_negative": rows.loc[~positive, "patient_id"].nunique(),
    }


def _apply(metric: Metric, rows: pd.DataFrame) -> float:
    if rows.empty:
        return float("nan")
    return float(
        metric(rows["y_true"].to_numpy(dtype=float), rows["y_score"].to_numpy(dtype=float))
    )
