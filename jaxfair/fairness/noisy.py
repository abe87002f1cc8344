"""A table by subgroup from one noisy histogram: values, intervals, and what is not shown.

Nothing here knows of patients or of privacy: the histogram (k groups, 2 labels, b bins) and the
covariance of its noise are all that is read, so that every number is a function of them. The noise
of a group and label may be correlated along the bins; that of others is independent of it.

Intervals hold sampling and noise (noisy_intervals.py). Simulated coverage of groups of 200 to
10,000 with AUROC .6 to .99, prevalence .02 to .5 and epsilon .5 to 4 is 94 to 96 %, and above where
counts are few: a group or label that stands within two deviations of the noise of what is needed to
be shown may stand there by the noise alone, and its interval holds that too. It was .84 to .95 for
an AUROC of .99 of labels whose scores spread unlike (deviations 1 and 2, or 1 and .5) under little
noise, where the variance found is mostly luck. Each patient adds one unit of mass; the images of a
patient spread it, which has less variance than one image drawn from them, so that the interval is
then wider than it must be.

Intervals hold no bias of bins. The column `correction` says how much `area` moved the AUROC for
pairs within a bin: where scores are tied, as few distinct values are, the AUROC is value less
correction. Of scores that are all apart about a fifth of it is left, and half to all of it where
the odds do not rise with the score (Cauchy; normals of deviations 1 and 2 with AUROC .99).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.fairness.histogram import area, tied_area
from jaxfair.fairness.noisy_intervals import (
    Interval,
    area_interval,
    difference,
    hull,
    share_interval,
)

__all__ = ["COLUMNS", "METRICS", "MINIMUM", "Side", "enough", "interval", "noisy_table"]

Array = npt.NDArray[np.float64]

COLUMNS = (
    "group", "metric", "value", "ci_low", "ci_high", "noise_sd", "correction", "patients",
    "noise_sd_patients", "why",
)  # fmt: skip
"""Columns of a table; `patients` is the noisy mass of the group."""
METRICS = ("auroc", "sensitivity", "specificity", "prevalence")
MINIMUM = 50.0
"""Noisy patients that a group needs to be shown."""
_CLASS_MINIMUM = 10.0
_CLASS_NOISES = 4.0
"""A label needs that many patients, and that many deviations of the noise on their number."""
_LIFT = 2.0
"""Deviations of the noise by which a mass may have been lifted to where it is shown."""
_TOO_FEW = "too few by the noisy count"


class Side(NamedTuple):
    """A group, or several together.

    Attributes:
      counts: (..., 2, b), noisy; those before stand for repeats.
      noise: (b, b) covariance of the noise on the counts of each label.
      minimum: noisy patients that it was shown for.
      at: first bin that the threshold calls positive.
    """

    counts: Array
    noise: Array
    minimum: float
    at: int


def noisy_table(
    counts: npt.ArrayLike,
    noise: npt.ArrayLike,
    groups: Sequence[str],
    *,
    at: int,
    minimum: float = MINIMUM,
) -> pd.DataFrame:
    """Returns group, metric, value, interval, noise and noisy patients; undefined is NaN.

    A group below `minimum` noisy patients is named and nothing of it is shown, and so is a metric
    whose label has too few by the noisy count: no true count decides. Beside each group's own
    metrics stand `gap_*`: the group minus all others that are shown, once where two are shown.

    Args:
      counts: (k, 2, b) noisy histogram.
      noise: (b, b) covariance of the noise on the counts of each group and label.
      groups: k names.
      at: first bin of those that a threshold calls positive.
    """
    counts, noise = np.asarray(counts, float), np.asarray(noise, float)
    shown = [place for place in range(len(groups)) if counts[place].sum() >= minimum]
    rows = []
    for place, group in enumerate(groups):
        mine = _side(counts, [place], noise, minimum, at)
        rows += _group_rows(mine, group, place in shown)
        rest = [other for other in shown if other != place]
        if place in shown and rest and not (len(shown) == 2 and place == shown[1]):
            rows += _gap_rows(mine, _side(counts, rest, noise, minimum, at), group)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _side(counts: Array, places: list[int], noise: Array, minimum: float, at: int) -> Side:
    return Side(counts[places].sum(0), noise * len(places), minimum, at)


def _group_rows(side: Side, group: str, shown: bool) -> list[dict[str, Any]]:
    rows = []
    for metric in METRICS:
        row = _told(side, group, metric)
        if shown and enough(side, metric):
            found = interval(side, metric)
            value, low, high = (np.clip(end, 0, 1) for end in found[:3])
            inside = Interval(value, low, high, found.noise_sd)
            row |= _numbers(inside, _correction(side, metric))
        else:
            row["why"] = _TOO_FEW
        rows.append(row | ({} if shown else {"patients": np.nan}))
    return rows


def _gap_rows(mine: Side, others: Side, group: str) -> list[dict[str, Any]]:
    """The group minus the others that are shown, for metrics that both sides have."""
    rows = []
    for metric in METRICS:
        if all(enough(side, metric) for side in (mine, others)):
            gap = difference(interval(mine, metric), interval(others, metric))
            moved = _correction(mine, metric) - _correction(others, metric)
            rows.append(_told(mine, group, f"gap_{metric}") | _numbers(gap, moved))
    return rows


def _told(side: Side, group: str, metric: str) -> dict[str, Any]:
    return {
        "group": group, "metric": metric, "patients": side.counts.sum(), "why": "",
        "noise_sd_patients": _sd_of_label(side) * 2**0.5,
    }  # fmt: skip


def _numbers(found: Interval, correction: float) -> dict[str, float]:
    value, low, high, noise = map(float, found)
    return {
        "value": value, "ci_low": low, "ci_high": high, "noise_sd": noise, "correction": correction,
    }  # fmt: skip


def interval(side: Side, metric: str) -> Interval:
    """Returns a metric with its interval: of the counts, and of those without the noise's lift."""
    return hull(*(_plain(counts, side, metric) for counts in (side.counts, _less(side, metric))))


