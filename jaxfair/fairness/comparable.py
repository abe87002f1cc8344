"""Who can be compared with the rest, and why somebody cannot (protocol S3, S12).

A group takes part with the rows whose view (the control column) the rest has too, in the same
label. What is left must be enough on both sides, and some of it must be able to change places.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jaxfair.fairness.frame import enough
from jaxfair.fairness.permutation import can_change

__all__ = ["Rows", "mix_weights", "reason_against"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Rows(NamedTuple):
    """The test rows of one task.

    Attributes:
      y, score: (n,) labels 0 or 1, finite scores.
      patients: (n,) codes 0..p-1.
      strata: (n,) codes of the control column; None where nothing is controlled.
      control: its name; '' where nothing is controlled.
    """

    y: Array
    score: Array
    patients: Ints
    strata: Ints | None
    control: str


def reason_against(rows: Rows, inside: Bools, units: Ints, kinds: Ints) -> str:
    """Returns why the rows `inside` cannot be compared with the others, or '' if they can.

    Args:
      rows: the test rows.
      inside: (n,) True for the group.
      units: (n,) who changes places as one (exchange.units_of).
      kinds: (u,) codes of units that may change places with each other.
    """
    if inside.all():
        return "the only group"
    if np.ptp(rows.score) == 0:
        return "all scores are equal"
    for side, words in ((inside, "too few patients"), (~inside, "too few patients in the rest")):
        if not _enough(rows, side):
            return words
    shared = _shared(rows, inside)
    for label in (0, 1):
        here = shared & (rows.y == label)
        if not (here & inside).any() or not (here & ~inside).any():
            return f"no {rows.control} in common with the rest"
    if not _enough(rows, shared & inside) or not _enough(rows, shared & ~inside):
        return f"too few patients at a {rows.control} in common with the rest"
    if not _movable(rows, inside, shared, units, kinds):
        return "too few patients alike enough to change places"
    return ""


def mix_weights(y: Array, strata: Ints, chosen: Bools, other: Bools) -> Array:
    """Returns (n,) weights that give the chosen rows the pooled mix of strata in each label.

    Strata that either side lacks weigh 0.
    """
    weights = np.zeros(len(y))
    n = int(strata.max()) + 1 if len(strata) else 0
    for label in (0, 1):
        here = y == label
        pooled = np.bincount(strata[here], minlength=n).astype(float)
        mine = np.bincount(strata[here & chosen], minlength=n).astype(float)
        theirs = np.bincount(strata[here & other], minlength=n)
        pooled[(mine == 0) | (theirs == 0)] = 0
        factor = np.divide(pooled, mine, out=np.zeros(n), where=mine > 0)
        weights[here & chosen] = factor[strata[here & chosen]]
    return weights


def _shared(rows: Rows, inside: Bools) -> Bools:
    """True for rows whose label and stratum both sides have."""
    if rows.strata is None:
        return np.ones(len(rows.y), dtype=bool)
    cell = 2 * rows.strata + rows.y.astype(np.int64)
    size = int(cell.max()) + 1
    both = (np.bincount(cell[inside], minlength=size) > 0) & (
        np.bincount(cell[~inside], minlength=size) > 0
    )
    return np.asarray(both[cell])


def _enough(rows: Rows, side: Bools) -> bool:
    return enough(rows.y[side], rows.patients[side])


def _movable(rows: Rows, inside: Bools, shared: Bools, units: Ints, kinds: Ints) -> bool:
    """True if the units of either label can change places."""
    found = []
    for label in (0, 1):
        here = shared & (rows.y == label)
        one, other = (
            kinds[np.bincount(units[here & side], minlength=len(kinds)) > 0]
            for side in (inside, ~inside)
        )
        found.append(can_change(one, other))
    return all(found)
