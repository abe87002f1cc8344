"""The trials of an audit: what is done to a training on the bench, and what each detector says."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxfair.audit.bench import (
    SPOILT,
    Bench,
    Guest,
    Released,
    feed_of,
    largest_leaf,
    noisy_sum,
    play,
)
from jaxfair.engine.assembly import Assembly
from jaxfair.engine.chunk import Randomness
from jaxfair.engine.feed import Feed
from jaxfair.errors import InputError
from jaxfair.methods.base import PyTree
from jaxfair.privacy import detectors, isolation
from jaxfair.privacy.detectors import CanaryScores, Verdict
from jaxfair.privacy.secret import Secret

__all__ = ["PULL", "Size", "canary_scores", "examine"]

PULL = 10.0
"""A canary's gradient before clipping, in units of C."""

_SLACK = 1.01
"""Rounding of two noisy sums whose noise cancels, as a factor on C."""


_UNSTEADY = 1e-4
"""Tolerance of replays on a device that does not repeat its own results bit by bit."""

_FUTILE = 8
"""So many finite releases with a NaN example, and no leak will be shown any more."""


class Size(NamedTuple):
    """How much is done.

    Attributes:
      canaries: how many there are; a fair coin puts each in or leaves it out.
      noise_steps: steps whose noise is compared with the clipped sum.
      draws: steps whose draw is looked at.
      spoilt: releases with a NaN example, and as many without.
    """

    canaries: int = 1500
    noise_steps: int = 4
    draws: int = 400
    spoilt: int = 64


Tick = Callable[[], object]


def examine(
    bench: Bench,
    tried: Assembly,
    secret: Secret,
    clipped_sum: Callable[[Released], PyTree],
    size: Size,
    *,
    coins: np.random.Generator,
    probe: bool = False,
    tick: Tick = lambda: None,
) -> tuple[list[Verdict], CanaryScores]:
    """Runs all four detectors; returns their verdicts, and the scores of the canaries.

    Args:
      tried: `under_audit(bench)`, shared by examinations that differ in their secret.
      clipped_sum: of `reference(bench)`.
      coins: decides which canaries are in, and where they stand.
      probe: run the isolation check's probes even where the equations prove it.
      tick: called after each step of training.
    """
    claim = bench.claim
    findings = _structural_findings(bench, tried, secret, probe)
    scores, residuals = _trained(bench, tried, secret, clipped_sum, size, coins, tick)
    draws = _drawn_units(bench, secret, size.draws)
    spoilt = _spoilt_releases(bench, tried, secret, size.spoilt)
    verdicts = [
        detectors.structural(findings),
        detectors.noise_law(residuals, claim.noise_stddev()),
        detectors.sampling_law(
            draws, num_units=len(bench.units), sampling_prob=claim.sampling_prob
        ),
        detectors.canary_bound(scores, spoilt, event=claim.event(claim.steps), delta=claim.delta),
    ]
    return verdicts, scores


def canary_scores(
    bench: Bench, tried: Assembly, secret: Secret, canaries: int, *, coins: np.random.Generator,
    tick: Tick = lambda: None,
) -> CanaryScores:  # fmt: skip
    """Trains all steps of the claim with canaries and returns their scores, nothing else."""
    size = Size(canaries=canaries, noise_steps=0)
    return _trained(bench, tried, secret, lambda _: None, size, coins, tick)[0]


def _trained(
    bench: Bench,
    tried: Assembly,
    secret: Secret,
    clipped_sum: Callable[[Released], PyTree],
    size: Size,
    coins: np.random.Generator,
    tick: Tick,
) -> tuple[CanaryScores, list[PyTree]]:
    """One training with canaries: their scores, and noisy sum minus clipped sum of a few steps."""
    claim, place = bench.claim, largest_leaf(bench.params)
    available = jax.tree.leaves(bench.params)[place].size
    if size.canaries > available:
        raise InputError(
            f"{size.canaries} canaries need as many entries, but the largest leaf of the "
            f"parameters has {available}: ask for fewer with --canaries."
        )
    entries = coins.choice(available, size.canaries, replace=False)
    is_in = coins.random(size.canaries) < 0.5
    guests = [Guest(int(entry), PULL * claim.l2_clip_norm, 0) for entry in entries[is_in]]
    sums, ratios = np.zeros(size.canaries), np.zeros(size.canaries)
    residuals: list[PyTree] = []
    for released in play(bench, tried, feed_of(bench, secret, guests), claim.steps):
        if len(residuals) < size.noise_steps:
            clipped = clipped_sum(released)
            residuals.append(jax.tree.map(np.subtract, released.noisy_sum, clipped))
        leaf = jax.tree.leaves(released.noisy_sum)[place].ravel()
        seen = leaf[entries].astype(np.float64) / claim.l2_clip_norm
        sums += seen
        ratios += _log_ratio(seen, claim.sampling_prob, claim.noise_multiplier)
        tick()
    return CanaryScores(sums[is_in], sums[~is_in], ratios[is_in], ratios[~is_in]), residuals


def _log_ratio(seen: np.ndarray, q: float, sigma: float) -> np.ndarray:
    """log of ((1-q) N(0, s^2) + q N(1, s^2)) / N(0, s^2) at `seen`."""
    drawn = np.log(q) + (2 * seen - 1) / (2 * sigma**2)
    return np.logaddexp(np.log1p(-q), drawn) if q < 1 else drawn


