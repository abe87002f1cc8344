"""Exact intervals of rates, at the number of images that the patients are worth.

Clopper and Pearson's (1934) interval takes counts of independent trials. Images of one patient are
not independent, so the number of trials is the effective one (Korn & Graubard 1998): the binomial
variance over the variance between patients, and at 0 and 1, where no variance is seen, what it
would be if all images of a patient were alike. It has a width however many were all found.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.stats

from jaxfair.errors import InputError
from jaxfair.fairness.values import checked_scores

__all__ = ["Rate", "rate_estimate"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Rate(NamedTuple):
    """A rate with its exact interval.

    Attributes:
      value: hits / trials; NaN without trials.
      low, high: ends of the interval.
      trials: the effective number behind it.
    """

    value: float
    low: float
    high: float
    trials: float


def rate_estimate(
    hits: npt.ArrayLike,
    trials: npt.ArrayLike,
    patients: npt.ArrayLike | None = None,
    *,
    threshold_variance: float = 0.0,
    level: float = 0.95,
) -> Rate:
    """Returns sum(hits) / sum(trials), between 0 and 1, with its interval over patients.

    Args:
      hits: (n,) 0 <= hits <= trials; called positives among the positives, say.
      trials: (n,) how much each row counts below the line: 0 or 1, in F1 also 2.
      patients: (n,) codes; None means one image per patient.
      threshold_variance: what other validation patients would change in the rate by another
        threshold. 0 gives the interval of the rate at the threshold as it is, NaN gives none.
      level: of the interval.

    Raises:
      InputError: if one is not finite, or hits are below 0 or above trials.

    >>> rate = rate_estimate([1] * 10, [1] * 10)
    >>> rate.value, round(rate.low, 3), rate.high
    (1.0, 0.692, 1.0)
    """
    a, b = checked_scores(hits, "hits"), checked_scores(trials, "trials")
    if len(a) != len(b) or not ((a >= 0) & (a <= b + 1e-9)).all():
        raise InputError("hits lie between 0 and trials, row by row; give one of both for each.")
    use = b > 0
    if not use.any():
        return Rate(*[float("nan")] * 4)
    codes = np.arange(len(b)) if patients is None else np.asarray(patients, dtype=np.int64)
    own = np.unique(codes[use], return_inverse=True)[1]
    value = float(a.sum() / b.sum())
    most = float(b.sum() ** 2 / (b**2).sum())
    by_patient = np.stack([np.bincount(own, x[use]) for x in (a, b)]).astype(float)
    n = _effective(by_patient[0], by_patient[1], value, most)
    near = (value * n + 0.5) / (n + 1)
    if np.isnan(threshold_variance):
        return Rate(value, *[float("nan")] * 3)
    n = n / (1 + n * threshold_variance / (near * (1 - near)))
    return Rate(value, *_clopper_pearson(value, n, level), n)


def _effective(hits: Array, trials: Array, value: float, most: float) -> float:
    """The number of independent trials that say as much as these sums by patient."""
    m, share = len(trials), trials / trials.sum()
    alike = float(1 / (share**2).sum())
    if m < 2 or not 0 < value < 1:
        return alike
    # A patient's weight is in the rate too; deleting the patient shows what it hides.
    deviations = (hits - value * trials) / (trials.sum() * (1 - share)) * (m - 1) / m
    variance = float((deviations**2).sum())
    n = min(value * (1 - value) / variance, most) if variance > 0 else most
    # The variance rests on the patients with the rarer outcome; one more, alike, is added.
    rarer = hits > 0 if value < 0.5 else trials > hits
    seen = float(trials[rarer].sum() ** 2 / (trials[rarer] ** 2).sum())
    return max((seen + 1) / (seen / n + 1 / alike), 1.0)


def _clopper_pearson(value: float, n: float, level: float) -> tuple[float, float]:
    tail, x = 0.5 - level / 2, value * n
    low = scipy.stats.beta.ppf(tail, x, n - x + 1) if value > 0 else 0.0
    high = scipy.stats.beta.ppf(1 - tail, x + 1, n - x) if value < 1 else 1.0
    return float(low), float(high)
