"""Rates of groups under many assignments of patients to groups, with their patients' variance."""

import numpy as np
import numpy.typing as npt

from jaxfair.fairness.values import checked_classes

__all__ = ["clustered_rates", "rate_floor"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def clustered_rates(
    y_true: Array,
    patients: Ints,
    right: npt.NDArray[np.bool_],
    assigned: npt.NDArray[np.integer],
    n_groups: int,
) -> tuple[Array, Array]:
    """Returns (S, 2, k) shares of right decisions among positives and negatives, and variances.

    Args:
      y_true: (n,) labels.
      patients: (n,) codes, ascending.
      right: (S, n) whether each row is decided rightly.
      assigned: (S, p) group codes 0..k-1 of the patients.
      n_groups: k.

    Returns:
      Rates, NaN where a group has no such rows, and their variances over patients.
    """
    y_true, sets = checked_classes(y_true), len(assigned)
    values, variances = np.empty((sets, 2, n_groups)), np.empty((sets, 2, n_groups))
    for line, label in enumerate((1, 0)):
        rows = np.flatnonzero(y_true == label)
        people = patients[rows]
        starts = np.flatnonzero(np.diff(people, prepend=-1))
        hits = np.add.reduceat(right[:, rows], starts, axis=1, dtype=np.float64)
        size = np.diff(np.append(starts, len(rows))).astype(float)
        home = assigned[:, people[starts]] + np.arange(sets)[:, None] * n_groups
        found = _rate(*_summed(home, hits, size, sets * n_groups))
        values[:, line], variances[:, line] = (part.reshape(sets, n_groups) for part in found)
    return values, variances


def _summed(home: Ints, hits: Array, size: Array, n: int) -> tuple[Array, ...]:
    """Sums over the patients of each group: hits, rows, their squares and product, patients."""
    where = home.ravel()
    people = np.bincount(where, minlength=n).astype(float)
    if size.max() == 1:
        right = np.bincount(where, hits.ravel(), minlength=n).astype(float)
        return right, people, right, people, right, people
    sizes = np.broadcast_to(size, hits.shape)
    parts = (hits, sizes, hits**2, sizes**2, hits * sizes)
    return *(np.bincount(where, part.ravel(), minlength=n) for part in parts), people


def _rate(
    hits: Array, rows: Array, hits2: Array, rows2: Array, both: Array, people: Array
) -> tuple[Array, Array]:
    """Rates and their variances over patients, never below what half a case more would show."""
    n = np.maximum(rows, 1)
    rate = np.where(rows > 0, hits / n, np.nan)
    spread = (hits2 - 2 * rate * both + rate**2 * rows2) / n**2 * people / np.maximum(people - 1, 1)
    return rate, np.maximum(spread, rate_floor(rate, n))


def rate_floor(rates: Array, n: Array) -> Array:
    """Returns the variance of rates of n rows with half a case added: never 0, as at 0 and 1."""
    near = (rates * n + 0.5) / (n + 1)
    return np.asarray(near * (1 - near) / np.maximum(n, 1))
