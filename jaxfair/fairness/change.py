"""What a gap was before and is after: differences of two models on the same patients, and FATE.

Both models' patients are redrawn together, so that their difference is paired. It covers other
test and validation patients, and no other training seed.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.stats

from jaxfair.errors import InputError
from jaxfair.fairness.levels import GAPS, Levels, Spread, ranges, spreads
from jaxfair.fairness.parity import fate
from jaxfair.fairness.resamples import Resamples

__all__ = [
    "Change",
    "Fate",
    "changes",
    "check_paired",
    "fate_of",
    "overall_change",
    "same_validation",
]

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


def same_validation(before: Resamples, after: Resamples) -> bool:
    """Returns whether the thresholds of both rest on the same validation images (protocol S10)."""
    one, other = (part.validation.table["image_id"].to_numpy() for part in (before, after))
    return len(one) == len(other) and bool((one == other).all())


def changes(before: Levels, after: Levels) -> dict[str, Change]:
    """Returns the change of every gap of GAPS of this kind, by name.

    The interval covers 95 % at least. A gap that is seen is larger than the true one, by how much
    depends on how far the groups truly are apart, which nobody knows: next to nothing where one
    group stands out, most where all are alike. So the lower end takes the whole of it out of the
    gap after and nothing out of the one before, the upper end the other way round; `_gap` has the
    two sizes that are asked. In simulations of 2 to 8 groups it covered .93 to 1.00, one bias for
    both ends .66 to .99. One model beside itself has no interval.
    """
    nothing = {name: Change(*[float("nan")] * 3) for name in GAPS[before.kind]}
    if (before.kind, before.groups) != (after.kind, after.groups):
        return nothing
    return {name: _change(*_paired(before, after, name)) for name in nothing}


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
    told = spreads(before)[gap] if null is None else null
    was, now = _paired(before, after, gap)
    value = fate(after.overall, now.value, before.overall, was.value)
    gain = (after.overall - before.overall) / before.overall if before.overall else np.nan
    gap_change = (now.value - was.value) / was.value if was.value else float("nan")
    unstable = Fate(value, float("nan"), float("nan"), gain, gap_change, False)
    if not (told.p_value <= 0.05 and len(was.draws[0])):
        return unstable
    if not np.quantile(was.draws[0], 0.025) > told.null_mean:
        return unstable
    kept = _defined(before, after)
    better = after.overall_draws[kept] / before.overall_draws[kept]
    half = _half([better - n / w for n in now.draws for w in was.draws])
    low = fate(after.overall, now.value, before.overall, max(was.value - was.bias, 1e-9))
    high = fate(after.overall, max(now.value - now.bias, 0.0), before.overall, was.value)
    return Fate(value, low - half, high + half, gain, gap_change, True)


class _Gap(NamedTuple):
    """A max-min gap with redrawn patients.

    Attributes:
      value: as seen.
      bias: by how much it is above the true one on average, at most.
      draws: (B,) gaps of redrawn patients around the groups' values as they were seen, and around
        values so close together as they may truly be; empty where they are undefined.
    """

    value: float
    bias: float
    draws: tuple[Array, Array]


def _defined(before: Levels, after: Levels) -> npt.NDArray[np.bool_]:
    """(B,) the draws that define everything of both; none if those are too few."""
    kept = np.asarray(np.isfinite(before.draws + after.draws).all(axis=(1, 2)))
    return np.asarray(kept & (kept.sum() >= max(0.9 * len(kept), 20)))


def _paired(before: Levels, after: Levels, gap: str) -> tuple[_Gap, _Gap]:
    """The gap of both, around the same redrawn patients."""
    kept, pick = _defined(before, after), GAPS[before.kind][gap]
    same = np.array_equal(before.draws, after.draws, equal_nan=True)
    rng = np.random.default_rng(0)
    first, second = (
        _gap(pick, part, part.draws[kept & (not same)], rng) for part in (before, after)
    )
    return first, second


def _gap(
    pick: Callable[[Array], Array], levels: Levels, draws: Array, rng: np.random.Generator
) -> _Gap:
    """Around the values as seen, and around those that a test of "all alike" leaves at 90 %."""
    values, none = levels.values, np.empty(0)
    value = float(pick(ranges(values)))
    if not len(draws) or not np.isfinite(value):
        return _Gap(value, float("nan"), (none, none))
    moved = draws - draws.mean(axis=0)
    variance = moved.var(axis=0)
    lacking = np.maximum(levels.floor - variance, 0.0)  # of rates that are 0 or 1 in all draws
    moved = moved + rng.normal(size=moved.shape) * np.sqrt(lacking)
    centres = values, _together(values, variance + lacking)
    found = [pick(ranges(centre + moved)) for centre in centres]
    above = [float(f.mean() - pick(ranges(c))) for f, c in zip(found, centres, strict=True)]
    return _Gap(value, max(0.0, *above), (found[0], found[1]))


def _together(values: Array, variance: Array) -> Array:
    """(m, k) values drawn together by what their own noise makes of values that are all alike.

    Their spread is what 90 % of chi-squared leaves of it: none where "all alike" is not refuted.
    """
    k = values.shape[1]
    centre = values.mean(axis=1, keepdims=True)
    safe = np.maximum(variance, 1e-12)
    spread = np.maximum(((values - centre) ** 2 / safe).sum(axis=1, keepdims=True), 1e-12)
    left = np.clip(1 - scipy.stats.chi2.ppf(0.9, k - 1) / spread, 0, 1)
    return np.asarray(centre + np.sqrt(left) * (values - centre))


def _change(was: _Gap, now: _Gap) -> Change:
    value = now.value - was.value
    half = _half([n - w for n in now.draws for w in was.draws])
    low, high = value - now.bias - half, value + was.bias + half
    return Change(value, float(np.maximum(low, -1.0)), float(np.minimum(high, 1.0)))


def _half(draws: Sequence[Array]) -> float:
    """Half the width of an interval: 1.96 of the largest spread; NaN without one."""
    spread = max(float(d.std(ddof=1)) if len(d) > 1 else float("nan") for d in draws)
    return float(scipy.stats.norm.ppf(0.975) * spread) if spread > 1e-12 else float("nan")


def _corrected(after: float, before: float, draws: Array) -> Change:
    """after - before, with ends around it, and around it with the redraws' own shift taken out."""
    value, kept = after - before, draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(kept) < max(0.9 * len(draws), 20) or np.ptp(kept) < 1e-12:
        return Change(value, float("nan"), float("nan"))
    half = float(scipy.stats.norm.ppf(0.975) * kept.std(ddof=1))
    centre = 2 * value - float(kept.mean())
    return Change(value, min(value, centre) - half, max(value, centre) + half)
