"""What a scenario of the study is, and the draws that several of them share."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

SIGNAL = 1.0
"""Distance of the classes in standard deviations; the true AUROC is then .760."""

TRUTH = float(norm.cdf(SIGNAL / np.sqrt(2)))
PLANTED = float(np.sqrt(2) * norm.ppf(TRUTH - 0.10))
"""The distance that lowers a group's AUROC by exactly .10."""

LEVEL = {"": (0.04, 0.06)}
COVERAGE = {"": (0.94, 0.96)}
AT_LEAST = {"": (0.94, 1.0), "without width": (0.0, 0.0)}


class Scenario(NamedTuple):
    """One design, repeated.

    Attributes:
      one: `f(name, repeat, **options) -> {outcome: bool or number}`; draws from `rng(name,
        repeat)` alone, so that a repeat is the same in whatever process it runs.
      table: the table of the page in which it is shown.
      title: its row there.
      goals: (low, high) of the share by outcome; the outcome '' stands for all.
      part: of the repeats, for what is slow and needs no narrow error.
    """

    one: Callable[..., dict[str, Any]]
    table: str
    title: str
    goals: Mapping[str, tuple[float, float]] = {}
    part: float = 1.0

    def goal(self, outcome: str) -> tuple[float, float] | None:
        """The goal of an outcome, or None."""
        return self.goals.get(outcome, self.goals.get(""))


def number(name: str) -> int:
    """The number of a scenario, for seeds."""
    return zlib.crc32(name.encode())


def rng(name: str, repeat: int) -> np.random.Generator:
    """The draws of one repeat, fixed before any run."""
    return np.random.default_rng([2026, number(name), repeat])


def sample(rng, counts, spread=None, shift=None, signal=None):
    """Returns labels, scores and groups for counts [(positives, negatives), ...] by group."""
    parts = []
    for g, (m, n) in enumerate(counts):
        sd = 1.0 if spread is None else spread[g]
        y = np.r_[np.ones(m), np.zeros(n)]
        score = sd * (rng.normal(size=m + n) + y * (SIGNAL if signal is None else signal[g]))
        parts.append((y, score + (0.0 if shift is None else shift[g]), np.full(m + n, g)))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def clustered(rng, n_patients, images, share=0.5):
    """Returns labels, scores and patients; half of the score's variance is the patient's own.

    One image per patient: half of the patients are positive. More: each image is, at random.
    """
    patients = np.repeat(np.arange(n_patients), images)
    n = len(patients)
    y = (np.arange(n) % 2 if images == 1 else rng.random(n) < 0.5).astype(float)
    own = rng.normal(size=n_patients) * np.sqrt(share)
    return y, own[patients] + rng.normal(size=n) * np.sqrt(1 - share) + SIGNAL * y, patients
