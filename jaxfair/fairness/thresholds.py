"""Thresholds, fitted on validation rows only, and stored to be applied to test rows.

There is one for everybody, or one for each group of an attribute: whoever uses those has to know
a patient's group at test time. The rules: rules.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.errors import InputError
from jaxfair.fairness.catalog import METRICS
from jaxfair.fairness.groups import OVERALL, group_labels
from jaxfair.fairness.predictions import checked
from jaxfair.fairness.rules import MIN_CASES, Sorted, fit_threshold

__all__ = [
    "GROUP_RULES",
    "MIN_CASES",
    "RULES",
    "Sorted",
    "fit_threshold",
    "fit_thresholds",
    "group_thresholds",
    "row_thresholds",
]

RULES = tuple(dict.fromkeys(m.rule for m in METRICS.values() if m.needs == "decisions"))
"""The rules of METRICS: the working point, and two fixed rates."""

GROUP_RULES = ("min_gap", "youden", "g_means")
"""The rules by which groups get thresholds of their own: all weigh both labels alike."""

STORED = tuple(dict.fromkeys([*RULES, *GROUP_RULES]))
"""The rules of the pooled thresholds in thresholds.json."""

Array = npt.NDArray[np.float64]


def fit_thresholds(
    predictions: pd.DataFrame, rules: Sequence[str] = STORED, *, attributes: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Returns the thresholds of every task, from the validation rows alone.

    Args:
      predictions: rows as in docs/contracts.md (see `predictions.checked`).
      rules: of the pooled thresholds, see `fit_threshold`.
      attributes: columns or intersections whose groups get thresholds of their own, by
        GROUP_RULES and protocol S6.

    Returns:
      `{task: {rule: threshold or None, "n_positive": int, "n_negative": int}}`, ready for
      thresholds.json; None where the validation rows cannot define the rule. With attributes
      also `"groups": {attribute: {group: {rule: threshold or None, "own": bool, "n_positive",
      "n_negative"}}}`, where `own` is False for a group that takes the pooled thresholds.
    """
    fitted = {}
    for task, rows in checked(predictions).groupby("task", sort=True):
        rows = rows[rows["split"] == "validation"]
        ordered = Sorted(rows["y_true"], rows["y_score"])
        values = ordered.fit_many(rules)
        entry: dict[str, Any] = {**_told(rules, values), **_sizes(rows["y_true"])}
        if attributes:
            entry["groups"] = {name: _by_group(ordered, rows, name) for name in attributes}
        fitted[str(task)] = entry
    return fitted


def _by_group(ordered: Sorted, rows: pd.DataFrame, attribute: str) -> dict[str, Any]:
    labels = group_labels(rows, attribute)
    groups = sorted(set(labels))
    codes = np.array([groups.index(label) for label in labels], dtype=np.int64)[ordered.order]
    by_rule = [ordered.fit_groups(rule, codes, len(groups)) for rule in GROUP_RULES]
    return {
        group: {
            **_told(GROUP_RULES, [float(values[g]) for values, _ in by_rule]),
            "own": bool(by_rule[0][1][g]),
            **_sizes(rows["y_true"][labels == group]),
        }
        for g, group in enumerate(groups)
    }


def _told(rules: Sequence[str], values: Sequence[float]) -> dict[str, float | None]:
    return {rule: None if np.isnan(v) else v for rule, v in zip(rules, values, strict=True)}


def _sizes(y_true: pd.Series) -> dict[str, int]:
    positives = int(y_true.sum())
    return {"n_positive": positives, "n_negative": len(y_true) - positives}


def group_thresholds(
    validation: pd.DataFrame, attribute: str, rule: str = "min_gap", min_cases: int = MIN_CASES
) -> dict[str, tuple[float, bool]]:
    """Returns `{group: (threshold, is_own)}` for one task's validation rows.

    A group with fewer than `min_cases` cases of the class that defines the rule takes the
    pooled threshold and `is_own` False (protocol S6: from 50 negatives the realised
    false-positive rate at a nominal 5 % ranges from 1.7 to 14.8 %).
    """
    labels = group_labels(validation, attribute)
    groups = sorted(set(labels)) if attribute != OVERALL else ["all"]
    ordered = Sorted(validation["y_true"], validation["y_score"])
    codes = np.array([groups.index(label) for label in labels], dtype=np.int64)[ordered.order]
    values, own = ordered.fit_groups(rule, codes, len(groups), min_cases=min_cases)
    return {group: (float(values[g]), bool(own[g])) for g, group in enumerate(groups)}


def row_thresholds(
    rows: pd.DataFrame, stored: Mapping[str, Any], attribute: str | None, rule: str = "min_gap"
) -> Array:
    """Returns the stored threshold of each row, (n,); NaN where there is none.

    Args:
      rows: of one task.
      stored: of that task, as `fit_thresholds` returns or thresholds.json holds.
      attribute: whose groups have thresholds of their own; a group that is not there takes the
        pooled one. None gives that one to all.

    Raises:
      InputError: if thresholds of this attribute were not stored.
    """
    pooled = stored.get(rule)
    everyone = np.full(len(rows), np.nan if pooled is None else float(pooled))
    if attribute is None:
        return everyone
    known = stored.get("groups", {})
    if attribute not in known:
        raise InputError(
            f"No thresholds by {attribute!r} are stored; known are {', '.join(known) or 'none'}."
            " Fit them with fit_thresholds(..., attributes=[...])."
        )
    labels = group_labels(rows, attribute)
    for group, told in known[attribute].items():
        value = told.get(rule)
        everyone[labels == group] = np.nan if value is None else float(value)
    return everyone
