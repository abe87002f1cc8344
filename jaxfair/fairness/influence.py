"""An estimate that is a sum over patients, with its variance, and differences of two."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Estimate",
    "average",
    "covariance",
    "difference",
    "dot",
    "effective_freedom",
    "freedom",
]

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Estimate(NamedTuple):
    """A number with the variance that patients give it.

    Attributes:
      value: the estimate; NaN if undefined.
      variance: its cluster variance; NaN if a class comes from fewer than two patients, or if
        nothing but ties was seen.
      df: degrees of freedom of the variance (`freedom`).
      parts: (2, n_patients) first-order contribution of each patient's upper rows (positives)
        and lower rows (negatives); each line sums to zero.
      members: (2, n_patients) True where the patient has such rows.
      spread: (n_patients,) the contribution of each patient as its deletion shows it; the squares
        sum to the variance. None: from `parts`, as if all patients had equal shares.
      apart: the value over pairs of different patients, which intervals are centred on; pairs
        within a patient, a share of all that vanishes with many patients, are another quantity.
        None: `value`.
      pairs: how many disjoint pairs of patients the estimate is worth; what can be said at 0
        and 1. None: from `members`.
    """

    value: float
    variance: float
    df: float
    parts: Array
    members: Bools
    spread: Array | None = None
    apart: float | None = None
    pairs: float | None = None

    @property
    def se(self) -> float:
        """The standard error."""
        return float(np.sqrt(self.variance))

    @property
    def influence(self) -> Array:
        """(n_patients,) contribution of each patient; sums to zero."""
        return np.asarray(self.parts.sum(axis=0))

    @property
    def deviations(self) -> Array:
        """(n_patients,) `spread`, or what stands for it."""
        if self.spread is not None:
            return self.spread
        n = self.members.sum(axis=1, keepdims=True)
        return np.asarray((self.parts * np.sqrt(n / np.maximum(n - 1, 1))).sum(axis=0))

    @property
    def centre(self) -> float:
        """`apart`, or the value."""
        return self.value if self.apart is None else self.apart


def covariance(first: Estimate, second: Estimate) -> float:
    """Returns the cluster covariance of two estimates, over the patients that are in both.

    Both have the same length and order of patients; 0 if they share none.
    """
    return dot(first.deviations, second.deviations)


def difference(first: Estimate, second: Estimate) -> Estimate:
    """Returns first - second; patients that are in both are paired by their influence.

    Disjoint patients give the unpaired variance, the same patients under two models the
    paired one (see `covariance` for what both must share).
    """
    spread = first.deviations - second.deviations
    variance = first.variance + second.variance - 2 * covariance(first, second)
    squares = first.variance**2 / first.df + second.variance**2 / second.df
    df = min(first.df, second.df, effective_freedom(spread))
    if not (first.members.any(axis=0) & second.members.any(axis=0)).any() and squares > 0:
        df = (first.variance + second.variance) ** 2 / squares
    return Estimate(
        first.value - second.value,
        max(variance, 0.0) if np.isfinite(variance) else float("nan"),
        float(df),
        first.parts - second.parts,
        first.members | second.members,
        spread,
        first.centre - second.centre,
    )


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Returns the plain mean of estimates over one list of patients, paired by their influence.

    A patient who is in several moves the mean by all of them at once. Degrees of freedom are
    Satterthwaite's where no patient is in two of them, else the smallest. Where all are 0, or all
    1, the bound is that of the one with the fewest pairs.

    Raises ValueError for none.
    """
    if not estimates:
        raise ValueError("The mean of no estimates is undefined.")
    k = len(estimates)
    spread = np.sum([e.deviations for e in estimates], axis=0) / k
    variances = np.array([e.variance for e in estimates])
    df = min(e.df for e in estimates)
    below = float((variances**2 / [e.df for e in estimates]).sum())
    if np.sum([e.members.any(axis=0) for e in estimates], axis=0).max(initial=0) < 2 and below > 0:
        df = float(variances.sum()) ** 2 / below
    pairs = [e.pairs for e in estimates if e.pairs is not None]
    return Estimate(
        float(np.mean([e.value for e in estimates])),
        dot(spread, spread) if np.isfinite(variances).all() else float("nan"),
        max(min(df, effective_freedom(spread)), 1.0),
        np.sum([e.parts for e in estimates], axis=0) / k,
        np.any([e.members for e in estimates], axis=0),
        spread,
        float(np.mean([e.centre for e in estimates])),
        min(pairs) if pairs else None,
    )


def freedom(spread: Array, has_up: Bools, has_low: Bools) -> float:
    """Satterthwaite over kinds of patients, and at most what unequal influences leave."""
    total = below = 0.0
    for kind in (has_up & ~has_low, has_low & ~has_up, has_up & has_low):
        part = dot(spread[kind], spread[kind])
        total += part
        below += part**2 / max(int(kind.sum()) - 1, 1)
    by_kind = total**2 / below if below > 0 else float((has_up | has_low).sum()) - 1
    return max(min(by_kind, effective_freedom(spread)), 1.0)


def effective_freedom(spread: Array) -> float:
    """Effective number of patients less one, from their influences (protocol S14).

    (sum I^2)^2 / sum I^4 is n / 3 for n patients of normal influences, which as degrees of
    freedom makes ordinary designs too wide (.97 to .98), n would be its triple, which is too
    narrow where few patients carry most (.92); twice holds .94 in both (the study's tables).
    """
    squares = spread**2
    below = dot(squares, squares)
    return max(2 * float(squares.sum()) ** 2 / below - 1, 1.0) if below > 0 else float("inf")


def dot(a: Array, b: Array) -> float:
    """Sum of products."""
    # Not np.dot: its threads cost more than they bring at this size.
    return float((a * b).sum())
