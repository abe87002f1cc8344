"""Groups against the rest where units exchange groups: what chance alone gives, to the edge.

Near 0 and 1 a difference of AUROCs or of rates has no symmetric law. So it is taken on the
logit, half a pair (half an image) added on both sides, divided by its patient-cluster error,
and compared with the same number after units of equal labels have changed groups (protocol
S11). An error is never taken below what a fixed share of the smallest possible variance
allows: h (1 - h) / (4 min(m, n)) of an AUROC h of m positives and n negatives, h (1 - h) / n of
a rate h of n images. At an AUROC of 1 the first would grow with n and hide from whom the
others are worse; so it is never above what half a misplaced case says of a logit (variance 2).

A unit is a patient's images in one group. Most patients are one unit; a patient with images
of two views is two, and the error counts what they share.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.special

__all__ = ["STATISTICS", "Exchange", "Sides", "levels_of", "units_of"]

STATISTICS = ("auroc", "sensitivity", "specificity")

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_LEVELS = 256
_CELLS = 400_000
_HALF_A_CASE = 2.0
"""Variance of a logit that rests on half a case, 1 / 0.5 (Anscombe 1956)."""


class Sides(NamedTuple):
    """Groups (first) and their rests (second) under several assignments of units to groups.

    Attributes:
      logit: (assignments, groups, statistics, 2) the statistic with half a pair or image added.
      part: the same shape, variance of each side's logit, never below its floor.
      variance: (assignments, groups, statistics) of the difference; above or below the sum of
        the parts where patients have images on both sides.
    """

    logit: Array
    part: Array
    variance: Array

    @property
    def t(self) -> Array:
        """(assignments, groups, statistics) difference over its error; negative is worse."""
        return np.asarray((self.logit[..., 0] - self.logit[..., 1]) / np.sqrt(self.variance))


def units_of(patients: Ints, codes: Ints) -> Ints:
    """Returns (n,) units 0..u-1, ascending by patient: the patient's rows in one group."""
    pairs = patients.astype(np.int64) * (int(codes.max()) + 1) + codes
    return np.unique(pairs, return_inverse=True)[1].astype(np.int64)


