"""Plain metrics `f(y_true, y_score[, threshold]) -> float`; undefined is NaN, never a number.

A new metric is a function here and a line in catalog.py, which fairness.csv, GroupFrame and the
report follow.

`y_true` is (n,) of 0 and 1, `y_score` is (n,) finite, higher means more abnormal; anything else
raises InputError (values.py). A score
at the threshold counts as positive (`y_score >= threshold`, scikit-learn's convention).
Groups are sliced elsewhere (frame.py).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.stats
import sklearn.metrics

from jaxfair.fairness.values import checked_pair

__all__ = [
    "RATES",
    "Counts",
    "accuracy",
    "auroc",
    "average_precision",
    "bpsn",
    "confusion",
    "f1",
    "fpr",
    "missed_per_1000",
    "npv",
    "overdiagnosis",
    "positive_rate",
    "ppv",
    "prevalence",
    "rate_from_counts",
    "sauroc",
    "sensitivity",
    "specificity",
    "underdiagnosis",
]

Array = npt.NDArray[np.float64]


def auroc(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> float:
    """Returns P(positive scores above negative), ties one half; NaN with one class only.

    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    y, s = checked_pair(y_true, y_score)
    return _mann_whitney(s[y == 1], s[y == 0])


def sauroc(y_true: npt.ArrayLike, y_score: npt.ArrayLike, in_group: npt.ArrayLike) -> float:
    """Returns P(any positive scores above a negative of the group), ties one half.

    The subgroup AUROC of Meissen et al.: true-positive rate of everybody, false-positive
    rate of the group. Its gap between groups is only about the scores of their normals.

    Args:
      y_true: (n,) labels of all rows.
      y_score: (n,) scores of all rows.
      in_group: (n,) True where the row belongs to the group.

    >>> sauroc([0, 0, 1, 1], [0.1, 0.9, 0.4, 0.8], [True, False, True, False])
    1.0
    """
    y, s = checked_pair(y_true, y_score)
    inside = np.asarray(in_group, dtype=bool)
    return _mann_whitney(s[y == 1], s[(y == 0) & inside])


def bpsn(y_true: npt.ArrayLike, y_score: npt.ArrayLike, in_group: npt.ArrayLike) -> float:
    """Returns the AUROC of background positives against subgroup negatives (Borkan et al. 2019).

    With pi the group's share of all positives,
    `sauroc = pi * auroc_of_group + (1 - pi) * bpsn`.
    """
    y, s = checked_pair(y_true, y_score)
    inside = np.asarray(in_group, dtype=bool)
    return _mann_whitney(s[(y == 1) & ~inside], s[(y == 0) & inside])


def average_precision(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> float:
    """Returns the area under the precision-recall steps; NaN without positives or negatives.

    Read it beside the prevalence, which is its value at chance.
    """
    y, s = checked_pair(y_true, y_score)
    if not 0 < y.sum() < len(y):
        return float("nan")
    return float(sklearn.metrics.average_precision_score(y, s))


class Counts(NamedTuple):
    """The confusion matrix: true/false positives and negatives; numbers or arrays alike."""

    tp: Any
    fn: Any
    fp: Any
    tn: Any


def confusion(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> Counts:
    """Returns the confusion matrix at `y_score >= threshold`.

    >>> confusion([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.2], 0.5)
    Counts(tp=1.0, fn=1.0, fp=1.0, tn=1.0)
    """
    y, s = checked_pair(y_true, y_score)
    positive = s >= threshold
    tp, fp = float((positive & (y == 1)).sum()), float((positive & (y == 0)).sum())
    return Counts(tp, float((y == 1).sum()) - tp, fp, float((y == 0).sum()) - fp)


def sensitivity(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    """Returns TP / positives, the true-positive rate; NaN without positives or threshold."""
    return _rate("sensitivity", y_true, y_score, threshold)


def specificity(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    """Returns TN / negatives; NaN without negatives or threshold."""
    return _rate("specificity", y_true, y_score, threshold)


def fpr(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    """Returns FP / negatives, the false-positive rate; NaN without negatives or threshold."""
    return _rate("fpr", y_true, y_score, threshold)


def underdiagnosis(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    """Returns FN / positives: the ill called healthy (Seyyed-Kalantari et al. 2021)."""
    return _rate("underdiagnosis", y_true, y_score, threshold)


def overdiagnosis(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    """Returns FP / negatives: the healthy called ill (Seyyed-Kalantari et al. 2021)."""
    return _rate("overdiagnosis", y_true, y_score, threshold)


def ppv(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    """Returns TP / called positive, the precision; NaN if nothing is called positive."""
    return _rate("ppv", y_true, y_score, threshold)


def npv(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    """Returns TN / called negative; NaN if nothing is called negative."""
    return _rate("npv", y_true, y_score, threshold)


def accuracy(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    """Returns the share of right calls; NaN without rows or threshold."""
    return _rate("accuracy", y_true, y_score, threshold)


def f1(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    """Returns 2 TP / (2 TP + FP + FN); NaN if there is no positive, called or true."""
    return _rate("f1", y_true, y_score, threshold)


def positive_rate(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    """Returns the share called positive, which demographic parity compares."""
    return _rate("positive_rate", y_true, y_score, threshold)


def missed_per_1000(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    """Returns missed cases (FN) per 1,000 images."""
    return _rate("missed_per_1000", y_true, y_score, threshold)


def prevalence(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> float:
    """Returns the share of positives; NaN without rows."""
    y, _ = checked_pair(y_true, y_score)
    return float(y.mean()) if len(y) else float("nan")


RATES: dict[str, Callable[[Counts], tuple[Any, Any]]] = {
    "sensitivity": lambda c: (c.tp, c.tp + c.fn),
    "specificity": lambda c: (c.tn, c.fp + c.tn),
    "fpr": lambda c: (c.fp, c.fp + c.tn),
    "underdiagnosis": lambda c: (c.fn, c.tp + c.fn),
    "overdiagnosis": lambda c: (c.fp, c.fp + c.tn),
    "ppv": lambda c: (c.tp, c.tp + c.fp),
    "npv": lambda c: (c.tn, c.tn + c.fn),
    "accuracy": lambda c: (c.tp + c.tn, c.tp + c.fn + c.fp + c.tn),
    "f1": lambda c: (2 * c.tp, 2 * c.tp + c.fp + c.fn),
    "positive_rate": lambda c: (c.tp + c.fp, c.tp + c.fn + c.fp + c.tn),
    "missed_per_1000": lambda c: (1000 * c.fn, c.tp + c.fn + c.fp + c.tn),
    "prevalence": lambda c: (c.tp + c.fn, c.tp + c.fn + c.fp + c.tn),
}
"""Numerator and denominator of each rate, from counts of any shape."""


def rate_from_counts(name: str, counts: Counts) -> Array:
    """Returns the rate `name` of RATES elementwise; 0 / 0 is NaN."""
    above, below = (np.asarray(part, dtype=float) for part in RATES[name](counts))
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _rate(name: str, y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    counts = confusion(y_true, y_score, threshold)
    return float("nan") if np.isnan(threshold) else float(rate_from_counts(name, counts))


def _mann_whitney(positives: Array, negatives: Array) -> float:
    if not len(positives) or not len(negatives):
        return float("nan")
    ranks = scipy.stats.rankdata(np.concatenate([positives, negatives]))
    wins = ranks[: len(positives)].sum() - len(positives) * (len(positives) + 1) / 2
    return float(wins / len(positives) / len(negatives))
