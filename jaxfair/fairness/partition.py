"""One label sliced by one attribute: values of each group and its rest, and their draws."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.special

from jaxfair.fairness.comparable import Rows, mix_weights, reason_against
from jaxfair.fairness.delong import auroc_estimate
from jaxfair.fairness.exchange import STATISTICS, Exchange, Sides, units_of
from jaxfair.fairness.frame import enough
from jaxfair.fairness.groups import group_labels
from jaxfair.fairness.multiplicity import bootstrap_sums
from jaxfair.fairness.permutation import patient_strata, permuted_groups
from jaxfair.fairness.predictions import patient_codes
from jaxfair.schema import UNKNOWN

__all__ = ["CALIBRATION", "Partition", "Record", "Task", "Tested"]

CALIBRATION = "calibration"
"""The mean of label minus probability: calibration in the large."""

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Record(NamedTuple):
    """A group and its rest in one statistic; `why` says why they are not compared, if so."""

    task: str
    attribute: str
    group: str
    statistic: str
    value: float
    rest: float
    difference: float
    why: str
    too_few: bool
    standardised: bool
    images: int

    @property
    def key(self) -> tuple[str, ...]:
        """Task, attribute, group, statistic."""
        return self[:4]


class Tested(NamedTuple):
    """One comparison beside what chance alone gives.

    Attributes:
      key: task, attribute, group, statistic.
      worse: larger is worse for the group.
      null: (B,) draws of it.
      low, high: interval of the difference.
      tails: of `null` that `worse` may lie in: 1, or 2 where it has no sign.
    """

    key: tuple[str, ...]
    worse: float
    null: Array
    low: float
    high: float
    tails: int


class Task:
    """The rows of one label as arrays.

    Args:
      name: of the label.
      table: checked rows.
      control: column of strata; left out where the table lacks it.
      threshold: None or NaN leaves rates out.
      probabilities: (n,); None leaves calibration out.
    """

    def __init__(
        self,
        name: str,
        table: pd.DataFrame,
        control: str | None,
        threshold: float | None = None,
        probabilities: Array | None = None,
    ) -> None:
        self.name, self.table = name, table
        self.control = control if control in table else None
        self.threshold = None if threshold is None or np.isnan(threshold) else float(threshold)
        self.y = table["y_true"].to_numpy(dtype=float)
        self.score = table["y_score"].to_numpy(dtype=float)
        self.patients, self.n_patients = patient_codes(table)
        self.strata = None
        if self.control is not None:
            self.strata = pd.factorize(group_labels(table, self.control))[0].astype(np.int64)
        self.residual = None if probabilities is None else self.y - np.asarray(probabilities)

    @property
    def statistics(self) -> tuple[str, ...]:
        """What can be compared under exchange: the AUROC, and rates where there is a threshold."""
        return STATISTICS[:1] if self.threshold is None else STATISTICS


class Partition:
    """The groups of one attribute among the rows of one task."""

    def __init__(self, task: Task, attribute: str) -> None:
        self._task, self.attribute = task, attribute
        alike = task.control is not None and task.control not in attribute.split(" x ")
        self._strata = task.strata if alike else None
        labels = group_labels(task.table, attribute)
        self.groups = sorted(set(labels), key=lambda group: (UNKNOWN in group, group))
        index = {group: i for i, group in enumerate(self.groups)}
        self._codes = np.array([index[group] for group in labels], dtype=np.int64)
        self._units = units_of(task.patients, self._codes)
        self._kinds = patient_strata(task.y, self._units, self._strata)
        words = task.control if alike and task.control is not None else ""
        rows = Rows(task.y, task.score, task.patients, self._strata, words)
        self.why = [
            reason_against(rows, self._codes == g, self._units, self._kinds)
            for g in range(len(self.groups))
        ]

    def records(self) -> Iterator[Record]:
        """Yields every group's values in every statistic."""
        task = self._task
        for g, group in enumerate(self.groups):
            inside = self._codes == g
            few = not enough(task.y[inside], task.patients[inside])
            tail = (self.why[g], few, self._strata is not None, int(inside.sum()))
            weights = [self._weights(inside, ~inside), self._weights(~inside, inside)]
            for statistic in task.statistics:
                value, rest = (self._value(statistic, w) for w in weights)
                head = (task.name, self.attribute, group, statistic)
                yield Record(*head, value, rest, value - rest, *tail)
            if task.residual is not None:
                value, rest = (_mean(task.residual[side]) for side in (inside, ~inside))
                head = (task.name, self.attribute, group, CALIBRATION)
                yield Record(*head, value, rest, value - rest, *tail[:2], False, tail[3])

    def _weights(self, chosen: Bools, other: Bools) -> Array:
        if self._strata is None:
            return chosen.astype(float)
        return mix_weights(self._task.y, self._strata, chosen, other)

    def _value(self, statistic: str, weights: Array) -> float:
        task, use = self._task, weights > 0
        y, score, w = task.y[use], task.score[use], weights[use]
        if statistic == "auroc":
            return auroc_estimate(y, score, weights=w).value
        label = 1.0 if statistic == "sensitivity" else 0.0
        right, own = (score >= task.threshold) == (label == 1), y == label
        return float(np.average(right[own], weights=w[own])) if own.any() else float("nan")

    def exchanged(self, seed: list[int], n_draws: int, level: float) -> Iterator[Tested]:
        """Yields the comparisons of AUROC and rates, by units that change groups.

        One seed changes the places of the same units in all attributes whose units are the
        same, so that comparisons keep what they have in common.
        """
        chosen = [g for g, why in enumerate(self.why) if not why]
        if not chosen:
            return
        mirrored = len(self.groups) == 2
        k = 1 if mirrored else len(chosen)
        code = np.full(len(self.groups), k)
        code[chosen[:k]] = np.arange(k)
        own = np.zeros(len(self._kinds), dtype=np.int64)
        own[self._units] = code[self._codes]
        task = self._task
        exchange = Exchange(
            task.y, task.score, self._strata, task.patients, self._units, k, task.threshold
        )
        rng = np.random.default_rng(seed)
        found = exchange.of(own[None])
        drawn = exchange.of(permuted_groups(own, self._kinds, n_draws, rng)).t
        up, down = _defined(drawn), _defined(-drawn)
        for s, statistic in enumerate(task.statistics):
            for j in range(k):
                tails = up[:, j, s], down[:, j, s]
                low, high = _interval(found, *tails, (0, j, s), level)
                worse = -float(found.t[0, j, s])
                key = (task.name, self.attribute, self.groups[chosen[j]], statistic)
                yield Tested(key, worse, tails[1], low, high, 1)
                if mirrored:
                    key = (*key[:2], self.groups[chosen[1]], statistic)
                    yield Tested(key, -worse, tails[0], -high, -low, 1)

    def resampled(self, seed: list[int], n_draws: int, level: float) -> Iterator[Tested]:
        """Yields the comparisons of calibration in the large, by the centred cluster bootstrap.

        The statistic has no sign, since a risk may be too low or too high; it counts as worse
        only where the group is further off than the rest.
        """
        task, residual = self._task, self._task.residual
        chosen = [g for g, why in enumerate(self.why) if not why]
        if residual is None or not chosen:
            return
        sides = [(self._codes == g, self._codes != g) for g in chosen]
        means = np.array([[_mean(residual[side]) for side in pair] for pair in sides])
        influence = np.stack([self._influence(*pair) for pair in sides], axis=1)
        moved, spread = bootstrap_sums(influence, n_draws, np.random.default_rng(seed))
        error = np.sqrt((influence**2).sum(axis=0))
        null = np.divide(np.abs(moved), spread, out=np.full(moved.shape, np.inf), where=spread > 0)
        for j, g in enumerate(chosen):
            if not error[j] > 0:
                continue
            gap = float(means[j, 0] - means[j, 1])
            half = _high(null[:, j], 1 - level) * error[j]
            off = abs(gap) / error[j]
            worse = off if abs(means[j, 0]) >= abs(means[j, 1]) else -off
            key = (task.name, self.attribute, self.groups[g], CALIBRATION)
            yield Tested(key, float(worse), null[:, j], gap - half, gap + half, 2)

    def _influence(self, inside: Bools, outside: Bools) -> Array:
        """(patients,) first-order parts of the difference of mean residuals."""
        task, total = self._task, np.zeros(self._task.n_patients)
        assert task.residual is not None
        for side, sign in ((inside, 1.0), (outside, -1.0)):
            part = (task.residual[side] - _mean(task.residual[side])) / side.sum()
            total += sign * np.bincount(task.patients[side], part, minlength=task.n_patients)
        return total


