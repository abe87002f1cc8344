"""Rules that turn labels and scores into a threshold; a score at or above it is called positive.

A rule is `youden`, `min_gap`, `g_means`, `sens@x`, `spec@x`, `fpr@x` or `fixed@x`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jaxfair.errors import InputError
from jaxfair.fairness.values import checked_pair

__all__ = ["MIN_CASES", "Sorted", "fit_threshold"]

MIN_CASES = 200
"""Validation cases of the class that defines a rule, below which a group uses the pooled one."""

_BARE = ("youden", "min_gap", "g_means")
_WITH_VALUE = ("sens", "spec", "fpr", "fixed")

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


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
        self._first = _starts(self.score)

    def fit(self, rule: str, weights: Array | None = None) -> float:
        """Returns the threshold of `rule` for sorted rows that count `weights` times each.

        NaN if a class that the rule needs has no weight.
        """
        return self.fit_many((rule,), weights)[0]

    def fit_many(self, rules: Sequence[str], weights: Array | None = None) -> list[float]:
        """Returns the thresholds of several rules; they share one pass over the rows."""
        w = np.ones(len(self.y)) if weights is None else weights
        return _fit(self.y, self.score, self._first, w, rules)

    def fit_groups(
        self,
        rule: str,
        groups: npt.NDArray[np.integer],
        size: int,
        weights: Array | None = None,
        min_cases: int = MIN_CASES,
    ) -> tuple[Array, Bools]:
        """Returns the thresholds of groups 0..size-1, (size,), and which are their own, (size,).

        A group takes the pooled threshold where fewer than `min_cases` of its rows are of the
        class that defines the rule (protocol S6).

        Args:
          groups: (n,) codes of the sorted rows; others than 0..size-1 count for the pooled one.
          weights: (n,) of the sorted rows; None counts each once.
        """
        w = np.ones(len(self.y)) if weights is None else weights
        found = np.full(size, self.fit(rule, w))
        place = np.where((groups >= 0) & (groups < size), groups, size)
        sides = (w * self.y, w * (1 - self.y))
        counts = [np.bincount(place, x, size + 1)[:size].astype(float) for x in sides]
        own = _cases(counts[0], counts[1], rule) >= max(min_cases, 1)
        for g in np.flatnonzero(own):  # within a group scores stay in order
            rows = np.flatnonzero(place == g)
            score = self.score[rows]
            found[g] = _fit(self.y[rows], score, _starts(score), w[rows], (rule,))[0]
        return found, own


def fit_threshold(y_true: npt.ArrayLike, y_score: npt.ArrayLike, rule: str = "youden") -> float:
    """Returns the threshold of one rule on these rows, which should be validation rows.

    Args:
      y_true: (n,) labels 0 or 1.
      y_score: (n,) finite scores.
      rule: `youden` (largest TPR - FPR), `min_gap` (smallest |TPR - TNR|, FairREAD's), `g_means`
        (largest sqrt(TPR TNR)), `sens@x` (highest threshold with TPR >= x), `spec@x` (lowest with
        TNR >= x), `fpr@x` (lowest with FPR <= x), `fixed@x` (x, whatever the rows).

    Returns:
      One of the scores, the next float above them all, or the fixed number; NaN if the rule is
      undefined.

    Raises:
      InputError: for an unknown rule.

    >>> fit_threshold([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], "sens@0.5")
    0.4
    """
    return Sorted(y_true, y_score).fit(rule)


def _starts(score: Array) -> Ints:
    """Where each run of equal scores begins, in ascending scores."""
    return np.flatnonzero(np.diff(score, prepend=-np.inf) > 0)


def _fit(y: Array, score: Array, first: Ints, w: Array, rules: Sequence[str]) -> list[float]:
    """Thresholds of ascending scores, whose runs of ties begin at `first`."""
    tpr, fpr = _share_at_or_above(w * y, first), _share_at_or_above(w * (1 - y), first)
    return [_threshold(score, first, _pick(rule, tpr, fpr), rule) for rule in rules]


def _share_at_or_above(weights: Array, first: Ints) -> Array:
    below = np.concatenate([[0.0], np.cumsum(weights)])
    total = below[-1]
    shares = np.append(total - below[first], 0.0)
    return shares / total if total > 0 else np.full(len(shares), np.nan)


def _pick(rule: str, tpr: Array, fpr: Array) -> int | None:
    """The place of a rule's threshold among the candidates; None where it is undefined."""
    name, value = _parse(rule)
    if name == "fixed":
        return None
    needed = {"sens": tpr, "spec": fpr, "fpr": fpr}.get(name, tpr + fpr)
    if len(tpr) < 2 or np.isnan(needed).any():
        return None
    if name == "youden":
        return int(np.argmax(tpr - fpr))
    if name == "min_gap":
        return int(np.argmin(np.abs(tpr - (1 - fpr))))
    if name == "g_means":
        return int(np.argmax(tpr * (1 - fpr)))
    if name == "sens":
        return int(np.flatnonzero(tpr >= value - 1e-12)[-1])
    limit = value if name == "fpr" else 1 - value
    return int(np.flatnonzero(fpr <= limit + 1e-12)[0])


def _threshold(score: Array, first: Ints, candidate: int | None, rule: str) -> float:
    name, value = _parse(rule)
    if name == "fixed":
        return value
    if candidate is None:
        return float("nan")
    if candidate == len(first):
        return float(np.nextafter(score[-1], np.inf))
    return float(score[first[candidate]])


def _cases(positives: Array, negatives: Array, rule: str) -> Array:
    """Rows of the class that defines a rule; of the rarer one where both do; 0 for a fixed one."""
    by_name = {"sens": positives, "spec": negatives, "fpr": negatives, "fixed": 0 * positives}
    return by_name.get(_parse(rule)[0], np.minimum(positives, negatives))


def _parse(rule: str) -> tuple[str, float]:
    name, _, value = rule.partition("@")
    if name in _BARE and not value:
        return name, float("nan")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    rate = 0 <= number <= 1 or (name == "fixed" and np.isfinite(number))
    if name not in _WITH_VALUE or not rate:
        raise InputError(
            f"Unknown threshold rule {rule!r}; use youden, min_gap, g_means, sens@x, spec@x or"
            " fpr@x with x between 0 and 1, or fixed@x."
        )
    return name, number
