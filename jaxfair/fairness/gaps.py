"""The max-min gap of the AUROC, tested against what chance alone gives.

A max-min gap is never zero: two groups of 50 + 50 images without any true gap show 0.054 on
average. So the gap is studentised, and compared with its null: patients exchange groups
within strata of the label (and of control columns). Without the strata a difference in
prevalence, without the studentising a difference in spread, would count as a gap (protocol S1).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jaxfair.fairness.delong import auroc_estimate
from jaxfair.fairness.multiplicity import bootstrap_sums
from jaxfair.fairness.permutation import (
    exchangeable,
    own_groups,
    patient_strata,
    permuted_groups,
)
from jaxfair.fairness.values import checked_pair

__all__ = ["Gap", "max_min_gap"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_CHUNK = 1_500_000


class Gap(NamedTuple):
    """A max-min gap beside its null.

    Attributes:
      value: largest minus smallest AUROC.
      statistic: largest |difference| / standard error over pairs of groups.
      null_mean, null_95: mean and 95th percentile of `value` where no gap exists.
      p_value: share of null statistics at or above the observed one, that one counted in.
      method: 'permutation', or 'bootstrap' where a patient is in several groups; 'undefined'
        where nothing could be compared: no null and no p, and the value alone where there is one.
    """

    value: float
    statistic: float
    null_mean: float
    null_95: float
    p_value: float
    method: str


_UNDEFINED = Gap(np.nan, np.nan, np.nan, np.nan, np.nan, "undefined")


def max_min_gap(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    groups: npt.ArrayLike,
    patients: npt.ArrayLike | None = None,
    *,
    seed: int,
    control: npt.ArrayLike | None = None,
    n_replicates: int = 999,
) -> Gap:
    """Returns the max-min gap of the AUROC with its null distribution and p value.

    Args:
      y_true: (n,) labels 0 or 1.
      y_score: (n,) finite scores.
      groups: (n,) group names or codes; leave groups with too few patients out beforehand.
      patients: (n,) codes; None means one image per patient.
      seed: of the permutations.
      control: (n,) names or codes of a control column (view) to permute within.
      n_replicates: permutations or resamples.

    Returns:
      A Gap; undefined (NaN) with fewer than two groups, or if a group lacks a label in at
      least two patients. Constant scores, and groups most of whose patients find nobody alike
      to change places with, have a value and nothing to compare it with.
    """
    y, s = checked_pair(y_true, y_score)
    codes = np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
    people = np.arange(len(y)) if patients is None else _dense(patients)
    if len(y) == 0 or codes.max() == 0 or not _enough(y, codes, people):
        return _UNDEFINED
    if np.ptp(s) == 0:
        return _UNDEFINED._replace(value=0.0)
    within = None if control is None else _dense(control)
    own = own_groups(codes, people)
    if own is None:
        return _by_bootstrap(y, s, codes, people, n_replicates, seed)
    return _by_permutation(y, s, own, people, within, n_replicates, seed)


def _by_permutation(
    y: Array, s: Array, own: Ints, people: Ints, control: Ints | None, n_replicates: int, seed: int
) -> Gap:
    blocks = _Blocks(y, s, people, int(own.max()) + 1)
    strata = patient_strata(y, people, control)
    rng = np.random.default_rng(seed)
    size = max(1, min(32_000 // blocks.n_groups, _CHUNK // len(y)))
    value, statistic = (float(part[0]) for part in blocks.gaps(own[None]))
    if not exchangeable(y, own, people, strata):
        return _UNDEFINED._replace(value=value)
    parts = [
        blocks.gaps(permuted_groups(own, strata, min(size, n_replicates - start), rng))
        for start in range(0, n_replicates, size)
    ]
    values, statistics = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _gap(value, statistic, values, statistics, "permutation")


def _by_bootstrap(
    y: Array, s: Array, codes: Ints, people: Ints, n_replicates: int, seed: int
) -> Gap:
    """The centred cluster bootstrap, linear in the patients' influences."""
    n_patients = int(people.max()) + 1
    found = [
        auroc_estimate(y[codes == g], s[codes == g], people[codes == g], n_patients=n_patients)
        for g in range(int(codes.max()) + 1)
    ]
    values = np.array([estimate.value for estimate in found])
    left, right = np.triu_indices(len(found), 1)
    influence = np.stack([estimate.influence for estimate in found], axis=1)
    pairs = influence[:, left] - influence[:, right]
    moved, errors = bootstrap_sums(pairs, n_replicates, np.random.default_rng(seed))
    levels, _ = bootstrap_sums(influence, n_replicates, np.random.default_rng(seed))
    error = np.sqrt((pairs**2).sum(axis=0))
    statistic = _ratio(np.abs(values[left] - values[right]), error).max()
    null = _ratio(np.abs(moved), errors).max(axis=1)
    return _gap(np.ptp(values), statistic, np.ptp(levels, axis=1), null, "bootstrap")


def _gap(value: float, statistic: float, values: Array, statistics: Array, method: str) -> Gap:
    tolerance = 1e-9 * max(1.0, abs(statistic)) if np.isfinite(statistic) else 0.0
    exceed = int((statistics >= statistic - tolerance).sum())
    p_value = (1 + exceed) / (1 + len(statistics))
    high = float(np.quantile(values, 0.95))
    return Gap(float(value), float(statistic), float(values.mean()), high, p_value, method)