def levels_of(y: Array, score: Array, threshold: float | None) -> tuple[Ints, Bools]:
    """Returns (n,) ranks of the scores, and which ranks are called positive at the threshold.

    More than 256 different scores are merged between quantiles of positives and of negatives;
    the threshold always stays an edge, so that every call is exact.
    """
    edges = np.unique(score)[1:]
    if len(edges) >= _LEVELS:
        shares = np.arange(1, _LEVELS // 2) / (_LEVELS // 2)
        cuts = [
            np.quantile(score[y == v], shares, method="lower") for v in (0, 1) if (y == v).any()
        ]
        edges = np.unique(np.concatenate(cuts))
    if threshold is not None:
        edges = np.unique(np.append(edges, threshold))
    first = np.concatenate([[-np.inf], edges])
    level = np.searchsorted(edges, score, side="right").astype(np.int64)
    return level, first >= (np.inf if threshold is None else threshold)


class Exchange:
    """The rows of one label and one partition into groups, ready for many assignments.

    Args:
      y: (n,) labels 0 or 1.
      score: (n,) finite scores.
      strata: (n,) codes 0..v-1 whose pooled mix, within each label, both sides are weighted to;
        strata that one side lacks weigh nothing. None weights nothing.
      patients: (n,) codes 0..p-1.
      units: (n,) codes, see `units_of`.
      n_groups: groups to be compared; further units have the code n_groups.
      threshold: scores from here on are called positive; None leaves rates out.
    """

    def __init__(
        self,
        y: Array,
        score: Array,
        strata: Ints | None,
        patients: Ints,
        units: Ints,
        n_groups: int,
        threshold: float | None = None,
    ) -> None:
        order = np.argsort(units, kind="stable")
        level, self._called = levels_of(y, score, threshold)
        self._n_strata = 1 if strata is None else int(strata.max()) + 1
        stratum = np.zeros(len(y), dtype=np.int64) if strata is None else strata
        self._levels, self._n_groups = len(self._called), n_groups
        self._size = 2 * self._n_strata * self._levels
        kind = y.astype(np.int64) * self._n_strata + stratum
        cell = (kind * self._levels + level)[order]
        call = (2 * kind + self._called[level])[order]
        owner, label = patients[order], y[order]
        self._rows = _laid_out(cell, units[order], owner)
        self._labels = [
            _laid_out(call[here], units[order][here], owner[here])
            for here in (label == 0, label == 1)
        ]
        self._alone = len(self._rows.owners) == len(y)
        self._total = np.bincount(cell, minlength=self._size)
        self._rates = threshold is not None

    def of(self, assigned: npt.NDArray[np.integer]) -> Sides:
        """Returns the sides of (R, n_units) assignments, group codes 0..n_groups.

        NaN where an assignment leaves a side without a label.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = list(zip(*self._chunks(assigned), strict=True))
        return Sides(*(np.concatenate(part) for part in parts))

    def _chunks(self, assigned: npt.NDArray[np.integer]) -> Iterator[Sides]:
        rows = 0 if self._alone else len(self._rows.cell)
        width = max(self._n_groups * max(2 * self._size, rows), 1)
        step = max(1, _CELLS // width)
        for start in range(0, len(assigned), step):
            yield self._sides(assigned[start : start + step].astype(np.int64))

    def _sides(self, assigned: Ints) -> Sides:
        counts = self._counts(assigned)
        n = counts.sum(-1)
        weight = self._weights(n)
        found = [self._auroc(counts, n, weight, assigned)]
        if self._rates:
            found += self._both_rates(counts, n, weight, assigned)
        return Sides(*(np.stack(part, axis=2) for part in zip(*found, strict=True)))

    def _counts(self, assigned: Ints) -> Array:
        """(R, groups, 2 sides, 2 labels, strata, levels) rows."""
        r, k = len(assigned), self._n_groups + 1
        codes = assigned[:, self._rows.unit]
        keys = (codes + np.arange(r)[:, None] * k) * self._size + self._rows.cell
        table = np.bincount(keys.ravel(), minlength=r * k * self._size).reshape(r, k, -1)[:, :-1]
        both = np.stack([table, self._total - table], axis=2).astype(float)
        return both.reshape(r, k - 1, 2, 2, self._n_strata, self._levels)

    def _weights(self, n: Array) -> Array:
        """(R, groups, 2, 2, strata) weight of a row: the pooled share over its own side's."""
        if self._n_strata == 1:
            return 1 / n
        shared = (n > 0).all(axis=2, keepdims=True)
        weight = np.divide(n.sum(axis=2, keepdims=True) * shared, n, out=0 * n, where=n > 0)
        return weight / (weight * n).sum(-1, keepdims=True)

    def _auroc(
        self, counts: Array, n: Array, weight: Array, assigned: Ints
    ) -> tuple[Array, Array, Array]:
        share = (counts * weight[..., None]).sum(-2)
        below = np.cumsum(share, axis=-1) - share / 2
        points = np.stack([1 - below[..., 1, :], below[..., 0, :]], axis=3)
        value = (share[..., 1, :] * points[..., 1, :]).sum(-1)
        mean = np.einsum("rgsyvl,rgsyl->rgsyv", counts, points) / np.maximum(n, 1)
        effective = 1 / (weight**2 * n).sum(-1)
        pairs = effective.prod(-1)
        h = (value * pairs + 0.5) / (pairs + 1)
        bend, w = h * (1 - h), weight * _bessel(n)
        floor = np.minimum(bend / (4 * effective.min(-1)), _HALF_A_CASE * bend**2)
        if self._alone:
            square = np.einsum("rgsyvl,rgsyl->rgsyv", counts, points**2) / np.maximum(n, 1)
            return _apart(h, (w**2 * n * (square - mean**2)).sum((-1, -2)), floor)
        moved = (points[..., None, :] - mean[..., None]) * w[..., None]
        return _clustered(h, floor, moved, self._rows, assigned)

    def _both_rates(
        self, counts: Array, n: Array, weight: Array, assigned: Ints
    ) -> list[tuple[Array, Array, Array]]:
        share = counts[..., self._called].sum(-1) / np.maximum(n, 1)
        value = (share * weight * n).sum(-1)
        found = []
        for label in (1, 0):
            only = (np.arange(2) == label)[:, None]
            w, size = weight * only * _bessel(n), 1 / (weight**2 * n)[..., label, :].sum(-1)
            h = (value[..., label] * size + 0.5) / (size + 1)
            if label == 0:
                h = 1 - h
            floor = h * (1 - h) / size
            if self._alone:
                found.append(_apart(h, (w**2 * n * share * (1 - share)).sum((-1, -2)), floor))
                continue
            moved = np.stack([-share, 1 - share], axis=-1) * w[..., None] * (1 if label else -1)
            found.append(_clustered(h, floor, moved, self._labels[label], assigned))
        return found


class _Laid(NamedTuple):
    """Rows in order of their units, and units in order of their patients.

    Attributes:
      cell, unit: (m,) of each row.
      starts: where each unit begins among the rows.
      units: which units these are.
      owners: where each patient begins among the units.
    """

    cell: Ints
    unit: Ints
    starts: Ints
    units: Ints
    owners: Ints


def _laid_out(cell: Ints, unit: Ints, owner: Ints) -> _Laid:
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    owners = np.flatnonzero(np.diff(owner[starts], prepend=-1))
    return _Laid(cell, unit, starts, unit[starts], owners)


def _clustered(
    h: Array, floor: Array, moved: Array, rows: _Laid, assigned: Ints
) -> tuple[Array, Array, Array]:
    """Errors from sums over units, and over patients where these have several.

    `moved` holds what a row adds, (R, groups, 2 sides, ...cells).
    """
    r, k = h.shape[:2]
    flat = moved.reshape(r, k, 2, -1)
    own = np.arange(k)[:, None]
    rest = assigned[:, None, rows.unit] != own
    start = (np.arange(r)[:, None, None] * k + own) * 2
    added = np.take(flat.ravel(), (start + rest) * flat.shape[-1] + rows.cell)
    sums = np.add.reduceat(added, rows.starts, axis=-1)
    outside = assigned[:, None, rows.units] != own
    squares = sums**2
    away = (squares * outside).sum(-1)
    logit, part, variance = _apart(h, np.stack([squares.sum(-1) - away, away], axis=-1), floor)
    if len(rows.owners) < len(rows.units):
        slope = 1 / (h * (1 - h))
        both = sums * np.where(outside, -slope[..., 1:], slope[..., :1])
        total = (np.add.reduceat(both, rows.owners, axis=-1) ** 2).sum(-1)
        covered = variance + total - (both**2).sum(-1)
        variance = np.maximum(covered, 0.1 * variance)
    return logit, part, variance


def _apart(h: Array, spread: Array, floor: Array) -> tuple[Array, Array, Array]:
    part = np.maximum(spread, floor) / (h * (1 - h)) ** 2
    return np.asarray(scipy.special.logit(h)), part, part.sum(-1)


def _bessel(n: Array) -> Array:
    """The root of m / (m - 1) for the m rows of a label and side."""
    m = n.sum(-1, keepdims=True)
    return np.sqrt(m / np.maximum(m - 1, 1))
