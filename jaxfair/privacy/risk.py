"""What epsilon means: how many members the best attacker finds, and the mu of Gaussian DP.

An attacker who sees everything that is released and knows all other people decides of one person
whether he took part. Of those who did not he accuses a share `a` (false positives). (epsilon,
delta)-DP for every epsilon, the privacy profile, bounds the share of members whom he finds by
1 - f(a), with the trade-off function

    f(a) = max over epsilon of max(0, 1 - delta - e^epsilon a, e^-epsilon (1 - delta - a))

(Wasserman and Zhou 2010; Dong, Roth and Su 2022, proposition 2.5 and equation 6). The profile is
Google's PLD, an upper bound for both directions of adding and removing; taking fewer epsilons makes
f smaller. So every number here errs towards a better attacker, and rounds up.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.stats

from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.search import Search

__all__ = [
    "FALSE_POSITIVES",
    "gaussian_mu",
    "group_guarantee",
    "risk",
    "true_positive_rate",
]

FALSE_POSITIVES = (0.01, 0.001)
"""Shares of innocent people that an attacker may accuse: 1 in 100 and 1 in 1,000."""

_POINTS = 1000
_DIGITS = 4

Array = npt.NDArray[np.float64]


def risk(events: Iterable[Event], delta: float, search: Search | None = None) -> dict[str, Any]:
    """Returns `gaussian_mu` and `true_positive_rates` by false positive rate, rounded up.

    Args:
      delta: of the claim; mu holds for every delta that is no smaller (`gaussian_mu`).
      search: the events are those of one run of this search, as in `accounting.epsilon`.

    >>> found = risk([Event(1.0, 1.0, 1)], 1e-5)
    >>> found["gaussian_mu"], found["true_positive_rates"]
    (1.0039, {'0.01': 0.0924, '0.001': 0.0183})
    """
    mu, rates = _risk(accounting.merged_events(events), delta, search)
    return {"gaussian_mu": mu, "true_positive_rates": dict(rates)}


def true_positive_rate(
    events: Iterable[Event], false_positive_rate: float, search: Search | None = None
) -> float:
    """Returns the largest share of members that an attacker finds who accuses so many innocents.

    Raises ValueError for a rate outside [0, 1].
    """
    if not 0 <= false_positive_rate <= 1:
        raise ValueError(f"A false positive rate lies in [0, 1], got {false_positive_rate}.")
    events = accounting.merged_events(events)
    if not events:
        return false_positive_rate
    return _found(false_positive_rate, *_profile(events, search))


def gaussian_mu(events: Iterable[Event], delta: float, search: Search | None = None) -> float:
    """Returns the smallest mu whose Gaussian mechanism is no more private than these events.

    Its delta is at least theirs at every epsilon from 0 to that of the claim (where theirs is
    `delta`). What has a smaller chance than delta is left out, as in the claim itself: the tail of
    a sampled mechanism is that of the unsampled one, and no mu that describes it is of use.

    Of neighbouring epsilons the larger one of Gaussian DP has to hold what the smaller one of the
    events has, so that nothing between them is missed.
    """
    events = accounting.merged_events(events)
    if not events:
        return 0.0
    last = accounting.epsilon(events, delta, search=search)
    epsilons = np.linspace(0.0, max(last, 1e-3), _POINTS)
    deltas = np.array(accounting.privacy_profile(events, list(epsilons), search=search))

    def shortfall(mu: float) -> float:
        return float(np.max(deltas[:-1] - _gaussian_delta(mu, epsilons[1:])))

    high = 1.0
    while shortfall(high) > 0:
        high *= 2
    low = 0.0 if high == 1.0 else high / 2
    mu = scipy.optimize.brentq(shortfall, max(low, 1e-9), high, xtol=1e-9)
    while shortfall(mu) > 0:
        mu += 1e-9
    return float(mu)


def group_guarantee(epsilon: float, delta: float, size: int) -> tuple[float, float]:
    """Returns epsilon and delta for `size` units at once, of any mechanism: group privacy.

    size * epsilon and delta (e^(size epsilon) - 1) / (e^epsilon - 1) (Vadhan 2017, lemma 2.2,
    summed); a delta of 1 or more is 1 and promises nothing.

    >>> epsilon, delta = group_guarantee(1.0, 1e-6, 2)
    >>> epsilon, round(delta * 1e6, 4)
    (2.0, 3.7183)
    """
    if size * epsilon > 700:
        return size * epsilon, 1.0 if delta else 0.0
    grown = size if epsilon == 0 else math.expm1(size * epsilon) / math.expm1(epsilon)
    return size * epsilon, min(1.0, delta * grown)


@functools.lru_cache(maxsize=64)
def _risk(
    events: tuple[Event, ...], delta: float, search: Search | None
) -> tuple[float, dict[str, float]]:
    found = {
        f"{rate:g}": min(1.0, _up(true_positive_rate(events, rate, search)))
        for rate in FALSE_POSITIVES
    }
    return _up(gaussian_mu(events, delta, search)), found


def _profile(events: Sequence[Event], search: Search | None) -> tuple[Array, Array]:
    """Epsilons from 0 to where delta no longer matters, and their deltas."""
    last = max(accounting.epsilon(events, 1e-9, search=search), 1e-3)
    epsilons = np.linspace(0.0, last, _POINTS)
    return epsilons, np.array(accounting.privacy_profile(events, list(epsilons), search=search))


def _found(rate: float, epsilons: Array, deltas: Array) -> float:
    """1 - f(rate)."""
    growth = np.exp(np.minimum(epsilons, 700.0))
    missed = np.maximum(1 - deltas - growth * rate, (1 - deltas - rate) / growth)
    return float(1 - max(0.0, missed.max()))


def _gaussian_delta(mu: float, epsilons: Array) -> Array:
    """delta of mu-Gaussian DP at each epsilon (Dong, Roth and Su 2022, corollary 2.13)."""
    lower = scipy.stats.norm.logcdf(-epsilons / mu - mu / 2) + epsilons
    return np.asarray(scipy.stats.norm.cdf(-epsilons / mu + mu / 2) - np.exp(lower))


def _up(value: float) -> float:
    return math.ceil(value * 10**_DIGITS) / 10**_DIGITS
