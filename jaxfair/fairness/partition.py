"""One label sliced by one attribute: values of each group and its rest, and their draws."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats
from scipy.special import expit as _expit

from jaxfair.fairness.comparable import Rows, mix_weights, reason_against
from jaxfair.fairness.delong import auroc_estimate
from jaxfair.fairness.exchange import STATISTICS, Exchange, Sides, units_of
from jaxfair.fairness.frame import enough
from jaxfair.fairness.groups import group_labels, natural
from jaxfair.fairness.permutation import patient_strata, permuted_groups
from jaxfair.fairness.predictions import patient_codes
from jaxfair.fairness.residuals import mean_gaps
from jaxfair.fairness.values import checked_probabilities

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
        self.residual = None
        if probabilities is not None:
            self.residual = self.y - checked_probabilities(probabilities)

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
        self.groups = sorted(set(labels), key=natural)
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

    @property
    def work(self) -> int:
        """Rows times groups, what one draw costs."""
        return len(self._codes) * len(self.groups)

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
            if np.ptp(task.score) == 0:  # Nobody is ranked: one half would be read as a result.
                return float("nan")
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
        task, own = self._task, self._own(chosen[:k])
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

    def freely_exchanged(self, seed: list[int], n_draws: int, level: float) -> Iterator[Tested]:
        """Yields the comparisons of calibration in the large, by units that change groups freely.

        The statistic has no sign, since a risk may be too low or too high; it counts as worse
        only where the group is further off than the rest.
        """
        task, residual = self._task, self._task.residual
        chosen = [g for g, why in enumerate(self.why) if not why]
        if residual is None or not chosen:
            return
        k = len(chosen)
        own = self._own(chosen)
        rng = np.random.default_rng(seed)
        free = permuted_groups(own, np.zeros(len(own), dtype=np.int64), n_draws, rng)
        everyone = np.concatenate([own[None], free])
        gaps, errors = mean_gaps(residual, self._units, task.patients, everyone, k)
        t = np.divide(np.abs(gaps), errors, out=np.full(gaps.shape, np.inf), where=errors > 0)
        for j, g in enumerate(chosen):
            if not errors[0, j] > 0:
                continue
            inside = self._codes == g
            off = abs(_mean(residual[inside])) >= abs(_mean(residual[~inside]))
            half = _high(t[1:, j], 1 - level) * errors[0, j]
            key = (task.name, self.attribute, self.groups[g], CALIBRATION)
            gap, worse = float(gaps[0, j]), float(t[0, j] if off else -t[0, j])
            yield Tested(key, worse, t[1:, j], gap - half, gap + half, 2)

    def _own(self, compared: list[int]) -> Ints:
        """(units,) codes of the groups to be compared, and one code for all others."""
        code = np.full(len(self.groups), len(compared))
        code[compared] = np.arange(len(compared))
        own = np.zeros(len(self._kinds), dtype=np.int64)
        own[self._units] = code[self._codes]
        return own


def _interval(
    found: Sides, up: Array, down: Array, at: tuple[int, int, int], level: float
) -> tuple[float, float]:
    """The interval of a difference; it holds 0 if and only if the permutations allow it.

    Squares of the distances to the ends of both sides' own intervals add (`_by_sides`). Where
    that would contradict the permutations of the logit, its end is the one that they allow
    when the precision-weighted mean of both logits is held. NaN without width.
    """
    logit, part, error = found.logit[at], found.part[at], float(np.sqrt(found.variance[at]))
    share = part / part.sum()
    centre = float((logit * share[::-1]).sum())
    gap, tail = float(logit[0] - logit[1]), (1 - level) / 2
    reach = np.array([_high(up, tail), _high(down, tail)])
    ends = gap + np.array([-1, 1]) * reach * error
    held = _expit(centre + ends * share[0]) - _expit(centre - ends * share[1])
    wide = _by_sides(logit, part, error, np.maximum(reach, scipy.stats.norm.isf(tail)))
    low, high = np.where(np.sign(wide) == np.sign(held), wide, held)
    # Where both sides are perfect every permutation is the same, and says nothing of the width.
    apart = held[1] - held[0] > 1e-9
    return (float(low), float(high)) if apart else (float("nan"), float("nan"))


def _by_sides(logit: Array, part: Array, error: float, reach: Array) -> Array:
    """(2,) ends from each side's interval, `reach` errors down and up (Zou & Donner 2008)."""
    side, value = np.sqrt(part), _expit(logit)
    r = np.clip((part.sum() - error**2) / (2 * side.prod()), -1, 1)
    out = np.array([-1, 1]) * reach
    first = np.abs(_expit(logit[0] + side[0] * out) - value[0])
    second = np.abs(_expit(logit[1] - side[1] * out) - value[1])
    width = np.sqrt(np.maximum(first**2 + second**2 - 2 * r * first * second, 0))
    return np.asarray(value[0] - value[1] + np.array([-1, 1]) * width)


def _defined(draws: Array) -> Array:
    """A draw that leaves a side without a label or stratum speaks for chance."""
    return np.where(np.isnan(draws), np.inf, draws)


def _high(draws: Array, tail: float) -> float:
    """The largest number that is not significant at a one-sided level `tail`."""
    rank = max(int(np.floor(tail * (len(draws) + 1) + 1e-9)), 1)
    return float(np.partition(draws, len(draws) - rank)[len(draws) - rank])


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")
