"""What a gap was before and is after: differences of two models on the same patients, and FATE.

Both models' patients are redrawn together, so that their difference is paired. It covers other
test and validation patients, and no other training seed.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.stats

from jaxfair.errors import InputError
from jaxfair.fairness.levels import GAPS, Levels, Spread, ranges, spreads
from jaxfair.fairness.parity import fate
from jaxfair.fairness.resamples import Resamples

__all__ = ["Change", "Fate", "changes", "check_paired", "fate_of", "overall_change"]

Array = npt.NDArray[np.float64]


class Change(NamedTuple):
    """After minus before, with 95 % ends; NaN without an interval."""

    value: float
    ci_low: float
    ci_high: float


class Fate(NamedTuple):
    """FairREAD's FATE with both of its terms.

    Attributes:
      value: gain minus gap_change.
      ci_low, ci_high: 95 %; NaN where it is not stable.
      gain: (utility after - before) / before.
      gap_change: (gap after - before) / before.
      stable: False where the gap before, or one redraw of it in forty, is no larger than chance
        alone gives (p above .05, or below the null's mean): that is a division by noise.
    """

    value: float
    ci_low: float
    ci_high: float
    gain: float
    gap_change: float
    stable: bool


def check_paired(before: Resamples, after: Resamples) -> None:
    """Refuses two models whose redrawn patients are not the same ones.

    Raises:
      InputError: if test images differ, or seed or number of draws.
    """
    one, other = before.test.table, after.test.table
    if len(one) != len(other) or not (one["image_id"] == other["image_id"]).all():
        raise InputError(
            "The runs were not tested on the same images, so a change of their gap has no"
            " interval; compare runs of one dataset and split."
        )
    if (before.seed, before.n_draws) != (after.seed, after.n_draws):
        raise InputError("Both models need the same seed and number of draws to be compared.")


def changes(before: Levels, after: Levels) -> dict[str, Change]:
    """Returns the change of every gap of GAPS of this kind, by name.

    A gap is larger than the true one, and more so the smaller that is; redrawn gaps show by about
    how much. The interval (normal, from the redraws' spread) holds the ends with that taken out and
    without: in simulations of 2 to 8 groups it covered .91 to .98, and with it taken out alone .83
    to .91; of 8 groups whose gap goes from within noise to nothing, .88.
    """
    if (before.kind, before.groups) != (after.kind, after.groups):
        return {name: Change(*[float("nan")] * 3) for name in GAPS[before.kind]}
    now, was = ranges(after.values), ranges(before.values)
    moved, stayed = ranges(after.draws), ranges(before.draws)
    return {
        name: _corrected(float(pick(now)), float(pick(was)), pick(moved) - pick(stayed))
        for name, pick in GAPS[before.kind].items()
    }


def overall_change(before: Levels, after: Levels) -> Change:
    """Returns the change of the AUROC, or of the accuracy, of all rows."""
    moved = after.overall_draws - before.overall_draws
    return _corrected(after.overall, before.overall, moved)


def fate_of(before: Levels, after: Levels, gap: str, null: Spread | None = None) -> Fate:
    """Returns FATE of a utility (`overall`) and a gap of these levels, by redrawn patients.

    Args:
      before, after: the same kind, on the same patients.
      gap: key of GAPS of their kind.
      null: of the gap before; None takes it from `before`.
    """
    pick = GAPS[before.kind][gap]
    told = spreads(before)[gap] if null is None else null
    base, now = float(pick(ranges(before.values))), float(pick(ranges(after.values)))
    value = fate(after.overall, now, before.overall, base)
    gain = (after.overall - before.overall) / before.overall if before.overall else np.nan
    gap_change = (now - base) / base if base else float("nan")
    was, became = pick(ranges(before.draws)), pick(ranges(after.draws))
    if not (told.p_value <= 0.05 and np.nanquantile(was, 0.025) > told.null_mean):
        return Fate(value, float("nan"), float("nan"), gain, gap_change, False)
    drawn = after.overall_draws / before.overall_draws - became / was
    found = _corrected(value, 0.0, drawn)
    return Fate(value, found.ci_low, found.ci_high, gain, gap_change, True)


def _corrected(after: float, before: float, draws: Array) -> Change:
    """after - before, with ends around it, and around it with the redraws' own shift taken out."""
    value, kept = after - before, draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(kept) < max(0.9 * len(draws), 20) or np.ptp(kept) < 1e-12:
        return Change(value, float("nan"), float("nan"))
    half = float(scipy.stats.norm.ppf(0.975) * kept.std(ddof=1))
    centre = 2 * value - float(kept.mean())
    return Change(value, min(value, centre) - half, max(value, centre) + half)
