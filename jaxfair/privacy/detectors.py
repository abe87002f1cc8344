"""Four detectors of a broken claim (protocol P11), as tests on what a mechanism did.

Each gives a Verdict at its level: a clean run raises an alarm with at most that probability.
They are given arrays, and know nothing of images, models or training.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.stats

from jaxfair.privacy import accounting, canaries
from jaxfair.privacy.accounting import Event

__all__ = [
    "DETECTORS",
    "LEVEL",
    "CanaryScores",
    "Verdict",
    "canary_bound",
    "differences",
    "noise_law",
    "repeated_keys",
    "sampling_law",
    "structural",
]

PyTree = Any

DETECTORS = ("structural", "noise law", "sampling law", "canary bound")
LEVEL = 0.01
"""Probability of a false alarm that each detector is allowed (protocol P11)."""


class CanaryScores(NamedTuple):
    """What was seen of the canaries of one run that were in, and of those that were not.

    Attributes:
      sums_in, sums_out: (n,) sum over the steps of the canary's own entry of the noisy sum,
        divided by C.
      ratios_in, ratios_out: (n,) log-likelihood ratio of "in" against "out" of the same
        entries under the claim, the best score there is.
    """

    sums_in: np.ndarray
    sums_out: np.ndarray
    ratios_in: np.ndarray
    ratios_out: np.ndarray


class Verdict(NamedTuple):
    """Attributes:
    detector: one of DETECTORS.
    alarm: True if the claim is refuted.
    finding: one sentence, what was seen.
    """

    detector: str
    alarm: bool
    finding: str


def structural(findings: Sequence[str]) -> Verdict:
    """Returns the verdict on equalities that must hold: an alarm for any finding.

    They hold with certainty, so a clean run never raises this alarm.
    """
    if findings:
        return Verdict("structural", True, f"{findings[0]} ({len(findings)} finding(s) in all).")
    return Verdict("structural", False, "Replays with and without a person are equal bit by bit.")


def noise_law(residuals: Sequence[PyTree], stddev: float, *, level: float = LEVEL) -> Verdict:
    """Tests that noisy_sum - clipped_sum is white Gaussian noise of deviation `stddev`.

    Two-sided: the variance of every leaf and of all leaves together, the mean, and the
    correlation between one step and the next.

    Args:
      residuals: one pytree of arrays per step, noisy sum minus clipped sum.
      stddev: sigma times sensitivity, as claimed.
    """
    steps = [[np.ravel(leaf).astype(np.float64) / stddev for leaf in jax.tree.leaves(tree)]
             for tree in residuals]  # fmt: skip
    leaves = [np.concatenate(parts) for parts in zip(*steps)]
    flat = [np.concatenate(parts) for parts in steps]
    everything = np.concatenate(flat)
    if not np.all(np.isfinite(everything)):
        return Verdict("noise law", True, "The noisy sum is not finite.")
    chances = {f"variance of leaf {i}": _variance(leaf) for i, leaf in enumerate(leaves)}
    chances["variance"] = _variance(everything)
    chances["mean"] = _two_sided(float(everything.sum()) / len(everything) ** 0.5)
    for i, (now, later) in enumerate(itertools.pairwise(flat)):
        chances[f"correlation of steps {i} and {i + 1}"] = _two_sided(
            float(now @ later) / len(now) ** 0.5
        )
    share = float(np.std(everything))
    return _verdict("noise law", chances, level, f"noise is {share:.4f} of the deviation claimed")


def sampling_law(
    draws: Sequence[np.ndarray], *, num_units: int, sampling_prob: float, level: float = LEVEL
) -> Verdict:
    """Tests that every unit is in every draw on its own with probability `sampling_prob`.

    Mean and spread of the size of a draw, spread of the units' counts, pairs of units in
    one draw, and one unit in two draws in a row.

    Args:
      draws: of each step, the numbers of the units in it, one entry per row that was trained
        on: a unit with two rows in one draw refutes the claim at once.
      num_units: n, of the population that the claim protects.
      sampling_prob: q, as claimed.
    """
    taken = np.zeros((len(draws), num_units), np.int64)
    for step, draw in enumerate(draws):
        np.add.at(taken[step], draw, 1)
    twice = int((taken > 1).sum())
    if twice:
        return Verdict("sampling law", True, f"{twice} times a unit had two rows in one draw.")
    q, even = sampling_prob, num_units // 2 * 2
    pairs = taken[:, 0:even:2] * taken[:, 1:even:2]
    last = len(draws) // 2 * 2
    in_a_row = taken[0:last:2] * taken[1:last:2]
    chances = {
        "mean size": _binomial(int(taken.sum()), taken.size, q),
        "spread of sizes": _spread(taken.sum(axis=1), num_units, q),
        "spread of units": _spread(taken.sum(axis=0), len(draws), q),
        "pairs in a draw": _binomial(int(pairs.sum()), pairs.size, q * q),
        "draws in a row": _binomial(int(in_a_row.sum()), in_a_row.size, q * q),
    }
    sizes = taken.sum(axis=1)
    seen = f"draws hold {sizes.mean():.2f} +- {sizes.std():.2f} units, {num_units * q:.2f} expected"
    return _verdict("sampling law", chances, level, seen)


def canary_bound(
    scores: CanaryScores,
    spoilt: tuple[int, int, int, int],
    *,
    event: Event,
    delta: float,
    level: float = LEVEL,
) -> Verdict:
    """Tests the claim itself: does an attacker see more than epsilon allows?

    Args:
      scores: of the canaries of one run.
      spoilt: how often a release was not finite, and of how many, with a NaN example and
        without: (with, of, without, of).
      event: q, sigma and steps of the claim.
      delta: of the claim.
    """
    if not all(np.all(np.isfinite(part)) for part in scores):
        return Verdict("canary bound", True, "Canaries left scores that are not finite.")
    epsilon, each = accounting.epsilon([event], delta), level / 5
    sigma = canaries.noise_upper_bound(
        scores.sums_in,
        scores.sums_out,
        sampling_prob=event.sampling_prob,
        steps=event.steps,
        level=each,
    )
    hits, present, misses, absent = spoilt
    leak = canaries.error_rate_epsilon(
        misses, absent, present - hits, present, delta=delta, level=each
    )
    guesses = canaries.bounds_from_scores(
        scores.ratios_in, scores.ratios_out, delta=delta, level=each
    )
    rates = max(bound.epsilon for bound in guesses)
    finding = (
        f"Sigma is at most {sigma:.3f} where {event.noise_multiplier:.3f} is claimed; epsilon is "
        f"at least {rates:.2f} by guesses and {leak:.2f} by NaN examples, {epsilon:.2f} claimed."
    )
    alarm = sigma < event.noise_multiplier or max(rates, leak) > epsilon
    return Verdict("canary bound", bool(alarm), finding)


def repeated_keys(words: Mapping[str, np.ndarray]) -> list[str]:
    """Returns one sentence for each pair of purposes, steps or leaves that share a key.

    Args:
      words: purpose -> uint32 (..., 2), key words of threefry of every step, leaf and draw.
    """
    seen: dict[bytes, str] = {}
    findings = []
    for purpose, array in words.items():
        rows = np.ascontiguousarray(array, np.uint32).reshape(-1, 2)
        places = np.ndindex(array.shape[:-1])
        for place, row in zip(places, rows):
            here = f"{purpose} {place}"
            other = seen.setdefault(row.tobytes(), here)
            if other is not here:
                findings.append(f"The key of {here} is the key of {other}")
    return findings


def differences(recorded: PyTree, replayed: PyTree, *, tolerance: float = 0.0) -> list[str]:
    """Returns the names of the leaves whose shape, dtype or values are not equal.

    Args:
      tolerance: share of a leaf's largest value that counts as equal, for devices that do
        not repeat their own results; 0 compares exactly.
    """
    one, other = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (recorded, replayed))
    if list(one) != list(other):
        return ["the structure"]
    return [
        jax.tree_util.keystr(path)
        for path in one
        if not _same(np.asarray(one[path]), np.asarray(other[path]), tolerance)
    ]


def _same(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if not np.issubdtype(a.dtype, np.floating):
        return np.array_equal(a, b)
    near = tolerance * np.max(np.abs(a), initial=0, where=np.isfinite(a))
    return np.allclose(a, b, rtol=0, atol=near, equal_nan=True)


def _verdict(detector: str, chances: dict[str, float], level: float, seen: str) -> Verdict:
    name = min(chances, key=lambda key: chances[key])
    chance = min(1.0, chances[name] * len(chances))
    finding = f"{name}: p = {chance:.2g} after {len(chances)} looks; {seen}."
    return Verdict(detector, chance < level, finding)


def _variance(values: np.ndarray) -> float:
    """Two-sided chance of this sum of squares if `values` are standard normal."""
    total, freedom = float(values @ values), len(values)
    tails = scipy.stats.chi2.cdf(total, freedom), scipy.stats.chi2.sf(total, freedom)
    return 2 * float(min(tails))


def _spread(counts: np.ndarray, trials: int, q: float) -> float:
    """Two-sided chance of the spread of counts if each is Bin(trials, q), independently.

    The sum of squared standardised counts has mean n and variance n (2 + excess kurtosis).
    """
    variance = trials * q * (1 - q)
    total = float(np.sum((counts - trials * q) ** 2)) / variance
    kurtosis = (1 - 6 * q * (1 - q)) / variance
    return _two_sided((total - len(counts)) / (len(counts) * (2 + kurtosis)) ** 0.5)


def _binomial(count: int, trials: int, rate: float) -> float:
    return float(scipy.stats.binomtest(count, trials, rate).pvalue)


def _two_sided(z: float) -> float:
    return 2 * float(scipy.stats.norm.sf(abs(z)))
