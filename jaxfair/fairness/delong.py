"""Variance of the AUROC and of its relatives, with patients as clusters.

One image per patient gives DeLong et al. (1988), computed from ranks as in Sun & Xu (2014).
Several images per patient give the cluster variance of Obuchowski (1997) in its jackknife form:
each patient counts by what deleting that patient does to the pairs of different patients. Where
patients are many and alike the two agree; a patient with a large share of the images pulls the
estimate to itself, which hides it from the plain form (60 patients with Pareto many images: .83
of the plain intervals cover, .95 of these). Every estimate carries the influence of each patient,
so that differences, paired or not, and bootstraps of many estimates at once are sums over
patients.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.special
import scipy.stats

from jaxfair.fairness.influence import Estimate, covariance, difference, dot, freedom
from jaxfair.fairness.placements import placements, placements_apart
from jaxfair.fairness.values import checked_pair, checked_scores

__all__ = [
    "Estimate",
    "arcsine_interval",
    "auroc_estimate",
    "covariance",
    "difference",
    "difference_interval",
    "logit_interval",
    "mann_whitney_estimate",
    "t_interval",
]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_NOTHING = 1e-20
"""A variance or width below it is rounding."""


def auroc_estimate(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    patients: npt.ArrayLike | None = None,
    *,
    weights: npt.ArrayLike | None = None,
    strata: npt.ArrayLike | None = None,
    n_patients: int | None = None,
) -> Estimate:
    """Returns the AUROC of the rows with Obuchowski's cluster variance.

    Args:
      y_true: (n,) labels 0 or 1.
      y_score: (n,) finite scores.
      patients: (n,) codes 0..n_patients-1; None means one image per patient.
      weights: (n,) how much each row counts, known constants; None means 1.
      strata: (n,) codes; if given, the weights hold each stratum's share of a class fixed
        (post-stratification), so spread between strata is no part of the variance.
      n_patients: length of the influence; None means the largest code plus one.
    """
    y, s = checked_pair(y_true, y_score)
    return mann_whitney_estimate(
        s, y == 1, y == 0, patients, weights=weights, strata=strata, n_patients=n_patients
    )


def mann_whitney_estimate(
    scores: npt.ArrayLike,
    upper: npt.ArrayLike,
    lower: npt.ArrayLike,
    patients: npt.ArrayLike | None = None,
    *,
    weights: npt.ArrayLike | None = None,
    strata: npt.ArrayLike | None = None,
    n_patients: int | None = None,
) -> Estimate:
    """Returns P(an `upper` row scores above a `lower` row), ties one half, with its variance.

    AUROC: upper = positives, lower = negatives. sAUROC: upper = all positives, lower = the
    group's negatives. BPSN: upper = positives of the others, lower = the group's negatives.

    Args:
      scores: (n,) finite scores.
      upper, lower: (n,) True where the row is on that side.
      patients, weights, strata, n_patients: as in `auroc_estimate`.
    """
    s, up, low = checked_scores(scores), np.asarray(upper), np.asarray(lower)
    codes = np.arange(len(s)) if patients is None else np.asarray(patients, dtype=np.int64)
    size = n_patients or (int(codes.max()) + 1 if len(codes) else 0)
    w = np.ones(len(s)) if weights is None else np.asarray(weights, dtype=float)
    if not w[up].sum() > 0 or not w[low].sum() > 0:
        nowhere = np.zeros((2, size), dtype=bool)
        return Estimate(np.nan, np.nan, np.nan, np.full((2, size), np.nan), nowhere)
    kinds = None if strata is None else np.asarray(strata, dtype=np.int64)
    above = _side(s, codes, w, up, low, kinds, size, sign=1)
    below = _side(s, codes, w, low, up, kinds, size, sign=-1)
    return _joined(above, below, float(np.average(above.shares, weights=w[up])))


class _Side(NamedTuple):
    """The upper or the lower rows: their shares of won pairs, and those summed by patient.

    Attributes:
      shares: (n,) of all pairs of a row, those that are in the right order.
      apart: the same over all pairs of different patients.
      parts, weights: (p,) contribution to `apart`, and weight of the rows.
      pairs: (p,) weight of the pairs with other patients.
    """

    shares: Array
    apart: float
    parts: Array
    weights: Array
    pairs: Array


def _side(
    s: Array,
    codes: Ints,
    w: Array,
    mine: Bools,
    other: Bools,
    strata: Ints | None,
    size: int,
    sign: int,
) -> _Side:
    points, others = (sign * s[mine], codes[mine]), (sign * s[other], codes[other])
    shares = placements(points[0], others[0], w[other])
    apart, weight = placements_apart(shares, points, others, w[other])
    weight = weight * w[mine]
    total = weight.sum()
    centre = float((apart * weight).sum() / total) if total > 0 else 0.0
    kinds = None if strata is None else strata[mine]
    parts = _by_patient(apart, centre, weight, codes[mine], size, kinds)
    by_patient = [_sums(codes[mine], x, size) for x in (w[mine], weight)]
    return _Side(shares, centre, parts, by_patient[0], by_patient[1])


def _joined(above: _Side, below: _Side, value: float) -> Estimate:
    members = np.stack([above.weights > 0, below.weights > 0])
    n, total = members.sum(axis=1), above.pairs.sum()
    parts = np.stack([above.parts, below.parts])
    effective = [x.weights.sum() ** 2 / (x.weights**2).sum() for x in (above, below)]
    pairs = float(min(*effective, max(members.any(axis=0).sum() / 2, 1.0)))
    centre = above.apart if total > 0 else None
    draft = Estimate(value, np.nan, np.nan, parts, members, None, centre, pairs)
    if n.min() < 2 or not total > 0:
        return draft
    # Deleting a patient leaves this share of the pairs.
    left = 1 - (above.pairs + below.pairs) / total
    if left.min() < 1e-9:
        return draft
    spread = (parts * np.sqrt((n - 1) / n)[:, None]).sum(axis=0) / left
    variance = dot(spread, spread)
    if 0 < value < 1 and variance < _NOTHING:
        return draft._replace(spread=spread)
    return draft._replace(variance=variance, df=freedom(spread, *members), spread=spread)


def logit_interval(estimate: Estimate, level: float = 0.95) -> tuple[float, float]:
    """Returns the interval that is symmetric on the logit, with t quantiles: the default.

    At 0 and 1 no spread is left to measure, and the other end is a bound that holds for any law
    of the scores: a true value of a puts k disjoint pairs of patients all in the right order with
    probability a^k at most, so that ((1 - level) / 2)^(1 / k) is the lowest that is not refuted
    (.88 at 30 pairs, .95 at 75). NaN where the estimate is undefined, or all scores tie.
    """
    if estimate.value in (0, 1):
        return _bound(estimate, level)
    a = _inside(estimate)
    if not np.isfinite(estimate.variance) or not np.isfinite(a):
        return float("nan"), float("nan")
    half = _t_quantile(level, estimate.df) * estimate.se / (a * (1 - a))
    low, high = scipy.special.expit(scipy.special.logit(a) + np.array([-half, half]))
    return _with_width(float(low), float(high))


def _bound(estimate: Estimate, level: float) -> tuple[float, float]:
    n_up, n_low = estimate.members.sum(axis=1)
    k = estimate.pairs
    if k is None:
        k = min(n_up, n_low, max(estimate.members.any(axis=0).sum() / 2, 1.0))
    refuted = float((0.5 - level / 2) ** (1 / k))
    return (refuted, 1.0) if estimate.value == 1 else (0.0, 1 - refuted)


def _inside(estimate: Estimate) -> float:
    """The centre of the interval, kept off 0 and 1 where the value itself is."""
    a = estimate.centre
    return a if 0 < a < 1 else estimate.value


def arcsine_interval(estimate: Estimate, level: float = 0.95) -> tuple[float, float]:
    """Returns the interval that is symmetric on the arcsine of the root, with t quantiles.

    Narrower than the logit's with few images: 25 + 25 single images are covered in 95.8 %
    where the logit covers 96.9 %, 50 patients with 20 images each in 94.2 % against 94.4 %.
    """
    if estimate.value in (0, 1):
        return _bound(estimate, level)
    a = _inside(estimate)
    if not np.isfinite(estimate.variance) or not np.isfinite(a):
        return float("nan"), float("nan")
    half = _t_quantile(level, estimate.df) * estimate.se / (2 * np.sqrt(a * (1 - a)))
    ends = np.clip(np.arcsin(np.sqrt(a)) + np.array([-half, half]), 0, np.pi / 2)
    low, high = np.sin(ends) ** 2
    return _with_width(float(low), float(high))


def t_interval(estimate: Estimate, level: float = 0.95) -> tuple[float, float]:
    """Returns centre -+ t * se; NaN where undefined, or where no spread was seen."""
    if not np.isfinite(estimate.variance):
        return float("nan"), float("nan")
    half = _t_quantile(level, estimate.df) * estimate.se
    return _with_width(estimate.centre - half, estimate.centre + half)


def difference_interval(
    first: Estimate, second: Estimate, level: float = 0.95
) -> tuple[float, float]:
    """Returns the interval of first - second from the logit intervals of the two.

    Squares of the distances to their ends add (Newcombe 1998; Zou & Donner 2008, with the
    covariance of patients in both), so that it is skewed as they are near 0 and 1, stays within
    -1 and 1, and has a width where one of the two is perfect. NaN where either has no interval.
    """
    (low1, high1), (low2, high2) = (logit_interval(e, level) for e in (first, second))
    errors = first.se * second.se
    r = float(np.clip(covariance(first, second) / errors, -1, 1)) if errors > 0 else 0.0
    a, b = (e.value if e.value in (0, 1) else _inside(e) for e in (first, second))
    down, up = _added(a - low1, high2 - b, r), _added(high1 - a, b - low2, r)
    return _with_width(a - b - down, a - b + up)


def _added(x: float, y: float, r: float) -> float:
    return float(np.sqrt(max(x**2 + y**2 - 2 * r * x * y, 0.0)))


def _with_width(low: float, high: float) -> tuple[float, float]:
    """The ends, or NaN: an interval without width claims what no sample can show."""
    return (low, high) if high - low > _NOTHING else (float("nan"), float("nan"))


def _by_patient(
    values: Array, centre: float, weights: Array, codes: Ints, size: int, strata: Ints | None
) -> Array:
    centres: Array | float = centre
    if strata is not None:
        total = np.bincount(strata, weights)
        mean = np.bincount(strata, weights * values) / np.where(total > 0, total, 1)
        centres = mean[strata]
    parts = weights * (values - centres) / max(weights.sum(), 1e-300)
    return _sums(codes, parts, size)


def _sums(codes: Ints, values: Array, size: int) -> Array:
    return np.asarray(np.bincount(codes, values, minlength=size), dtype=float)


def _t_quantile(level: float, df: float) -> float:
    return float(scipy.stats.t.ppf(0.5 + level / 2, df))
