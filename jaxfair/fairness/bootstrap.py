"""Bootstrap over patients: whole patients are drawn, with all of their images.

`patient_bootstrap` takes any function of rows. `TableBootstrap` computes the metrics of
many groups at once from one draw, fast enough for 200,000 images.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.stats

from jaxfair.fairness import metrics, thresholds

__all__ = [
    "Interval",
    "TableBootstrap",
    "bca_interval",
    "patient_bootstrap",
    "patient_weights",
    "percentile_interval",
    "studentised_interval",
]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Statistic = Callable[[Ints], float]


class Interval(NamedTuple):
    """An estimate between two bounds; NaN where undefined."""

    value: float
    low: float
    high: float


def patient_weights(n_patients: int, rng: np.random.Generator) -> Ints:
    """Returns how often each patient is drawn in one resample of n_patients patients."""
    return np.bincount(rng.integers(0, n_patients, n_patients), minlength=n_patients)


def patient_bootstrap(
    statistic: Statistic,
    patients: npt.ArrayLike,
    *,
    seed: int,
    n_bootstrap: int = 2000,
    kind: str = "percentile",
    standard_error: Statistic | None = None,
    level: float = 0.95,
) -> Interval:
    """Returns a patient-cluster bootstrap interval of any statistic of rows.

    Args:
      statistic: from (m,) row positions, repeats allowed, to a number; NaN if undefined.
      patients: (n,) codes 0..p-1 of the rows.
      seed: of numpy's default_rng; the same seed gives the same interval.
      n_bootstrap: number of resamples.
      kind: `percentile`, `bca` (bias and acceleration; p further evaluations without one
        patient each) or `studentised` (needs `standard_error`, of the same rows).
      standard_error: the statistic's standard error from row positions.
      level: coverage aimed at.

    Raises:
      ValueError: for an unknown kind, or `studentised` without `standard_error`.
    """
    if kind not in ("percentile", "bca", "studentised"):
        raise ValueError(f"kind is percentile, bca or studentised, got {kind!r}.")
    if kind == "studentised" and standard_error is None:
        raise ValueError("A studentised interval needs standard_error, a function of rows.")
    rows_of = _rows_by_patient(np.asarray(patients, dtype=np.int64))
    everyone = np.concatenate(rows_of)
    value = statistic(everyone)
    rng = np.random.default_rng(seed)
    draws = [_draw(rows_of, rng) for _ in range(n_bootstrap)]
    replicates = np.array([statistic(rows) for rows in draws])
    if kind == "percentile":
        return Interval(value, *percentile_interval(replicates, level))
    if kind == "bca":
        without = [np.concatenate(rows_of[:i] + rows_of[i + 1 :]) for i in range(len(rows_of))]
        jackknife = np.array([statistic(rows) for rows in without])
        return Interval(value, *bca_interval(value, replicates, jackknife, level))
    assert standard_error is not None
    errors = np.array([standard_error(rows) for rows in draws])
    bounds = studentised_interval(value, standard_error(everyone), replicates, errors, level)
    return Interval(value, *bounds)


def percentile_interval(replicates: Array, level: float = 0.95) -> tuple[float, float]:
    """Returns the central quantiles of the defined replicates.

    NaN if fewer than 90 % of the resamples define the statistic, since the remaining ones are
    a selected set, and NaN if the quantiles are one number: 3 of 3 found is no proof of 100 %.
    """
    defined = replicates[np.isfinite(replicates)]
    if len(defined) < 0.9 * len(replicates) or not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [0.5 - level / 2, 0.5 + level / 2])
    return (float(low), float(high)) if low < high else (float("nan"), float("nan"))


def bca_interval(
    value: float, replicates: Array, jackknife: Array, level: float = 0.95
) -> tuple[float, float]:
    """Returns Efron's bias-corrected and accelerated interval (Efron & Tibshirani 1993, 14.10).

    Args:
      value: the estimate.
      replicates: (B,) bootstrap values.
      jackknife: (p,) values without one patient each, for the acceleration.
      level: coverage aimed at.
    """
    defined = replicates[np.isfinite(replicates)]
    if len(defined) < 0.9 * len(replicates) or not len(defined) or not np.isfinite(value):
        return float("nan"), float("nan")
    below = (defined < value).mean() + (defined == value).mean() / 2
    bias = scipy.stats.norm.ppf(np.clip(below, 1e-6, 1 - 1e-6))
    pull = np.nanmean(jackknife) - jackknife[np.isfinite(jackknife)]
    spread = (pull**2).sum()
    acceleration = (pull**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    z = bias + scipy.stats.norm.ppf([0.5 - level / 2, 0.5 + level / 2])
    shares = scipy.stats.norm.cdf(bias + z / (1 - acceleration * z))
    low, high = np.quantile(defined, shares)
    return float(low), float(high)


def studentised_interval(
    value: float, error: float, replicates: Array, errors: Array, level: float = 0.95
) -> tuple[float, float]:
    """Returns the bootstrap-t interval; replicates without a positive error are left out."""
    usable = np.isfinite(replicates) & (errors > 0)
    if usable.sum() < 0.9 * len(replicates) or not usable.any():
        return float("nan"), float("nan")
    ratios = (replicates[usable] - value) / errors[usable]
    high, low = np.quantile(ratios, [0.5 - level / 2, 0.5 + level / 2])
    return float(value - low * error), float(value - high * error)


class TableBootstrap:
    """Replicates of average precision and of all rates, for many groups from one draw.

    Validation patients are drawn too, and the thresholds fitted again on each draw
    (protocol S6), unless there are none: then the `fixed` thresholds hold throughout.

    Args:
      y_true, y_score, patients: (n,) of the test rows; patient codes 0..p-1.
      partitions: for each attribute the (n,) group codes 0..k-1 of the test rows.
      rules: threshold rules.
      validation: (y_true, y_score, patients) of the validation rows, or None.
      fixed: thresholds by rule, of the point estimates; NaN where there is none.
    """

    def __init__(
        self,
        y_true: Array,
        y_score: Array,
        patients: Ints,
        partitions: Sequence[Ints],
        *,
        rules: Sequence[str],
        validation: tuple[Array, Array, Ints] | None,
        fixed: Sequence[float],
    ) -> None:
        order = np.argsort(y_score, kind="stable")
        self._y, self._score, self._codes = y_true[order], y_score[order], patients[order]
        self._rules, self._fixed = tuple(rules), list(fixed)
        self.n_patients = int(patients.max()) + 1
        codes = [partition[order] for partition in partitions]
        self.sizes = [int(code.max()) + 1 for code in codes]
        cells, members = np.unique(np.stack(codes), axis=1, return_inverse=True)
        self._cells = cells
        self._base = members.astype(np.int64) * 2 + self._y.astype(np.int64)
        self._precisions = [_Precision(self._y, self._score, code) for code in codes]
        self._validation = None if validation is None else _Validation(*validation)

    def point(self) -> tuple[list[Array], list[metrics.Counts]]:
        """Returns average precision by partition and counts by partition for the data as is."""
        ones = np.ones(len(self._y), dtype=np.int64)
        return [p(ones) for p in self._precisions], self._counts(ones, self._fixed)

    def replicates(
        self, n_bootstrap: int, seed: int
    ) -> Iterator[tuple[list[Array], list[metrics.Counts]]]:
        """Yields what `point` returns, for redrawn patients.

        The arrays of counts have shape (rules + 1, groups), where the last row calls everyone
        positive; those of precision have shape (groups,).
        """
        rng = np.random.default_rng(seed)
        for _ in range(n_bootstrap):
            fitted = self._refitted(rng)
            weights = patient_weights(self.n_patients, rng)[self._codes]
            yield [p(weights) for p in self._precisions], self._counts(weights, fitted)

    def _refitted(self, rng: np.random.Generator) -> list[float]:
        if self._validation is None:
            return self._fixed
        return self._validation.fit(self._rules, rng)

    def _counts(self, weights: Ints, stored: Sequence[float]) -> list[metrics.Counts]:
        """Counts at each rule, by partition: one pass over the rows for all of them."""
        fitted = np.array([*stored, -np.inf])
        n_rules = len(fitted)
        starts = np.searchsorted(self._score, fitted, side="left")
        ranks = np.argsort(starts, kind="stable")
        edges = [0, *starts[ranks].tolist(), len(self._score)]
        n_cells = self._cells.shape[1]
        above = np.zeros((n_rules + 1, n_cells * 2))
        for step in range(n_rules + 1):
            part = slice(edges[step], edges[step + 1])
            above[step] = np.bincount(self._base[part], weights[part], minlength=n_cells * 2)
        total = above.sum(axis=0)
        called = np.empty((n_rules, n_cells, 2))
        called[ranks] = (total - np.cumsum(above, axis=0)[:-1]).reshape(n_rules, n_cells, 2)
        missed = total.reshape(n_cells, 2) - called
        called[np.isnan(fitted)] = missed[np.isnan(fitted)] = np.nan
        return [self._merge(called, missed, i) for i in range(len(self.sizes))]

    def _merge(self, called: Array, missed: Array, partition: int) -> metrics.Counts:
        matrix = np.zeros((self._cells.shape[1], self.sizes[partition]))
        matrix[np.arange(len(matrix)), self._cells[partition]] = 1
        tp, fp = called[..., 1] @ matrix, called[..., 0] @ matrix
        return metrics.Counts(tp, missed[..., 1] @ matrix, fp, missed[..., 0] @ matrix)


class _Precision:
    """Weighted average precision of every group of one partition in one pass."""

    def __init__(self, y: Array, score: Array, groups: Ints) -> None:
        self._order = np.lexsort((-score, groups))
        y, score, groups = y[self._order], score[self._order], groups[self._order]
        self._size = int(groups.max()) + 1
        new_block = (np.diff(score, prepend=np.nan) != 0) | (np.diff(groups, prepend=-1) != 0)
        ends = np.append(np.flatnonzero(new_block)[1:], len(y)) - 1
        self._positives = np.flatnonzero(y == 1)
        self._group = groups[self._positives]
        self._end = ends[np.cumsum(new_block) - 1][self._positives]
        self._last = np.searchsorted(self._positives, self._end, side="right") - 1
        edges = np.arange(self._size + 1)
        self._edges = np.searchsorted(groups, edges)
        self._positive_edges = np.searchsorted(self._group, edges)

    def __call__(self, weights: Ints) -> Array:
        w = weights[self._order]
        at_positives = w[self._positives]
        both, true = _running(w), _running(at_positives)
        called = both[self._end + 1] - both[self._edges][self._group]
        hits = true[self._last + 1] - true[self._positive_edges][self._group]
        # Where nothing is called, the positive itself was not drawn and counts zero.
        precision = at_positives * hits / np.maximum(called, 1)
        above = np.bincount(self._group, precision, minlength=self._size)
        below, total = np.diff(true[self._positive_edges]), np.diff(both[self._edges])
        defined = (below > 0) & (below < total)
        return np.divide(above, below, out=np.full(self._size, np.nan), where=defined)


def _running(weights: Ints) -> Ints:
    """Sums of the first 0, 1, ..., n weights."""
    sums = np.zeros(len(weights) + 1, dtype=np.int64)
    np.cumsum(weights, out=sums[1:])
    return sums


class _Validation:
    """Validation rows, sorted once, for thresholds fitted again and again."""

    def __init__(self, y_true: Array, y_score: Array, patients: Ints) -> None:
        self._sorted = thresholds.Sorted(y_true, y_score)
        self._codes = patients[self._sorted.order]
        self._n_patients = int(patients.max()) + 1

    def fit(self, rules: Sequence[str], rng: np.random.Generator) -> list[float]:
        weights = patient_weights(self._n_patients, rng).astype(float)[self._codes]
        return self._sorted.fit_many(rules, weights)


def _rows_by_patient(codes: Ints) -> list[Ints]:
    order = np.argsort(codes, kind="stable")
    edges = np.flatnonzero(np.diff(codes[order])) + 1
    return [np.asarray(part) for part in np.split(order, edges)]


def _draw(rows_of: Sequence[Ints], rng: np.random.Generator) -> Ints:
    chosen = rng.integers(0, len(rows_of), len(rows_of))
    return np.concatenate([rows_of[i] for i in chosen])
