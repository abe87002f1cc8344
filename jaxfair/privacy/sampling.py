"""Which units take part in a step: Poisson draws, cut into chunks of one fixed shape."""

import bisect
from collections.abc import Sequence

import numpy as np
import scipy.special

from jaxfair.privacy.secret import Secret

__all__ = [
    "OVERFLOW",
    "PADDING",
    "UNKNOWN",
    "chunks_from_draw",
    "draw_bound",
    "draw_images",
    "grouped_draw",
    "poisson_draw",
    "rate_by_group",
]

PADDING = -1
"""Index of a row that stands for nobody."""

UNKNOWN = -1
"""Code of a unit whose group is not known."""

OVERFLOW = 2.0**-40
"""Chance of one draw to be larger than `draw_bound`."""


def poisson_draw(secret: Secret, step: int, *, num_units: int, sampling_prob: float) -> np.ndarray:
    """Returns the sorted indices of the units drawn for `step`, int64 of shape (n,).

    Guarantees: every unit is in the draw with probability `sampling_prob`, independently of
    every other unit and step, up to the 128 bits that key the generator. The draw may be
    empty or hold every unit. It is a function of the secret, the step and `num_units`.

    A binomial size and then a uniform subset of that size is the same law as one coin per
    unit, at a cost that grows with the draw and not with the population (10^6 units in
    under a millisecond).

    Args:
      secret: keys the draw, under the purpose "sampling".
      step: number of the step, counted from 0.
      num_units: how many units there are; private, never written anywhere.
      sampling_prob: q in [0, 1], a public constant.
    """
    generator = _generator(secret, "sampling", step)
    return np.sort(_subset(generator, num_units, sampling_prob))


def grouped_draw(
    secret: Secret,
    step: int,
    *,
    groups: np.ndarray,
    group_probs: Sequence[float],
    sampling_prob: float,
) -> np.ndarray:
    """Returns the sorted indices of the units drawn for `step`, each at its own group's rate.

    Guarantees: a unit of group g is in the draw with probability `group_probs[g]`, one of
    unknown group with `sampling_prob`, independently of every other unit, group and step: each
    group is a Poisson draw of its own, by a generator keyed by the step and the group. With
    one rate for all it has the law of `poisson_draw`, in other numbers.

    Args:
      secret: keys the draws, under the purpose "sampling".
      step: number of the step, counted from 0.
      groups: (n,) int, the group of each unit, `UNKNOWN` (-1) or 0 to len(group_probs) - 1.
      group_probs: the rate of each group, in [0, 1], public constants.
      sampling_prob: the rate of units of unknown group.

    Returns: int64 (m,). A code beyond `group_probs` is drawn by nobody; `PrivacyPlan.draw`
    refuses it.
    """
    drawn = [np.empty(0, np.int64)]
    for group, rate in rate_by_group(group_probs, sampling_prob).items():
        members = np.flatnonzero(groups == group)
        generator = _generator(secret, "sampling", step, group)
        drawn.append(members[_subset(generator, len(members), rate)])
    return np.sort(np.concatenate(drawn))


def rate_by_group(group_probs: Sequence[float], sampling_prob: float) -> dict[int, float]:
    """Returns the sampling probability by group code; the unknown group comes first.

    >>> rate_by_group((0.02, 0.05), sampling_prob=0.01)
    {-1: 0.01, 0: 0.02, 1: 0.05}
    """
    return {UNKNOWN: sampling_prob, **dict(enumerate(group_probs))}


def draw_bound(num_units: int, prob: float) -> int:
    """Returns the least n that a Poisson draw exceeds with a chance below `OVERFLOW`.

    Guarantees: P(draw > n) < 2^-40 for up to `num_units` units that are each drawn with
    probability `prob` or less, independently. Units that are fewer, or drawn more rarely (as in
    groups with rates of their own), give a draw that is stochastically smaller, since each coin
    can be coupled with one of `prob`; so the binomial tail is a bound for all of them.

    Args:
      num_units: declared, a public constant.
      prob: the largest sampling probability.

    >>> draw_bound(6000, 512 / 6000), draw_bound(600, 32 / 600), draw_bound(40, 1.0)
    (671, 77, 40)
    """
    small = lambda n: bool(scipy.special.bdtrc(n, num_units, prob) < OVERFLOW)
    return bisect.bisect_left(range(num_units), True, key=small)


def draw_images(
    secret: Secret, step: int, draw: np.ndarray, rows_by_unit: list[np.ndarray], ids: np.ndarray
) -> np.ndarray:
    """Returns one store row per drawn unit, int64 of shape (n,).

    A unit with several images gives one of them, chosen uniformly. The choice is keyed by
    the unit's own id (32 bits) and not by its position, so that who else takes part does
    not change it.
    """
    key = secret.derive("image", step, length=16)
    chosen = [_pick(key, int(ids[unit]), len(rows_by_unit[unit])) for unit in draw]
    rows = (rows_by_unit[unit][place] for unit, place in zip(draw, chosen, strict=True))
    return np.fromiter(rows, dtype=np.int64, count=len(draw))


def chunks_from_draw(draw: np.ndarray, size: int, least: int = 1) -> list[np.ndarray]:
    """Cuts a draw into chunks of exactly `size` entries, filled up with PADDING.

    Nothing is dropped and no shape depends on the draw. There are `least` chunks, whoever was
    drawn; a draw that overflows them gives more.

    >>> [chunk.tolist() for chunk in chunks_from_draw(np.array([4, 7, 9]), 2)]
    [[4, 7], [9, -1]]
    >>> [chunk.tolist() for chunk in chunks_from_draw(np.array([], int), 2)]
    [[-1, -1]]
    >>> [chunk.tolist() for chunk in chunks_from_draw(np.array([4, 7, 9]), 2, least=3)]
    [[4, 7], [9, -1], [-1, -1]]
    """
    count = max(least, -(-len(draw) // size))
    padded = np.full(count * size, PADDING, dtype=np.int64)
    padded[: len(draw)] = draw
    return list(padded.reshape(count, size))


def _generator(secret: Secret, purpose: str, *numbers: int) -> np.random.Generator:
    key = int.from_bytes(secret.derive(purpose, *numbers, length=16), "little")
    return np.random.Generator(np.random.Philox(key=key))


def _subset(generator: np.random.Generator, count: int, prob: float) -> np.ndarray:
    """One coin of probability `prob` for each of `count` units; the indices of the heads."""
    if not 0 <= prob <= 1:
        raise ValueError(f"sampling_prob must lie in [0, 1], got {prob}.")
    size = generator.binomial(count, prob)
    return generator.choice(count, size=size, replace=False, shuffle=False)


def _pick(key: bytes, unit_id: int, count: int) -> int:
    if count == 1:
        return 0
    seed = int.from_bytes(key, "little") ^ unit_id
    return int(np.random.Generator(np.random.Philox(key=seed)).integers(count))
