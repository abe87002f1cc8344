"""Intervals of what a noisy histogram says: score intervals that hold sampling and noise.

A value T is believed to have come from t where (T - t)^2 <= z^2 V(t), with the variance that T has
*under t*. T itself is never cut: noise may lift an AUROC above 1, and its interval then still holds
what lies below. With counts n, p, whose noise has the covariance S along the bins and none between
labels,

* a share T = X / W has X - t W of mean zero, whose variance is W t (1 - t) of sampling (Wilson
  1927) and Var X - 2 t Cov(X, W) + t^2 Var W of noise: a ratio as Fieller (1954) has it, in closed
  form;
* an AUROC T = n K p / (N P) has n (K - t) p of mean zero. Its noise is exact, of both orders; its
  sampling variance is that of the two labels (DeLong 1988) at T, moved to t as that of two normals
  of one variance would move, t (1 - t) - 2 OwenT(Phi^-1(t), 1 / sqrt 3). Where few patients lie on
  the wrong side (P (1 - T) of about ten or less) the variance found is mostly luck, and one that is
  wider than that of the two normals is taken instead: 1.1 (4 t (1 - t))^(-1/4) times theirs.

A difference is of independent values (Newcombe 1998, method 10).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.special
import scipy.stats

from jaxfair.fairness.histogram import kernel

__all__ = ["Interval", "area_interval", "difference", "hull", "share_interval"]

Array = npt.NDArray[np.float64]

_Z = float(scipy.stats.norm.ppf(0.975))
_FEW = 10.0
_WIDE = 1.1
_RATIOS = (0.2, 100.0)
_FAR, _HALVINGS = 3.0, 40


class Interval(NamedTuple):
    """A value and its 95 % interval, neither cut at 0 nor at 1; arrays of one shape.

    Attributes:
      noise_sd: standard deviation of the value by the noise alone.
    """

    value: Array
    low: Array
    high: Array
    noise_sd: Array


def share_interval(part: npt.ArrayLike, whole: npt.ArrayLike, noise: npt.ArrayLike) -> Interval:
    """Returns part / whole with its interval; all of 0 to 1 where noise drowns the whole.

    Args:
      part, whole: noisy mass, the whole positive.
      noise: (2, 2) covariance of their noise.

    >>> found = share_interval(8.0, 10.0, np.zeros((2, 2)))  # Wilson's interval of 8 in 10
    >>> round(float(found.low), 3), round(float(found.high), 3)
    (0.49, 0.943)
    """
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    (own, both), (_, total) = np.asarray(noise, float)
    square = whole**2 + _Z**2 * (whole - total)
    half = part * whole + _Z**2 * (whole / 2 - both)
    root = np.sqrt(np.maximum(half**2 - square * (part**2 - _Z**2 * own), 0))
    value, bounded = part / whole, square > 0
    safe = np.where(bounded, square, 1.0)
    low = np.where(bounded, (half - root) / safe, np.minimum(value, 0))
    high = np.where(bounded, (half + root) / safe, np.maximum(value, 1))
    inside = np.clip(value, 0, 1)
    return Interval(value, low, high, np.sqrt(own - 2 * inside * both + inside**2 * total) / whole)


def area_interval(counts: npt.ArrayLike, noise: npt.ArrayLike) -> Interval:
    """Returns the AUROC of noisy histograms (..., 2, b), each label of positive mass.

    Args:
      noise: (b, b) covariance of the noise on the counts of each label.
    """
    counts = np.asarray(counts, float)
    matrix = kernel(counts.shape[-1])
    masses = counts.sum(-1)
    seen = counts[..., 0, :] @ matrix, counts[..., 1, :] @ matrix.T
    wins = np.stack([seen[1] / masses[..., 1:], seen[0] / masses[..., :1]], -2)
    value = (wins[..., 1, :] * counts[..., 1, :]).sum(-1) / masses[..., 1]
    sampled = _sampled(counts, masses, wins, value)
    noised = _noised(masses, wins, matrix, np.asarray(noise, float))

    def believable(t: Array) -> Array:
        variance = sampled * _two_normals(t) + noised[0] + t * (noised[1] + t * noised[2])
        return (value - t) ** 2 <= _Z**2 * np.maximum(variance, 0)

    low, high = (_last(believable, value, side) for side in (-_FAR, _FAR))
    at = np.clip(value, 0, 1)
    sd = np.sqrt(np.maximum(noised[0] + at * (noised[1] + at * noised[2]), 0))
    return Interval(value, low, high, sd)


def difference(one: Interval, other: Interval) -> Interval:
    """Returns one minus the other."""
    value = one.value - other.value
    low = value - np.hypot(one.value - one.low, other.high - other.value)
    high = value + np.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, low, high, np.hypot(one.noise_sd, other.noise_sd))


def hull(one: Interval, other: Interval) -> Interval:
    """Returns `one`, whose interval holds that of `other` too."""
    return one._replace(low=np.minimum(one.low, other.low), high=np.maximum(one.high, other.high))


def _sampled(counts: Array, masses: Array, wins: Array, value: Array) -> Array:
    """The sampling variance in units of `_two_normals`, nearly 1 / N + 1 / P."""
    effective = 1 / (1 / masses).sum(-1)
    inside = np.clip(value, 0.5 / (effective + 1), 1 - 0.5 / (effective + 1))
    found = (counts * (wins - value[..., None, None]) ** 2).sum(-1) / masses
    ratio = np.clip(found / _two_normals(inside)[..., None], *_RATIOS)
    known = masses * np.minimum(inside, 1 - inside)[..., None]
    trust = known / (known + _FEW)
    wide = _WIDE * (4 * inside * (1 - inside))[..., None] ** -0.25
    return np.asarray((np.maximum(ratio**trust * wide ** (1 - trust), ratio) / masses).sum(-1))


def _noised(masses: Array, wins: Array, matrix: Array, noise: Array) -> tuple[Array, Array, Array]:
    """Coefficients of 1, t and t^2 in the variance of n (K - t) p / (N P) by the noise S.

    Of first order are w S w / N^2, w = (K - t) p / P, and the like of p; of second order is
    tr (K - t)^T S (K - t) S / (N P)^2, which the first holds twice in expectation, for its counts
    are noisy themselves.
    """
    spread, between = wins @ noise, noise @ matrix @ noise
    both, own = 1 / masses.prod(-1) ** 2, 1 / masses**2
    return (
        (own * (spread * wins).sum(-1)).sum(-1) - both * (between * matrix).sum(),
        -2 * (own * spread.sum(-1)).sum(-1) + 2 * both * between.sum(),
        own.sum(-1) * noise.sum() - both * noise.sum() ** 2,
    )


def _two_normals(t: Array) -> Array:
    """Variance of the share of the other label below a score, two normals of AUROC t apart."""
    inside = np.clip(t, 1e-12, 1 - 1e-12)
    between = inside * (1 - inside) - 2 * scipy.special.owens_t(
        scipy.special.ndtri(inside), 3**-0.5
    )
    return np.where((t > 0) & (t < 1), between, 0.0)


def _last(believable: Callable[[Array], Array], value: Array, reach: float) -> Array:
    """The last believable t from `value` on, by halving."""
    near, far = value, value + reach
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        good = believable(middle)
        near, far = np.where(good, middle, near), np.where(good, far, middle)
    return near
