"""Lower bounds on epsilon from canaries: what an attacker's scores prove about a mechanism.

Each canary was put in or left out by a fair coin, and got a score from what was released;
high scores say "in". Four bounds, from the one that assumes nothing to the one that knows
the mechanism's family and only measures its noise:

| bound | assumes | source |
|---|---|---|
| one run | nothing: any (epsilon, delta)-DP algorithm, one run | Steinke et al. 2023 |
| one run, Gaussian | a trade-off curve as of a Gaussian mechanism | Mahloujifar et al. 2024 |
| error rates | independent canaries (Clopper-Pearson) | Nasr et al. 2021 |
| noise level | Poisson-sampled Gaussian steps; canaries on entries of their own | here |
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats

__all__ = [
    "Bound",
    "bounds_from_scores",
    "error_rate_epsilon",
    "gaussian_epsilon",
    "noise_upper_bound",
    "one_run_epsilon",
    "one_run_gaussian_epsilon",
]

GUESS_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
"""Shares of the canaries that are guessed "in" by the one-run bounds; fixed beforehand."""

_LARGEST = 100.0


class Bound(NamedTuple):
    """A lower bound on epsilon.

    Attributes:
      name: of the way it was found.
      epsilon: with the confidence asked for, the mechanism is not (less, delta)-DP.
      reachable: what as many canaries could have shown at most, every guess being right.
    """

    name: str
    epsilon: float
    reachable: float


def bounds_from_scores(
    ins: np.ndarray, outs: np.ndarray, *, delta: float, level: float
) -> list[Bound]:
    """Returns the bounds that need only scores, each with confidence 1 - level.

    Args:
      ins, outs: (n,) scores of the canaries that were in, and of those that were not.
      delta: of the claim.
      level: probability with which a bound may exceed the truth.
    """
    one_run, gaussian = _best_guesses(ins, outs, delta, level)
    perfect = np.ones(len(ins)), np.zeros(len(outs))
    most, most_gaussian = _best_guesses(*perfect, delta, level)
    return [
        Bound("one run", one_run, most),
        Bound("one run, Gaussian", gaussian, most_gaussian),
        Bound(
            "error rates",
            _split_error_rates(ins, outs, delta, level),
            _split_error_rates(*perfect, delta, level),
        ),
    ]


def one_run_epsilon(
    canaries: int, guesses: int, correct: int, *, delta: float, level: float
) -> float:
    """Returns the largest epsilon that `correct` of `guesses` right guesses refute.

    For an (epsilon, delta)-DP algorithm and p = e^eps / (1 + e^eps),
    P[correct >= v] <= F(v) + 2 m delta max_i (F(v - i) - F(v)) / i, F(v) = P[Bin(r, p) >= v].

    Args:
      canaries: m, all of them, guessed or not.
      guesses: r, how many were guessed; the attacker abstains from the rest.
      correct: v, how many guesses were right.
      delta: of the claim.
      level: one minus the confidence.

    Source: Steinke et al. 2023 (arXiv 2305.08846), theorem 5.2.

    >>> round(one_run_epsilon(1000, 1000, 1000, delta=0.0, level=0.05), 1)
    5.8
    """

    def chance(epsilon: float) -> float:
        rate = 1 / (1 + math.exp(-epsilon))
        tail = float(scipy.stats.binom.sf(correct - 1, guesses, rate))
        if delta == 0 or correct == 0:
            return tail
        fewer = np.arange(1, correct + 1)
        gains = scipy.stats.binom.sf(correct - fewer - 1, guesses, rate) - tail
        return tail + 2 * canaries * delta * float(np.max(gains / fewer))

    return _largest_refuted(lambda epsilon: chance(epsilon) <= level)


def one_run_gaussian_epsilon(
    canaries: int, guesses: int, correct: int, *, delta: float, level: float
) -> float:
    """Returns the largest epsilon of a Gaussian trade-off curve that the guesses refute.

    Tighter than `one_run_epsilon`, as it uses the whole curve and not one point of it.
    Arguments as there. Source: Mahloujifar et al. 2024 (arXiv 2410.22235), algorithm 1.
    """

    def refuted(mu: float) -> bool:
        right = level * correct / canaries
        wrong = level * (guesses - correct) / canaries
        for i in range(correct - 1, -1, -1):
            higher = max(wrong, float(scipy.special.ndtr(scipy.special.ndtri(right) - mu)))
            if higher == wrong:
                break
            right = min(right + i / (guesses - i) * (higher - wrong), 1.0)
            wrong = higher
        return right + wrong > guesses / canaries

    return gaussian_epsilon(_largest_refuted(refuted), delta)


def error_rate_epsilon(
    false_positives: int, outs: int, false_negatives: int, ins: int, *, delta: float, level: float
) -> float:
    """Returns log((1 - delta - FNR) / FPR), or the other way round, at Clopper-Pearson limits.

    Args:
      false_positives: of `outs` canaries that were not in, how many were guessed in.
      false_negatives: of `ins` canaries that were in, how many were guessed out.

    Source: Kairouz et al. 2015, region of (epsilon, delta)-DP; Nasr et al. 2021.
    """
    fpr = _clopper_pearson(false_positives, outs, level / 2)
    fnr = _clopper_pearson(false_negatives, ins, level / 2)
    found = [
        math.log((1 - delta - a) / b) for a, b in ((fnr, fpr), (fpr, fnr)) if 1 - delta - a > b
    ]
    return max(found, default=0.0)


def noise_upper_bound(
    ins: np.ndarray, outs: np.ndarray, *, sampling_prob: float, steps: int, level: float
) -> float:
    """Returns sigma such that, with confidence 1 - level, the noise multiplier is at most sigma.

    Args:
      ins, outs: (n,) sums over the steps of a canary's own entry of the noisy sum, divided
        by C; canaries stand on entries of their own and are clipped to C.
      sampling_prob, steps: q and T. A canary that is in adds T q on average, and the scores
        of those that are out spread by sigma sqrt(T).

    A smaller sigma than the claim's says that the noise is too small, or the clip too large.
    0 where the scores lie further apart than any noise would explain.
    """
    quantile = scipy.stats.norm.ppf(1 - level / 2)
    error = math.sqrt(np.var(ins, ddof=1) / len(ins) + np.var(outs, ddof=1) / len(outs))
    apart = float(np.mean(ins) - np.mean(outs)) - quantile * error
    if apart <= 0:
        return math.inf
    freedom = len(outs) - 1
    spread = math.sqrt(freedom * np.var(outs, ddof=1) / scipy.stats.chi2.ppf(level / 2, freedom))
    return spread / apart * sampling_prob * math.sqrt(steps)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Returns epsilon at `delta` of the Gaussian mechanism with sensitivity / noise = mu.

    Solves delta = Phi(-eps/mu + mu/2) - e^eps Phi(-eps/mu - mu/2) (Balle and Wang 2018).

    >>> round(gaussian_epsilon(1.0, 1e-5), 6)
    4.377178
    """
    if mu <= 0:
        return 0.0
    log_tail = scipy.special.log_ndtr

    def excess(epsilon: float) -> float:
        first = log_tail(-epsilon / mu + mu / 2)
        second = epsilon + log_tail(-epsilon / mu - mu / 2)
        return float(np.exp(first) * -np.expm1(second - first)) - delta

    if excess(0.0) <= 0:
        return 0.0
    top = mu * mu / 2 + mu * 40
    return float(scipy.optimize.brentq(excess, 0.0, top, xtol=1e-10))