def _interval(
    found: Sides, up: Array, down: Array, at: tuple[int, int, int], level: float
) -> tuple[float, float]:
    """The interval of a difference that the permutations of its logit, or of minus it, allow.

    The precision-weighted mean of both logits, which is independent of their difference, is
    held; so the interval holds 0 if and only if that of the logit does.
    """
    logit, part, error = found.logit[at], found.part[at], float(np.sqrt(found.variance[at]))
    share = part / part.sum()
    centre = float((logit * share[::-1]).sum())
    gap, tail = float(logit[0] - logit[1]), (1 - level) / 2
    ends = np.array([gap - _high(up, tail) * error, gap + _high(down, tail) * error])
    low, high = scipy.special.expit(centre + ends * share[0]) - scipy.special.expit(
        centre - ends * share[1]
    )
    return float(low), float(high)


def _defined(draws: Array) -> Array:
    """A draw that leaves a side without a label or stratum speaks for chance."""
    return np.where(np.isnan(draws), np.inf, draws)


def _high(draws: Array, tail: float) -> float:
    """The largest number that is not significant at a one-sided level `tail`."""
    rank = max(int(np.floor(tail * (len(draws) + 1) + 1e-9)), 1)
    return float(np.partition(draws, len(draws) - rank)[len(draws) - rank])


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")