class _Blocks:
    """AUROC and variance of every group under many assignments of patients to groups."""

    def __init__(self, y: Array, s: Array, people: Ints, n_groups: int) -> None:
        order = np.argsort(s, kind="stable")
        self._y, self._people, self.n_groups = y[order] == 1, people[order], n_groups
        self._rank = np.cumsum(np.diff(s[order], prepend=s[order[0]]) != 0)
        self._ties = bool(self._rank[-1] + 1 < len(s))
        self._n_patients = int(people.max()) + 1
        self._clustered = self._n_patients < len(y)

    def gaps(self, assigned: npt.NDArray[np.integer]) -> tuple[Array, Array]:
        """Returns max-min and the studentised maximum for (R, n_patients) group codes."""
        n_sets, k = len(assigned), self.n_groups
        offsets = np.arange(n_sets)[:, None] * k
        keys = (assigned[:, self._people] + offsets).astype(np.int16).ravel()
        order = np.argsort(keys, kind="stable")
        block, row = keys[order].astype(np.int64), np.tile(np.arange(len(self._y)), n_sets)[order]
        positive = self._y[row]
        n_pos = np.bincount(block[positive], minlength=n_sets * k)
        n_neg = np.bincount(block[~positive], minlength=n_sets * k)
        wins, losses = self._placements(block, row, positive, n_pos, n_neg)
        value = np.bincount(block[positive], wins, minlength=n_sets * k) / n_pos
        if self._clustered:
            variance = self._cluster_variance(
                assigned, block, row, positive, wins, losses, value, n_pos, n_neg
            )
        else:
            variance = _spread(block[positive], wins, n_pos, value)
            variance += _spread(block[~positive], losses, n_neg, value)
        return _statistics(value.reshape(n_sets, k), variance.reshape(n_sets, k))

    def _placements(
        self, block: Ints, row: Ints, positive: npt.NDArray[np.bool_], n_pos: Ints, n_neg: Ints
    ) -> tuple[Array, Array]:
        above = np.zeros(len(block) + 1)
        np.cumsum(positive, out=above[1:])
        below = np.arange(len(block) + 1) - above
        first = np.concatenate([[0], np.cumsum(n_pos + n_neg)[:-1]])
        start = stop = np.arange(len(block))
        if self._ties:
            start, stop = self._tied(block, row)
        at_pos, at_neg = np.flatnonzero(positive), np.flatnonzero(~positive)
        low = (below[start[at_pos]] + below[stop[at_pos]]) / 2 - below[first][block[at_pos]]
        passed = (above[start[at_neg]] + above[stop[at_neg]]) / 2 - above[first][block[at_neg]]
        wins = low / n_neg[block[at_pos]]
        return wins, 1 - passed / n_pos[block[at_neg]]

    def _tied(self, block: Ints, row: Ints) -> tuple[Ints, Ints]:
        rank = self._rank[row]
        new = (np.diff(rank, prepend=-1) != 0) | (np.diff(block, prepend=-1) != 0)
        starts = np.flatnonzero(new)
        run = np.cumsum(new) - 1
        return starts[run], np.append(starts[1:], len(row))[run]

    def _cluster_variance(
        self,
        assigned: npt.NDArray[np.integer],
        block: Ints,
        row: Ints,
        positive: npt.NDArray[np.bool_],
        wins: Array,
        losses: Array,
        value: Array,
        n_pos: Ints,
        n_neg: Ints,
    ) -> Array:
        """Obuchowski's variance of every block."""
        n_sets, k = len(assigned), self.n_groups
        person = block // k * self._n_patients + self._people[row]
        size = n_sets * self._n_patients
        total, corrected = np.zeros(size), np.zeros(n_sets * k)
        home = (assigned + np.arange(n_sets)[:, None] * k).ravel()
        for chosen, values, count in ((positive, wins, n_pos), (~positive, losses, n_neg)):
            at = block[chosen]
            part = np.bincount(person[chosen], (values - value[at]) / count[at], minlength=size)
            members = np.bincount(person[chosen], minlength=size) > 0
            clusters = np.bincount(home[members], minlength=n_sets * k)
            own = np.bincount(home, part**2, minlength=n_sets * k)
            factor = clusters / np.maximum(clusters - 1, 1)
            corrected += own * (factor - 1)
            total += part
        return np.bincount(home, total**2, minlength=n_sets * k) + corrected


def _statistics(values: Array, variances: Array) -> tuple[Array, Array]:
    left, right = np.triu_indices(values.shape[1], 1)
    apart = np.abs(values[:, left] - values[:, right])
    errors = np.sqrt(np.maximum(variances[:, left] + variances[:, right], 0))
    return np.ptp(values, axis=1), _ratio(apart, errors).max(axis=1)


def _ratio(above: Array, below: Array) -> Array:
    """above / below, where 0 / 0 is 0 and x / 0 is infinite."""
    infinite = np.where(above > 1e-12, np.inf, 0.0)
    return np.divide(above, below, out=infinite, where=below > 1e-12)


def _spread(block: Ints, values: Array, counts: Ints, means: Array) -> Array:
    squares = np.bincount(block, values**2, minlength=len(counts))
    return np.asarray((squares - counts * means**2) / (counts * (counts - 1)))


def _enough(y: Array, codes: Ints, people: Ints) -> bool:
    for label in (0, 1):
        found = np.unique(np.stack([codes[y == label], people[y == label]]), axis=1)[0]
        if np.bincount(found, minlength=int(codes.max()) + 1).min() < 2:
            return False
    return True


def _dense(values: npt.ArrayLike) -> Ints:
    return np.unique(np.asarray(values), return_inverse=True)[1].astype(np.int64)
