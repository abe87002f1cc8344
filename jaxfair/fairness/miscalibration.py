"""Differences of calibration between groups, beside what groups of these sizes show by chance.

The expected calibration error is above 0 for a perfect model, and the more so the smaller a group
(calibration.py): a difference of ECEs is read beside its null, and the debiased squared error
beside it (protocol S7). Bins are 15 of equal width on [0, 1], whatever the scores.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jaxfair.fairness.calibration import N_BINS, equal_mass_edges
from jaxfair.fairness.levels import Levels, by_bootstrap
from jaxfair.fairness.permutation import own_groups, permuted_groups
from jaxfair.fairness.resamples import Resamples
from jaxfair.fairness.values import checked_probabilities

__all__ = ["EQUAL_WIDTH", "calibration_levels"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EQUAL_WIDTH = np.arange(1, N_BINS) / N_BINS
"""Inner edges of 15 bins of equal width."""

_CHUNK = 1_000_000


def calibration_levels(
    resamples: Resamples,
    attribute: str,
    probabilities: npt.ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    n_permutations: int = 199,
) -> Levels:
    """Returns each group's ECE and debiased squared error, with redraws and a null.

    Under the null patients with as many images (1, 2, more) and about the same probability (15
    strata of their mean) exchange groups, whatever their labels: what this estimate shows by chance
    depends on how many rows a group has and how high they are, and both stay.

    Args:
      resamples: the rows.
      attribute: a column or an intersection.
      probabilities: (n,) of the test rows as `predictions` had them (`Rows.order` sorts them).
      groups: to be compared; None takes those with enough patients.
      n_permutations: for the null.
    """
    names = resamples.compared(attribute, groups)
    test, k = resamples.test, len(names)
    p = checked_probabilities(np.asarray(probabilities, dtype=float)[test.order])
    cells = _Cells(test.y, p)
    codes = test.codes(attribute, names)
    once = np.ones((1, len(test)))
    values = cells.errors(codes[None], once, k)[0]
    draws = np.concatenate(
        [
            cells.errors(codes[None], resamples.weights[part][:, test.people], k)
            for part in _chunks(resamples.n_draws, len(test))
        ]
    )
    own = own_groups(codes, test.people)
    floor = np.full((2, k), 1e-12)
    if own is None or k < 2:
        t, null, null_t = by_bootstrap(values, draws, floor)
    else:
        strata = _alike(p, test.people, own, k)
        null = _permuted(cells, own, strata, test.people, k, resamples.seed, n_permutations)
        t, null_t = np.ptp(values, axis=1), null
    everyone = cells.errors(np.zeros((1, len(test)), dtype=np.int64), once, 1)
    return Levels(
        "calibration",
        tuple(names),
        values,
        draws,
        floor,
        float(everyone[0, 0, 0]),
        np.full(resamples.n_draws, np.nan),
        t,
        null,
        null_t,
        ("bootstrap" if own is None else "permutation") if len(null) else "undefined",
        int(np.bincount(codes, test.y, minlength=k + 1)[:k].min()) if k else 0,
    )


def _alike(p: Array, people: Ints, own: Ints, k: int) -> Ints:
    """(patients,) who may exchange groups; patients of groups that are not compared keep theirs."""
    images = np.bincount(people)
    means = np.bincount(people, p) / images
    edges = equal_mass_edges(means[own < k]) if (own < k).any() else np.empty(0)
    strata = np.searchsorted(edges, means, side="right") + N_BINS * np.minimum(images, 3)
    strata = np.where(own < k, strata, 4 * N_BINS + own)
    return np.unique(strata, return_inverse=True)[1].astype(np.int64)


def _permuted(
    cells: "_Cells", own: Ints, strata: Ints, people: Ints, k: int, seed: int, n: int
) -> Array:
    """(R, 2) ranges where patients have exchanged groups within strata."""
    rng = np.random.default_rng([seed, 3])
    once = np.ones((1, len(people)))
    found = [np.empty((0, 2))]
    for part in _chunks(n, len(people)):
        assigned = permuted_groups(own, strata, part.stop - part.start, rng)
        errors = cells.errors(assigned[:, people].astype(np.int64), once, k)
        found.append(np.ptp(errors, axis=-1))
    return np.concatenate(found)


def _chunks(n: int, rows: int) -> list[slice]:
    size = max(1, _CHUNK // max(rows, 1))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


class _Cells:
    """Rows by bin."""

    def __init__(self, y: Array, p: Array) -> None:
        self._y, self._p = y, p
        self._bin = np.searchsorted(EQUAL_WIDTH, p, side="right")

    def errors(self, codes: Ints, weights: npt.ArrayLike, k: int) -> Array:
        """(S, 2, k) ECE and debiased squared error of groups 0..k-1; NaN for empty ones.

        `codes` and `weights` are (S, n), or (1, n) for one and the same in all.
        """
        codes, w = np.broadcast_arrays(codes, np.asarray(weights, dtype=float))
        sets, size = len(codes), (k + 1) * N_BINS
        key = (codes * N_BINS + self._bin + size * np.arange(sets)[:, None]).ravel()
        parts = [
            np.bincount(key, x.ravel(), minlength=sets * size).astype(float)
            for x in (w, w * self._y, w * self._p)
        ]
        n, true, stated = (part.reshape(sets, k + 1, N_BINS)[:, :k] for part in parts)
        safe = np.maximum(n, 1)
        apart, share = (true - stated) / safe, true / safe
        several = np.where(n > 1, n, 0.0)
        squares = apart**2 - share * (1 - share) / np.maximum(n - 1, 1)
        return np.stack([_mean(np.abs(apart), n), _mean(squares, several)], axis=1)


def _mean(values: Array, weights: Array) -> Array:
    total, above = weights.sum(axis=-1), (values * weights).sum(axis=-1)
    return np.divide(above, total, out=np.full(total.shape, np.nan), where=total > 0)
