"""Decisions by group, at one threshold for all or one for each group, beside what chance gives.

Thresholds come from validation rows by one rule. Intervals fit them again on redrawn validation
patients, and the null fits them again after validation patients have exchanged groups too, so
that both hold the chance of fitting: thresholds of small groups alone make a gap (protocol S6 and
S10).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jaxfair.fairness.counted import clustered_rates, rate_floor
from jaxfair.fairness.groups import group_labels
from jaxfair.fairness.levels import Levels, by_bootstrap, studentised
from jaxfair.fairness.permutation import Switches
from jaxfair.fairness.resamples import Resamples, Rows
from jaxfair.fairness.rules import MIN_CASES
from jaxfair.fairness.thresholds import row_thresholds

__all__ = ["MIN_POSITIVES", "Decisions", "decisions"]

MIN_POSITIVES = 400
"""Positives of a group from which a gap of its rates is more than noise (protocol S10)."""

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_CHUNK = 4_000_000


class Decisions(NamedTuple):
    """What a rule decides.

    Attributes:
      rule: of the thresholds (rules.py).
      per_group: True where groups have thresholds of their own.
      thresholds: group -> threshold, of all groups of the test rows.
      own: the groups that have their own; others take the pooled one.
      levels: lines TPR and TNR of the compared groups, and the accuracy of all rows.
    """

    rule: str
    per_group: bool
    thresholds: dict[str, float]
    own: tuple[str, ...]
    levels: Levels


def decisions(
    resamples: Resamples,
    attribute: str,
    *,
    rule: str = "min_gap",
    per_group: bool = False,
    groups: Sequence[str] | None = None,
    control: str | None = None,
    stored: Mapping[str, Any] | None = None,
    n_permutations: int = 199,
    min_cases: int = MIN_CASES,
) -> Decisions:
    """Returns TPR, TNR and accuracy at thresholds of one rule, with their draws and their null.

    Args:
      resamples: the rows, with redrawn patients.
      attribute: whose groups are compared, a column or an intersection.
      rule: of the thresholds; the same in every draw and permutation.
      per_group: one threshold for each group with `min_cases` validation cases. Whoever decides
        so has to know the group of a patient at test time.
      groups: to be compared; None takes those with enough patients (GroupFrame.too_few). The
        accuracy is that of all rows.
      control: a column within whose values patients exchange groups; left out if not there.
      stored: thresholds of the task (`fit_thresholds`), used where the validation rows cannot
        fit any; intervals are then those of the realised rates, and groups with thresholds of
        their own have no null.
      n_permutations: of patients, for the null; 0 makes none.

    Returns:
      Decisions; values are NaN where there is no threshold, or a group lacks a label.
    """
    problem = _Problem(resamples, attribute, rule, per_group, groups, control, min_cases)
    at, own = problem.thresholds(stored)
    values, counts = problem.rates(at)
    draws, right = problem.drawn(at)
    k = problem.n_compared
    floor = rate_floor(values, counts)
    t, null, null_t, method = problem.null(at, values, draws, floor, n_permutations)
    levels = Levels(
        "odds",
        tuple(problem.groups[:k]),
        values[:, :k],
        draws[:, :, :k],
        floor[:, :k],
        problem.accuracy(at),
        right,
        t,
        null,
        null_t,
        method,
        int(counts[0, :k].min()) if k else 0,
    )
    names = dict(zip(problem.groups, map(float, at), strict=True))
    return Decisions(
        rule, per_group, names, tuple(g for g, is_own in zip(problem.groups, own) if is_own), levels
    )


class _Problem:
    """The rows of a task as arrays, with the groups of one attribute; compared ones come first."""

    def __init__(
        self,
        resamples: Resamples,
        attribute: str,
        rule: str,
        per_group: bool,
        groups: Sequence[str] | None,
        control: str | None,
        min_cases: int,
    ) -> None:
        self._resamples, self._attribute, self._rule = resamples, attribute, rule
        self._per_group, self._min_cases = per_group, min_cases
        self.test, self.validation = resamples.test, resamples.validation
        compared = resamples.compared(attribute, groups)
        every = sorted(set(group_labels(self.test.table, attribute)))
        self.groups = [*compared, *(g for g in every if g not in compared)]
        self.n_compared, self.k = len(compared), len(self.groups)
        self.codes = self.test.codes(attribute, self.groups)
        self._own_codes = self.validation.codes(attribute, self.groups)
        apart = control is not None and control not in attribute.split(" x ")
        self._control = control if apart and control in self.test.table else None

    def thresholds(self, stored: Mapping[str, Any] | None) -> tuple[Array, npt.NDArray[np.bool_]]:
        """(k,) thresholds, and which are a group's own."""
        if self._resamples.fits:
            return self._fitted(self._own_codes)
        known, at = stored or {}, np.full(self.k, np.nan)
        told = known.get("groups", {}).get(self._attribute)
        if self._per_group and told is None:
            return at, np.zeros(self.k, dtype=bool)
        by = self._attribute if self._per_group else None
        at[self.codes] = row_thresholds(self.test.table, known, by, self._rule)
        own = [self._per_group and bool(told.get(g, {}).get("own")) for g in self.groups]
        return at, np.array(own)

    def _fitted(
        self, codes: npt.NDArray[np.integer], weights: Array | None = None
    ) -> tuple[Array, npt.NDArray[np.bool_]]:
        ordered = self.validation.ordered
        if not self._per_group:
            return np.full(self.k, ordered.fit(self._rule, weights)), np.zeros(self.k, dtype=bool)
        by_score = codes[ordered.order]
        return ordered.fit_groups(self._rule, by_score, self.k, weights, self._min_cases)

    def _right(self, at: Array, codes: Ints) -> npt.NDArray[np.bool_]:
        """Whether each row is decided rightly; `at` (..., k), `codes` (..., n)."""
        return (self.test.score >= np.take_along_axis(at, codes, axis=-1)) == (self.test.y == 1)

    def rates(self, at: Array) -> tuple[Array, Array]:
        """(2, k) TPR and TNR, and the rows behind each."""
        key = self.codes + self.k * (self.test.y == 0)
        n = np.bincount(key, minlength=2 * self.k).astype(float)
        hits = np.bincount(key, self._right(at, self.codes), minlength=2 * self.k)
        rates = np.divide(hits, n, out=np.full(2 * self.k, np.nan), where=n > 0)
        rates[np.tile(np.isnan(at), 2)] = np.nan
        return rates.reshape(2, self.k), n.reshape(2, self.k)

    def accuracy(self, at: Array) -> float:
        """Share of all rows that are decided rightly."""
        return float(self._right(at, self.codes).mean()) if np.isfinite(at).all() else float("nan")

    def drawn(self, at: Array) -> tuple[Array, Array]:
        """(B, 2, k) rates and (B,) accuracies of redrawn patients at refitted thresholds."""
        draws = self._redrawn(at)
        key = np.zeros((len(self.test), 2 * self.k), dtype=np.float32)
        key[np.arange(len(key)), self.codes + self.k * (self.test.y == 0)] = 1
        rates, right = np.empty((len(draws), 2 * self.k)), np.empty(len(draws))
        size = max(1, _CHUNK // len(self.test))
        for start in range(0, len(draws), size):
            part = slice(start, start + size)
            w = self._resamples.weights[part][:, self.test.people].astype(np.float32)
            codes = np.broadcast_to(self.codes, w.shape)
            n, hits = w @ key, (w * self._right(draws[part], codes)) @ key
            rates[part] = np.divide(hits, n, out=np.full(n.shape, np.nan, n.dtype), where=n > 0)
            right[part] = hits.sum(axis=1) / n.sum(axis=1)
        rates[np.isnan(np.tile(draws, 2))] = np.nan
        right[np.isnan(draws).any(axis=1)] = np.nan
        return rates.reshape(-1, 2, self.k), right

    def _redrawn(self, at: Array) -> Array:
        """(B, k) thresholds of redrawn validation patients."""
        resamples = self._resamples
        if not resamples.fits:
            return np.tile(at, (resamples.n_draws, 1))
        if not self._per_group:
            return np.tile(resamples.pooled(self._rule)[:, None], (1, self.k))
        people = self.validation.people[self.validation.ordered.order]
        return np.array(
            [
                self._fitted(self._own_codes, weights[people].astype(float))[0]
                for weights in resamples.validation_weights
            ]
        )

    def null(
        self, at: Array, values: Array, draws: Array, floor: Array, n_permutations: int
    ) -> tuple[Array, Array, Array, str]:
        """t (2,), null ranges (R, 2) and t (R, 2), and how they were made."""
        k, none = self.n_compared, np.empty((0, 2))
        undefined = np.full(2, np.nan), none, none, "undefined"
        if k < 2 or not n_permutations or not np.isfinite(values[:, :k]).all():
            return undefined
        test, fitted = self._switches(self.test, self.codes), None
        if self._per_group:
            if not self._resamples.fits:
                return undefined
            fitted = self._switches(self.validation, self._own_codes)
        if test is None or (self._per_group and fitted is None):
            found = by_bootstrap(values[:, :k], draws[:, :, :k], floor[:, :k])
            return *found, "bootstrap" if len(found[1]) else "undefined"
        if not test.moves:
            return undefined
        t = studentised(*self._spread(test.own[None], at[None]))[0]
        parts = [self._spread(*both) for both in self._permuted(at, test, fitted, n_permutations)]
        ranges = np.concatenate([np.ptp(rates, axis=-1) for rates, _ in parts])
        return t, ranges, np.concatenate([studentised(*part) for part in parts]), "permutation"

    def _switches(self, rows: Rows, codes: Ints) -> Switches | None:
        control = None
        if self._control is not None:
            control = np.unique(group_labels(rows.table, self._control), return_inverse=True)[1]
        return Switches.of(rows.y, rows.people, codes, self.n_compared, control)

    def _permuted(
        self, at: Array, test: Switches, fitted: Switches | None, n: int
    ) -> Iterator[tuple[npt.NDArray[np.integer], Array]]:
        rng, size = (
            np.random.default_rng([self._resamples.seed, 2]),
            max(1, _CHUNK // len(self.test)),
        )
        for start in range(0, n, size):
            sets = min(size, n - start)
            assigned, thresholds = test.drawn(sets, rng), np.tile(at, (sets, 1))
            if fitted is not None:
                people = self.validation.people
                thresholds = np.array([self._fitted(a[people])[0] for a in fitted.drawn(sets, rng)])
            yield assigned, thresholds

    def _spread(self, assigned: npt.NDArray[np.integer], at: Array) -> tuple[Array, Array]:
        """(S, 2, k) rates of the compared groups and their variances over patients.

        Args:
          assigned: (S, p) group codes of the test patients.
          at: (S, k) thresholds.
        """
        right = self._right(at, assigned[:, self.test.people].astype(np.int64))
        values, variances = clustered_rates(self.test.y, self.test.people, right, assigned, self.k)
        chosen = slice(0, self.n_compared)
        return values[..., chosen], variances[..., chosen]
