"""A search that is paid for: the best of a random number of runs is released, and nothing else.

Guarantee (Papernot and Steinke 2022, "Hyperparameter tuning with Renyi differential privacy",
arXiv 2110.03620, theorems 2 and 6). Let one run draw its settings from a public law, train, and get
a score, and let (settings, training, score) have Renyi differential privacy of orders 1 and above.
Run it K times, independently, with K from one of the laws below, and release the run with the best
score alone. Then what is released has the Renyi privacy that `priced` computes:

  * truncated negative binomial of shape eta >= 0 (1: geometric, 0: logarithmic), theorem 2:
    e' = e + (1 + eta) ((1 - 1/b) e_b + log(1/gamma) / b) + log(E K) / (a - 1), for every order b;
  * Poisson, theorem 6: e' = e + E K delta_hat + log(E K) / (a - 1), where the run is also
    (log(1 + 1/(a - 1)), delta_hat)-private. K may be 0: then nothing is released.

It holds only where K is not told, no other run is, and K and the settings are drawn without a look
at the data; `stopping_number` keys both by a secret. A training patient is in the training of each
run, and scores of patients who did not train are post-processing for him. For whoever decides by
his data which score is best, and trained nowhere, the run is its noisy score alone (`score.py`).

The composition is dp_accounting's `RepeatAndSelectDpEvent`; nothing here is our own mathematics but
the laws of K.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import dp_accounting
import numpy as np
import scipy.optimize
from dp_accounting.rdp import RdpAccountant

from jaxfair.privacy.secret import Secret

__all__ = [
    "LAWS",
    "ORDERS",
    "Search",
    "gamma_from_mean",
    "generator",
    "mean_from_gamma",
    "priced",
    "probabilities",
    "stopping_number",
]

LAWS = {"logarithmic": 0.0, "geometric": 1.0, "poisson": math.inf}
"""The laws of the number of runs by name, and their shape in the paper (and in dp_accounting)."""

ORDERS = tuple(
    [k / 4 for k in range(8, 44)]
    + [float(k) for k in range(11, 64)]
    + [80.0, 100.0, 128.0, 160.0, 200.0, 256.0, 512.0, 1024.0]
)
"""Renyi orders of a search."""


@dataclass(frozen=True)
class Search:
    """How many runs a search makes: a law and its mean. Public constants.

    Attributes:
      mean: expected number of runs, above 1.
      law: a key of LAWS.

    Raises ValueError for values outside these.
    """

    mean: float
    law: str = "geometric"

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            raise ValueError(f"law is {self.law!r}; known are {', '.join(LAWS)}.")
        if not 1 < self.mean < math.inf:
            raise ValueError(f"mean must be finite and above 1, got {self.mean}.")

    @property
    def shape(self) -> float:
        """The shape eta of the law; infinite for Poisson."""
        return LAWS[self.law]


def priced(
    search: Search, event: Any, relation: dp_accounting.NeighboringRelation
) -> RdpAccountant:
    """Returns the accountant of the best of a random number of runs.

    Args:
      event: the dp_event of one run, all of its steps.
    """
    book = RdpAccountant(list(ORDERS), relation)
    book.compose(dp_accounting.dp_event.RepeatAndSelectDpEvent(event, search.mean, search.shape))
    return book


def mean_from_gamma(gamma: float, shape: float) -> float:
    """Returns E[K] of the truncated negative binomial (definition 1 of the paper).

    eta (1 - g) / (g (1 - g^eta)), and for eta = 0 its limit (1/g - 1) / log(1/g).

    >>> round(mean_from_gamma(0.1, 1.0), 9)  # geometric
    10.0
    """
    if shape == 0:
        return (1 / gamma - 1) / math.log(1 / gamma)
    return shape * (1 - gamma) / (gamma * (1 - gamma**shape))


@functools.lru_cache(maxsize=64)
def gamma_from_mean(mean: float, shape: float) -> float:
    """Returns the gamma in (0, 1) with which K has this mean.

    >>> round(gamma_from_mean(10.0, 1.0), 12)
    0.1
    """
    excess = lambda log_gamma: mean_from_gamma(math.exp(log_gamma), shape) - mean
    return math.exp(scipy.optimize.brentq(excess, -200.0, -1e-9, xtol=1e-15))


def probabilities(search: Search, count: int) -> np.ndarray:
    """Returns P[K = k] for k = 0 to `count` - 1, float64 (count,).

    Negative binomial: P[K = k] is proportional to (1 - g)^k prod_{i < k} (i + eta) / (i + 1) for
    k >= 1, and 0 at k = 0.
    """
    k = np.arange(count)
    if search.law == "poisson":
        logs = k * math.log(search.mean) - search.mean - _log_factorials(k)
        return np.exp(logs)
    gamma, eta = gamma_from_mean(search.mean, search.shape), search.shape
    found = np.zeros(count)
    if count > 1:
        first = math.log(1 / gamma) if eta == 0 else (gamma**-eta - 1) / eta
        ratios = (1 - gamma) * (k[1:-1] + eta) / (k[1:-1] + 1)
        found[1:] = (1 - gamma) / first * np.cumprod(np.concatenate([[1.0], ratios]))
    return found


def stopping_number(search: Search, secret: Secret) -> int:
    """Returns K, a function of the secret alone.

    Guarantees: K has the law of `probabilities`, by inversion of one uniform number of 53 bits. It
    is never cut, since a bound would be another law, and neither data nor earlier scores decide
    when a search ends.
    """
    uniform = generator(secret, "stopping number").random()
    total, begin, size = 0.0, 0, 64 + int(8 * search.mean)
    while True:
        found = probabilities(search, begin + size)[begin:]
        sums = total + np.cumsum(found)
        place = int(np.searchsorted(sums, uniform, side="right"))
        if place < len(sums) or sums[-1] == total:  # what is left rounds to nothing
            return begin + min(place, len(sums) - 1)
        total, begin = float(sums[-1]), begin + size


def generator(secret: Secret, purpose: str, *numbers: int) -> np.random.Generator:
    """Returns what draws the public choices of a search: 128 bits of the secret key it."""
    key = int.from_bytes(secret.derive(f"search: {purpose}", *numbers, length=16), "little")
    return np.random.Generator(np.random.Philox(key=key))


def _log_factorials(k: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.maximum(k[1:], 1)))])