def _plain(counts: Array, side: Side, metric: str) -> Interval:
    negatives, positives = counts[..., 0, :], counts[..., 1, :]
    if metric == "auroc":
        return area_interval(counts, side.noise)
    if metric == "prevalence":
        label = side.noise.sum()
        noise = [[label, label], [label, 2 * label]]
        return share_interval(positives.sum(-1), counts.sum((-1, -2)), noise)
    called = np.arange(counts.shape[-1]) >= side.at
    label, right = (negatives, ~called) if metric == "specificity" else (positives, called)
    sums = np.stack([right, np.ones_like(right)]).astype(float)
    return share_interval(label @ sums[0], label @ sums[1], sums @ side.noise @ sums.T)


def _correction(side: Side, metric: str) -> float:
    return float(area(side.counts) - tied_area(side.counts)) if metric == "auroc" else 0.0


def _less(side: Side, metric: str) -> Array:
    """The counts less what the noise may have lifted their sums by to where they are shown.

    A mass m at a bar b, of noise of deviation s, may stand there by a noise of 2 s; one that is 2 s
    above the bar would have been shown without. Of a noise of the sum each count has the part that
    it has of the variance, which is its mean.
    """
    part = side.noise.sum(-1) / side.noise.sum()
    mass, bar, sd = side.counts.sum(-1, keepdims=True), _bar(side), _sd_of_label(side)
    if metric == "prevalence":
        mass, part = mass.sum(-2, keepdims=True), part / 2
        bar, sd = side.minimum, sd * 2**0.5
    lifted = np.clip(_LIFT * sd - (mass - bar), 0, np.minimum(_LIFT * sd, mass / 2))
    return np.asarray(side.counts - lifted * part)


def _sd_of_label(side: Side) -> float:
    """Deviation of the noise on the number of patients of a label."""
    return float(side.noise.sum() ** 0.5)


def _bar(side: Side) -> float:
    """Noisy patients that a label needs."""
    return max(_CLASS_MINIMUM, _CLASS_NOISES * _sd_of_label(side))


def enough(side: Side, metric: str) -> npt.NDArray[np.bool_]:
    """Returns whether the labels that a metric divides by have enough noisy patients."""
    negatives, positives = np.moveaxis(side.counts.sum(-1), -1, 0)
    needed = {
        "auroc": np.minimum(negatives, positives),
        "sensitivity": positives,
        "specificity": negatives,
    }
    return np.asarray(needed.get(metric, np.full_like(negatives, np.inf)) >= _bar(side))
