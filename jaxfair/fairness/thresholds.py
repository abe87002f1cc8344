"""Thresholds, fitted on validation rows only, and stored to be applied to test rows.

A rule is `youden`, `min_gap`, `sens@x`, `spec@x` or `fpr@x`. A score at or above the
threshold is called positive.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.errors import InputError
from jaxfair.fairness.catalog import METRICS
from jaxfair.fairness.groups import OVERALL, group_labels
from jaxfair.fairness.predictions import checked
from jaxfair.fairness.values import checked_pair

__all__ = ["MIN_CASES", "RULES", "Sorted", "fit_threshold", "fit_thresholds", "group_thresholds"]

RULES = tuple(dict.fromkeys(m.rule for m in METRICS.values() if m.needs == "decisions"))
"""The rules that every run stores, those of METRICS: the working point, and two fixed rates."""

MIN_CASES = 200
"""Validation cases of the class that defines a rule, below which a group uses the pooled one."""

Array = npt.NDArray[np.float64]


class Sorted:
    """Validation labels and scores in ascending order of the score, for repeated fits.

    Attributes:
      order: (n,) positions in the arrays given, so that weights can be put in this order.
      y, score: (n,) sorted.
    """

    def __init__(self, y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> None:
        y, s = checked_pair(y_true, y_score)
        self.order = np.argsort(s, kind="stable")
        self.y, self.score = y[self.order], s[self.order]
        self._first = np.flatnonzero(np.diff(self.score, prepend=-np.inf) > 0)

    def fit(self, rule: str, weights: Array | None = None) -> float:
        """Returns the threshold of `rule` for sorted rows that count `weights` times each.

        NaN if a class that the rule needs has no weight.
        """
        return self.fit_many((rule,), weights)[0]

    def fit_many(self, rules: Sequence[str], weights: Array | None = None) -> list[float]:
        """Returns the thresholds of several rules; they share one pass over the rows."""
        w = np.ones(len(self.y)) if weights is None else weights
        tpr, fpr = (self._share_at_or_above(w * self.y), self._share_at_or_above(w * (1 - self.y)))
        return [self._pick(rule, tpr, fpr) for rule in rules]

    def _share_at_or_above(self, weights: Array) -> Array:
        below = np.concatenate([[0.0], np.cumsum(weights)])
        total = below[-1]
        shares = np.append(total - below[self._first], 0.0)
        return shares / total if total > 0 else np.full(len(shares), np.nan)

    def _pick(self, rule: str, tpr: Array, fpr: Array) -> float:
        name, value = _parse(rule)
        needed = {"sens": tpr, "spec": fpr, "fpr": fpr}.get(name, tpr + fpr)
        if not len(self.y) or np.isnan(needed).any():
            return float("nan")
        if name == "youden":
            return self._threshold(int(np.argmax(tpr - fpr)))
        if name == "min_gap":
            return self._threshold(int(np.argmin(np.abs(tpr - (1 - fpr)))))
        if name == "sens":
            return self._threshold(int(np.flatnonzero(tpr >= value - 1e-12)[-1]))
        limit = value if name == "fpr" else 1 - value
        return self._threshold(int(np.flatnonzero(fpr <= limit + 1e-12)[0]))

    def _threshold(self, candidate: int) -> float:
        if candidate == len(self._first):
            return float(np.nextafter(self.score[-1], np.inf))
        return float(self.score[self._first[candidate]])


def fit_threshold(y_true: npt.ArrayLike, y_score: npt.ArrayLike, rule: str = "youden") -> float:
    """Returns the threshold of one rule on these rows, which should be validation rows.

    Args:
      y_true: (n,) labels 0 or 1.
      y_score: (n,) finite scores.
      rule: `youden` (largest TPR - FPR), `min_gap` (smallest |TPR - TNR|), `sens@x` (highest
        threshold with TPR >= x), `spec@x` (lowest with TNR >= x), `fpr@x` (lowest with
        FPR <= x).

    Returns:
      One of the scores, or the next float above them all; NaN if the rule is undefined.

    Raises:
      InputError: for an unknown rule.

    >>> fit_threshold([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], "sens@0.5")
    0.4
    """
    return Sorted(y_true, y_score).fit(rule)


def fit_thresholds(
    predictions: pd.DataFrame, rules: Sequence[str] = RULES
) -> dict[str, dict[str, Any]]:
    """Returns the pooled thresholds of every task, from the validation rows alone.

    Args:
      predictions: rows as in docs/contracts.md (see `predictions.checked`).
      rules: see `fit_threshold`.

    Returns:
      `{task: {rule: threshold or None, "n_positive": int, "n_negative": int}}`, ready for
      thresholds.json; None where the validation rows cannot define the rule.
    """
    fitted = {}
    for task, rows in checked(predictions).groupby("task", sort=True):
        rows = rows[rows["split"] == "validation"]
        values = Sorted(rows["y_true"], rows["y_score"]).fit_many(rules)
        positives = int(rows["y_true"].sum())
        fitted[str(task)] = {
            **{rule: None if np.isnan(v) else v for rule, v in zip(rules, values, strict=True)},
            "n_positive": positives,
            "n_negative": len(rows) - positives,
        }
    return fitted


def group_thresholds(
    validation: pd.DataFrame, attribute: str, rule: str = "min_gap", min_cases: int = MIN_CASES
) -> dict[str, tuple[float, bool]]:
    """Returns `{group: (threshold, is_own)}` for one task's validation rows.

    A group with fewer than `min_cases` cases of the class that defines the rule takes the
    pooled threshold and `is_own` False (protocol S6: from 50 negatives the realised
    false-positive rate at a nominal 5 % ranges from 1.7 to 14.8 %).
    """
    pooled = fit_threshold(validation["y_true"], validation["y_score"], rule)
    labels = group_labels(validation, attribute)
    fitted = {}
    for group in sorted(set(labels)) if attribute != OVERALL else ["all"]:
        rows = validation[labels == group]
        enough = _cases(rows["y_true"].to_numpy(dtype=float), rule) >= min_cases
        own = fit_threshold(rows["y_true"], rows["y_score"], rule) if enough else pooled
        fitted[group] = (own, bool(enough))
    return fitted


def _cases(y: Array, rule: str) -> int:
    positives, negatives = int((y == 1).sum()), int((y == 0).sum())
    by_name = {"sens": positives, "spec": negatives, "fpr": negatives}
    return by_name.get(_parse(rule)[0], min(positives, negatives))


def _parse(rule: str) -> tuple[str, float]:
    name, _, value = rule.partition("@")
    if name in ("youden", "min_gap") and not value:
        return name, float("nan")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if name not in ("sens", "spec", "fpr") or not 0 <= number <= 1:
        raise InputError(
            f"Unknown threshold rule {rule!r}; use youden, min_gap, sens@x, spec@x or fpr@x"
            " with x between 0 and 1."
        )
    return name, number