def _structural_findings(bench: Bench, tried: Assembly, secret: Secret, probe: bool) -> list[str]:
    made = bench.assembly
    method, parts = bench.method, (made.params, made.frozen, made.spec)
    try:
        isolation.check(method.name, method.loss, method.prepare, *parts, probe=probe)
    except InputError as error:
        return [str(error)]
    return _key_findings(bench, secret) + _replay_findings(bench, tried, secret)


def _key_findings(bench: Bench, secret: Secret, steps: int = 16) -> list[str]:
    """Are all keys distinct, and the same whoever takes part?"""
    feed = feed_of(bench, secret)
    known = feed.population
    rest = slice(len(known.rows) - 1)
    without_one = known._replace(
        rows=known.rows[rest], ids=known.ids[rest], groups=known.groups[rest]
    )
    fewer = feed._replace(population=without_one)
    keys = [feed.randomness(number) for number in range(steps)]
    findings = detectors.repeated_keys(
        {
            "noise (step, leaf, draw)": np.stack([np.asarray(key.noise) for key in keys]),
            "example (step)": np.stack([np.asarray(key.examples) for key in keys]),
        }
    )
    without = [fewer.randomness(number) for number in range(steps)]
    if detectors.differences(keys, without):
        findings.append("The keys depend on who takes part")
    return findings


def _replay_findings(bench: Bench, tried: Assembly, secret: Secret) -> list[str]:
    """One step on D and on D without x, keys being equal: what may differ, and by how much?"""
    clip, content = bench.claim.l2_clip_norm, int(bench.units[0][0])
    silent, spoilt, loud = Guest(0, 0.0, content), Guest(-1, 0.0, SPOILT), Guest(0, 1e6 * clip, 0)
    feed = feed_of(bench, secret, [silent, spoilt, loud])
    first, keys = bench.num_rows, feed.randomness(0)
    others = _other_rows(bench)
    release = lambda row, keys=keys: _one_step(bench, tried, feed, [*others, row], keys)
    without, again = release(-1), release(-1)
    slack = _UNSTEADY if detectors.differences(without, again) else 0.0
    findings = []
    for row, what in ((first, "zero"), (first + 1, "NaN")):
        names = detectors.differences(without[:2], release(row)[:2], tolerance=slack)
        findings += [f"A person whose gradient is {what} changes {name}" for name in names]
    for row, what in ((first + 2, "of 1,000,000 C"), (content, "of his own")):
        moved = _distance(release(row)[2], without[2]) / clip
        if not moved <= _SLACK:
            findings.append(f"A person with a gradient {what} moves the sum by {moved:.2f} C")
    other = release(-1, keys._replace(noise=feed.randomness(1).noise))
    deaf = set(_names(without[2])) - set(detectors.differences(without[2], other[2]))
    return findings + [f"The noise on {name} does not depend on its key" for name in sorted(deaf)]


def _one_step(
    bench: Bench, tried: Assembly, feed: Feed, rows: Sequence[int], keys: Randomness
) -> tuple[PyTree, PyTree, PyTree]:
    """(state, released, noisy sum) after the one step whose draw is `rows`."""
    chunk = tried.chunk(feed.fields, rows)
    state, released = tried.update(tried.begin(), chunk, keys)
    return jax.device_get(state), jax.device_get(released), noisy_sum(bench, state)


def _other_rows(bench: Bench) -> list[int]:
    """One row for each unit but the first, as many as a chunk holds beside one more person."""
    rows = [int(rows[0]) for rows in bench.units[1 : bench.assembly.chunk_size]]
    return rows + [-1] * (bench.assembly.chunk_size - 1 - len(rows))


def _drawn_units(bench: Bench, secret: Secret, steps: int) -> list[np.ndarray]:
    """The claimed units of all rows that the feed hands over, step by step."""
    unit_of_row = np.full(bench.num_rows, -1, np.int64)
    for unit, rows in enumerate(bench.units):
        unit_of_row[rows] = unit
    feed = feed_of(bench, secret)._replace(
        fields={"row": lambda rows: rows.astype(np.int32)}, chunk_size=64 * bench.assembly.mesh.size
    )
    draws: list[list[np.ndarray]] = [[]]
    for chunk, _, is_last in feed.chunks(0, steps):
        rows = np.asarray(chunk.examples["row"])[~np.asarray(chunk.is_padding)]
        draws[-1].append(unit_of_row[rows])
        draws += [[]] if is_last else []
    return [np.concatenate(parts) for parts in draws[:-1]]


def _spoilt_releases(
    bench: Bench, tried: Assembly, secret: Secret, count: int
) -> tuple[int, int, int, int]:
    """How many of `count` noisy sums are not finite with a NaN example, and without one."""
    feed = feed_of(bench, secret, [Guest(-1, 0.0, SPOILT)])
    others, found = _other_rows(bench), [0, 0]
    chunks = [tried.chunk(feed.fields, [*others, row]) for row in (-1, bench.num_rows)]
    state = tried.begin()
    for number in range(2 * count):
        spoilt = number % 2
        keys = feed.randomness(number)
        state, _ = tried.update(state, chunks[spoilt], keys)
        if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.opt_state[1])):
            found[spoilt] += 1
            state = tried.begin()
        if number == 2 * _FUTILE and not found[1]:
            return 0, _FUTILE, found[0], _FUTILE
    return found[1], count, found[0], count


def _distance(a: PyTree, b: PyTree) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
    return float(np.sqrt(sum(np.sum((x.astype(np.float64) - y) ** 2) for x, y in pairs)))


def _names(tree: PyTree) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
