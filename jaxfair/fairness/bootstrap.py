"""Bootstrap over patients: whole patients are drawn, with all of their images.

`TableBootstrap` computes average precision of many groups at once from one draw, fast enough for
200,000 images; any other function is called on the rows drawn. Rates need no draws (rates.py), but
for the thresholds, which it fits again and again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jaxfair.fairness import thresholds
from jaxfair.fairness.catalog import Metric
from jaxfair.fairness.values import checked_pair

__all__ = ["Replicate", "TableBootstrap", "patient_weights", "percentile_interval"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def patient_weights(n_patients: int, rng: np.random.Generator) -> Ints:
    """Returns how often each patient is drawn in one resample of n_patients patients."""
    return np.bincount(rng.integers(0, n_patients, n_patients), minlength=n_patients)


def percentile_interval(replicates: Array, level: float = 0.95) -> tuple[float, float]:
    """Returns the central quantiles of the defined replicates.

    NaN if fewer than 90 % of the resamples define the statistic, since the remaining ones are
    a selected set, and NaN if the quantiles are one number but for rounding: 3 of 3
    found is no proof of 100 %.
    """
    defined = replicates[np.isfinite(replicates)]
    if len(defined) < 0.9 * len(replicates) or not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [0.5 - level / 2, 0.5 + level / 2])
    apart = high - low > 1e-12 * max(abs(low), abs(high))
    return (float(low), float(high)) if apart else (float("nan"), float("nan"))


class Replicate(NamedTuple):
    """What one draw of patients gives for the groups of one partition.

    Attributes:
      precision: (groups,) average precision.
      others: name -> (groups,), of the metrics that are called as they are.
    """

    precision: Array
    others: dict[str, Array]


class TableBootstrap:
    """Replicates of average precision and of further metrics, for many groups.

    Validation patients are drawn too, and the thresholds fitted again on each draw
    (protocol S6), unless there are none: then the `fixed` thresholds hold throughout.

    Args:
      y_true, y_score, patients: (n,) of the test rows; patient codes 0..p-1.
      partitions: for each attribute the (n,) group codes 0..k-1 of the test rows.
      rules: threshold rules.
      validation: (y_true, y_score, patients) of the validation rows, or None.
      fixed: thresholds by rule, of the point estimates; NaN where there is none.
      others: further metrics by name, called for every group on the rows that were drawn.
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
        others: Mapping[str, Metric] | None = None,
    ) -> None:
        y_true, y_score = checked_pair(y_true, y_score)
        order = np.argsort(y_score, kind="stable")
        self._y, self._score, self._codes = y_true[order], y_score[order], patients[order]
        self._rules, self._fixed = tuple(rules), list(fixed)
        self.n_patients = int(patients.max()) + 1
        self._others = dict(others or {})
        self._groups = codes = [partition[order] for partition in partitions]
        self.sizes = [int(code.max()) + 1 for code in codes]
        self._precisions = [_Precision(self._y, self._score, code) for code in codes]
        self._validation = None if validation is None else _Validation(*validation)

    @property
    def refits(self) -> bool:
        """True if every draw fits the thresholds again."""
        return self._validation is not None

    def point(self) -> list[Replicate]:
        """Returns the values of the data as they are, one Replicate for each partition."""
        return self._all(np.ones(len(self._y), dtype=np.int64), self._fixed)

    def replicates(
        self, n_bootstrap: int, seed: int
    ) -> Iterator[tuple[list[Replicate], Sequence[float]]]:
        """Yields what `point` returns, for redrawn patients, and the thresholds of each draw."""
        rng = np.random.default_rng(seed)
        for _ in range(n_bootstrap):
            fitted = self._refitted(rng)
            yield self._all(patient_weights(self.n_patients, rng)[self._codes], fitted), fitted

    def _all(self, weights: Ints, fitted: Sequence[float]) -> list[Replicate]:
        precisions = [p(weights) for p in self._precisions]
        others = [self._called(weights, fitted, i) for i in range(len(self.sizes))]
        return [Replicate(*parts) for parts in zip(precisions, others, strict=True)]

    def _called(self, weights: Ints, fitted: Sequence[float], partition: int) -> dict[str, Array]:
        """The further metrics of every group, each called on the rows as often as they count."""
        if not self._others:
            return {}
        rows = np.repeat(np.arange(len(weights)), weights)
        y, s, groups = self._y[rows], self._score[rows], self._groups[partition][rows]
        at = dict(zip(self._rules, fitted, strict=True))
        return {
            name: np.array(
                [metric.of_group(y, s, groups == g, at) for g in range(self.sizes[partition])]
            )
            for name, metric in self._others.items()
        }

    def _refitted(self, rng: np.random.Generator) -> list[float]:
        if self._validation is None:
            return self._fixed
        return self._validation.fit(self._rules, rng)


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
