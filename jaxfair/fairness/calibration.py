"""Are scores probabilities? Slope, intercept, debiased error; ECE beside its own null.

Anomaly scores are no probabilities until `platt`, fitted on validation rows, has made them so.
Bin edges come from validation too, and are shared by all groups (protocol S7).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.special
import sklearn.metrics

from jaxfair.fairness.values import checked_pair, checked_probabilities, checked_scores

__all__ = [
    "Fit",
    "Platt",
    "brier",
    "calibration_intercept",
    "calibration_slope",
    "debiased_squared_error",
    "ece",
    "ece_null",
    "equal_mass_edges",
    "platt",
    "reliability",
]

Array = npt.NDArray[np.float64]

N_BINS = 15
_CLIP = 1e-7


def brier(y_true: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Returns the mean squared error of the probabilities; NaN without rows."""
    y, p = _pair(y_true, probabilities)
    return float(sklearn.metrics.mean_squared_error(y, p)) if len(y) else float("nan")


def equal_mass_edges(probabilities: npt.ArrayLike, n_bins: int = N_BINS) -> Array:
    """Returns the inner edges of bins that hold equal shares of these (validation) rows.

    Ties may leave fewer than n_bins bins.
    """
    p = checked_probabilities(probabilities)
    return np.unique(np.quantile(p, np.arange(1, n_bins) / n_bins))


def ece(y_true: npt.ArrayLike, probabilities: npt.ArrayLike, edges: npt.ArrayLike) -> float:
    """Returns the expected calibration error over the bins between `edges`.

    It is above 0 for a perfect model, the more so the fewer rows (.106 at 100, .024 at 2,000):
    read it beside `ece_null`.
    """
    count, truth, mean = _bins(*_pair(y_true, probabilities), np.asarray(edges, dtype=float))
    if not count.sum():
        return float("nan")
    return float((count * np.abs(truth - mean)).sum() / count.sum())


def ece_null(
    probabilities: npt.ArrayLike, edges: npt.ArrayLike, *, seed: int, n_draws: int = 200
) -> float:
    """Returns the mean ECE if these probabilities were exactly right."""
    p, rng = checked_probabilities(probabilities), np.random.default_rng(seed)
    draws = [ece((rng.random(len(p)) < p).astype(float), p, edges) for _ in range(n_draws)]
    return float(np.mean(draws))


def debiased_squared_error(
    y_true: npt.ArrayLike, probabilities: npt.ArrayLike, edges: npt.ArrayLike
) -> float:
    """Returns the squared calibration error without its bias (Kumar et al. 2019); about 0 if right.

    Bins with fewer than two rows are left out; a negative value means no error was seen.
    """
    count, truth, mean = _bins(*_pair(y_true, probabilities), np.asarray(edges, dtype=float))
    use = count > 1
    if not use.any():
        return float("nan")
    count, truth, mean = count[use], truth[use], mean[use]
    bias = truth * (1 - truth) / (count - 1)
    return float((count * ((truth - mean) ** 2 - bias)).sum() / count.sum())


def reliability(
    y_true: npt.ArrayLike, probabilities: npt.ArrayLike, edges: npt.ArrayLike
) -> tuple[Array, Array, Array]:
    """Returns rows, observed share and mean probability of each bin; empty bins are left out."""
    count, truth, mean = _bins(*_pair(y_true, probabilities), np.asarray(edges, dtype=float))
    return count[count > 0], truth[count > 0], mean[count > 0]


def calibration_slope(y_true: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Returns the slope of y on logit(p): 1 is right, below 1 is overconfident."""
    y, p = _pair(y_true, probabilities)
    return _fit(y, _logit(p)).slope


def calibration_intercept(y_true: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Returns calibration in the large: the shift of logit(p), at slope 1, that y asks for.

    0 is right; above 0 the probabilities are too low on average.
    """
    y, p = _pair(y_true, probabilities)
    if not len(y) or y.min() == y.max():
        return float("nan")
    shift, offset = 0.0, _logit(p)
    for _ in range(100):
        q = scipy.special.expit(shift + offset)
        step = (y - q).sum() / max((q * (1 - q)).sum(), 1e-12)
        shift += float(np.clip(step, -2, 2))
        if abs(step) < 1e-10:
            return shift
    return float("nan")


class Fit(NamedTuple):
    """A logistic line: P(y = 1) = expit(intercept + slope * x); NaN if it does not exist."""

    intercept: float
    slope: float


class Platt(NamedTuple):
    """Scores to probabilities by a logistic line fitted on validation rows."""

    fit: Fit
    centre: float
    scale: float

    def __call__(self, scores: npt.ArrayLike) -> Array:
        """Returns (n,) probabilities of (n,) scores."""
        x = (checked_scores(scores, "scores") - self.centre) / self.scale
        return np.asarray(scipy.special.expit(self.fit.intercept + self.fit.slope * x))


def platt(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> Platt:
    """Fits probabilities to scores on validation rows, with Platt's (1999) softened labels.

    The labels (m + 1) / (m + 2) and 1 / (n + 2), for m positives and n negatives, keep the
    line finite where the classes separate. One class only gives NaN.
    """
    y, s = checked_pair(y_true, y_score)
    if not 0 < y.sum() < len(y):
        return Platt(Fit(np.nan, np.nan), 0.0, 1.0)
    m, n = y.sum(), (1 - y).sum()
    centre, scale = float(s.mean()), float(s.std()) or 1.0
    soft = np.where(y == 1, (m + 1) / (m + 2), 1 / (n + 2))
    return Platt(_fit(soft, (s - centre) / scale), centre, scale)


def _fit(y: Array, x: Array) -> Fit:
    """Logistic regression of y in [0, 1] on x by Newton steps, halved where they overshoot."""
    nothing = Fit(float("nan"), float("nan"))
    if len(y) < 2 or y.min() == y.max() or np.ptp(x) == 0:
        return nothing
    design, beta = np.stack([np.ones(len(x)), x]), np.zeros(2)
    loss = _deviance(y, design, beta)
    for _ in range(100):
        q = scipy.special.expit(beta @ design)
        hessian = (design * (q * (1 - q))) @ design.T
        if np.linalg.cond(hessian) > 1e12:
            return nothing
        step = np.linalg.solve(hessian, design @ (y - q))
        while (trial := _deviance(y, design, beta + step)) > loss + 1e-12 * abs(loss):
            step = step / 2
        beta, loss = beta + step, trial
        if np.abs(step).max() < 1e-9:
            return Fit(float(beta[0]), float(beta[1]))
    return nothing


def _deviance(y: Array, design: Array, beta: Array) -> float:
    x = beta @ design
    return float((np.logaddexp(0, x) - y * x).sum())


def _bins(y: Array, p: Array, edges: Array) -> tuple[Array, Array, Array]:
    index = np.searchsorted(edges, p, side="right")
    count = np.bincount(index, minlength=len(edges) + 1).astype(float)
    safe = np.maximum(count, 1)
    truth = np.bincount(index, y, minlength=len(count)) / safe
    return count, truth, np.bincount(index, p, minlength=len(count)) / safe


def _logit(p: Array) -> Array:
    return np.asarray(scipy.special.logit(np.clip(p, _CLIP, 1 - _CLIP)))


def _pair(y_true: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[Array, Array]:
    return checked_pair(y_true, checked_probabilities(probabilities), "probabilities")
