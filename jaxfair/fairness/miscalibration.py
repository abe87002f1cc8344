"""Differences of calibration between groups, beside what groups of these sizes show by chance.

The expected calibration error is above 0 for a perfect model, and the more so the smaller a group
(calibration.py): a difference of ECEs is read beside its null, and the debiased squared error
beside it (protocol S7). Bins are 15 of equal width on [0, 1], whatever the scores.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jaxfair.fairness.calibration import N_BINS
from jaxfair.fairness.levels import Levels, by_bootstrap
from jaxfair.fairness.permutation import own_groups, permuted_groups
from jaxfair.fairness.resamples import Resamples, compared_groups
from jaxfair.fairness.values import checked_probabilities

__all__ = ["EQUAL_WIDTH", "miscalibration"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EQUAL_WIDTH = np.arange(1, N_BINS) / N_BINS
"""Inner edges of 15 bins of equal width."""


def miscalibration(
    resamples: Resamples,
    attribute: str,
    probabilities: npt.ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    n_permutations: int = 199,
) -> Levels:
    """Returns each group's ECE and debiased squared error, with redraws and a null.

    Under the null patients exchange groups whatever their labels, since a prevalence that
    differs is what a wrong calibration shows as.

    Args:
      resamples: the rows.
      attribute: a column or an intersection.
      probabilities: (n,) of the test rows as `predictions` had them (`Rows.order` sorts them).
      groups: to be compared; None takes those with enough patients.
      n_permutations: for the null.
    """
    names = compared_groups(resamples.test.table, attribute, groups)
    test, k = resamples.test, len(names)
    p = checked_probabilities(np.asarray(probabilities, dtype=float)[test.order])
    cells = _Cells(test.y, p)
    codes = test.codes(attribute, names)
    values = cells.errors(codes, np.ones(len(test)), k)
    draws = np.array([cells.errors(codes, w[test.people], k) for w in resamples.weights])
    own = own_groups(codes, test.people)
    floor = np.full((2, k), 1e-12)
    if own is None or k < 2:
        t, null, null_t = by_bootstrap(values, draws, floor)
    else:
        null = _permuted(cells, own, test.people, k, resamples.seed, n_permutations)
        t, null_t = np.ptp(values, axis=1), null
    everyone = np.zeros(len(test), dtype=np.int64)
    return Levels(
        "calibration",
        tuple(names),
        values,
        draws,
        floor,
        float(cells.errors(everyone, np.ones(len(test)), 1)[0, 0]),
        np.array([cells.errors(everyone, w[test.people], 1)[0, 0] for w in resamples.weights]),
        t,
        null,
        null_t,
        ("bootstrap" if own is None else "permutation") if len(null) else "undefined",
        int(np.bincount(codes, test.y, minlength=k + 1)[:k].min()) if k else 0,
    )


def _permuted(cells: "_Cells", own: Ints, people: Ints, k: int, seed: int, n: int) -> Array:
    """(R, 2) ranges where the patients of compared groups have exchanged them."""
    rng = np.random.default_rng([seed, 3])
    assigned = permuted_groups(own, (own == k).astype(np.int64), n, rng)
    once = np.ones(len(people))
    found = [np.ptp(cells.errors(a[people].astype(np.int64), once, k), axis=1) for a in assigned]
    return np.array(found).reshape(-1, 2)


class _Cells:
    """Rows by bin."""

    def __init__(self, y: Array, p: Array) -> None:
        self._y, self._p = y, p
        self._bin = np.searchsorted(EQUAL_WIDTH, p, side="right")

    def errors(self, codes: Ints, weights: npt.ArrayLike, k: int) -> Array:
        """(2, k) ECE and debiased squared error of groups 0..k-1; NaN for empty ones."""
        w, size = np.asarray(weights, dtype=float), (k + 1) * N_BINS
        key = codes * N_BINS + self._bin
        parts = [np.bincount(key, x, minlength=size) for x in (w, w * self._y, w * self._p)]
        n, true, stated = (part.astype(float).reshape(-1, N_BINS)[:k] for part in parts)
        safe = np.maximum(n, 1)
        apart, share = (true - stated) / safe, true / safe
        several = np.where(n > 1, n, 0.0)
        squares = apart**2 - share * (1 - share) / np.maximum(n - 1, 1)
        return np.stack([_mean(np.abs(apart), n), _mean(squares, several)])


def _mean(values: Array, weights: Array) -> Array:
    total = weights.sum(axis=1)
    above = (values * weights).sum(axis=1)
    return np.divide(above, total, out=np.full(len(total), np.nan), where=total > 0)