def _best_guesses(
    ins: np.ndarray, outs: np.ndarray, delta: float, level: float
) -> tuple[float, float]:
    """Both one-run bounds, the best over GUESS_SHARES at a level divided by their number.

    The k canaries with the highest scores are guessed "in"; k does not depend on scores.
    """
    scores = np.concatenate([ins, outs])
    was_in = np.arange(len(scores)) < len(ins)
    order = np.lexsort((was_in, -scores))  # among equal scores the wrong guess comes first
    each = level / len(GUESS_SHARES)
    best, best_gaussian = 0.0, 0.0
    for share in GUESS_SHARES:
        guesses = max(1, round(share * len(scores)))
        correct = int(was_in[order[:guesses]].sum())
        counts = (len(scores), guesses, correct)
        best = max(best, one_run_epsilon(*counts, delta=delta, level=each))
        best_gaussian = max(
            best_gaussian, one_run_gaussian_epsilon(*counts, delta=delta, level=each)
        )
    return best, best_gaussian


def _split_error_rates(ins: np.ndarray, outs: np.ndarray, delta: float, level: float) -> float:
    """The threshold is chosen with every other canary, the rates are counted on the rest."""

    def bound(threshold: float, part: int) -> float:
        a, b = ins[part::2], outs[part::2]
        wrong_out, wrong_in = int(np.sum(b > threshold)), int(np.sum(a <= threshold))
        return error_rate_epsilon(wrong_out, len(b), wrong_in, len(a), delta=delta, level=level)

    candidates = np.quantile(np.concatenate([ins[::2], outs[::2]]), np.linspace(0.02, 0.98, 49))
    return bound(max(candidates, key=lambda threshold: bound(threshold, 0)), 1)


def _clopper_pearson(count: int, trials: int, level: float) -> float:
    """Upper limit of a binomial rate with confidence 1 - level."""
    if count >= trials:
        return 1.0
    return float(scipy.stats.beta.ppf(1 - level, count + 1, trials - count))


def _largest_refuted(refuted: Callable[[float], bool]) -> float:
    low, high = 0.0, _LARGEST
    if not refuted(low):
        return 0.0
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
