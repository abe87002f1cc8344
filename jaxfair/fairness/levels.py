"""Numbers by group and their max-min gaps: interval, what chance alone gives, and the excess.

A gap is never zero by chance alone, so each stands beside its null: the gaps of the same rows
where patients have exchanged groups. What is above the null's mean is the excess (protocol S10).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.fairness.bootstrap import percentile_interval
from jaxfair.fairness.gaps import Gap

__all__ = [
    "GAPS",
    "Levels",
    "Spread",
    "by_bootstrap",
    "gap_table",
    "overall_interval",
    "range_intervals",
    "ranges",
    "spreads",
    "studentised",
    "with_null",
]

Array = npt.NDArray[np.float64]

GAPS: dict[str, dict[str, Callable[[Array], Array]]] = {
    "auroc": {"delta-AUC": lambda r: r[..., 0]},
    "odds": {
        "delta-EO, worst case": lambda r: r.max(axis=-1),
        "delta-EO, mean": lambda r: r.mean(axis=-1),
        "EOpp1 (TPR gap)": lambda r: r[..., 0],
        "EOpp0 (TNR gap)": lambda r: r[..., 1],
    },
    "calibration": {
        "calibration: ECE, 15 bins": lambda r: r[..., 0],
        "calibration: squared error, debiased": lambda r: r[..., 1],
    },
}
"""The gaps of each kind of Levels, from the ranges of their lines (..., m).

Of equalized odds, `worst case` is fairlearn's and FairREAD's convention, the larger of the TPR's
and the TNR's gap (that of the FPR is the same number), and `mean` its `agg="mean"`. EOpp1 is the
gap among positives and EOpp0 that among negatives, as FairREAD has them; MEDFAIR prints them the
other way round.
"""


class Levels(NamedTuple):
    """Numbers of each group with what other patients would make of them.

    Attributes:
      kind: key of GAPS.
      groups: (k,) names of those that are compared.
      values: (m, k) one line for each number.
      draws: (B, m, k) the same for redrawn patients.
      floor: (m, k) variance that no redrawing shows less of (rates of 0 and 1).
      overall: one number of all rows: the AUROC, or the accuracy at these thresholds.
      overall_draws: (B,).
      t: (m,) largest |difference| / standard error over pairs of groups; of calibration the range.
      null, null_t: (R, m) ranges and t where no gap exists; R is 0 where nothing says.
      method: 'permutation', 'bootstrap' (a patient is in several groups), 'undefined'.
      smallest: the fewest positives of a compared group.
      overall_ends: 95 % of `overall`, where the redraws are no interval: those of an AUROC are
        linear, and near 1 they lie beyond 1 (protocol S3).
    """

    kind: str
    groups: tuple[str, ...]
    values: Array
    draws: Array
    floor: Array
    overall: float
    overall_draws: Array
    t: Array
    null: Array
    null_t: Array
    method: str
    smallest: int
    overall_ends: tuple[float, float] | None = None


class Spread(NamedTuple):
    """A max-min gap.

    Attributes:
      value: largest minus smallest; NaN with fewer than two groups.
      ci_low, ci_high: 95 % at least, from all pairs of groups at once.
      null_mean, null_95: mean and 95th percentile where no gap exists.
      excess: value minus null_mean.
      p_value: share of null statistics (studentised) at or above the observed one.
      method: of the null.
    """

    value: float
    ci_low: float
    ci_high: float
    null_mean: float
    null_95: float
    excess: float
    p_value: float
    method: str


def overall_interval(levels: Levels) -> tuple[float, float]:
    """Returns 95 % ends of `overall`: those of the levels, or quantiles of redrawn patients."""
    return levels.overall_ends or percentile_interval(levels.overall_draws)


def spreads(levels: Levels) -> dict[str, Spread]:
    """Returns every gap of GAPS of this kind, by name."""
    found = ranges(levels.values)
    low, high = range_intervals(levels.values, levels.draws, levels.floor)
    return {
        name: _spread(pick, found, low, high, levels) for name, pick in GAPS[levels.kind].items()
    }


def _spread(
    pick: Callable[[Array], Array], found: Array, low: Array, high: Array, levels: Levels
) -> Spread:
    value, bottom, top, nan = float(pick(found)), float(pick(low)), float(pick(high)), float("nan")
    if not len(levels.null) or np.isnan(value):
        return Spread(value, bottom, top, nan, nan, nan, nan, "undefined")
    null, t = pick(levels.null), float(pick(levels.t))
    exceed = int((pick(levels.null_t) >= t - 1e-9 * max(1.0, abs(t))).sum())
    mean, most = float(null.mean()), float(np.quantile(null, 0.95))
    p_value = (1 + exceed) / (1 + len(null))
    if p_value > 0.05:  # What chance alone gives may be no gap at all.
        bottom = bottom * 0.0
    return Spread(value, bottom, top, mean, most, value - mean, p_value, levels.method)


def with_null(spread: Spread, gap: Gap) -> Spread:
    """Returns the gap of an AUROC beside the null that `gaps.max_min_gap` found for it."""
    return spread._replace(
        ci_low=spread.ci_low * 0.0 if gap.p_value > 0.05 else spread.ci_low,
        null_mean=gap.null_mean,
        null_95=gap.null_95,
        excess=spread.value - gap.null_mean,
        p_value=gap.p_value,
        method=gap.method,
    )


def gap_table(levels: Mapping[str, Levels]) -> pd.DataFrame:
    """Returns one row per entry and gap: columns `of`, `gap`, the fields of Spread, `smallest`."""
    rows = [
        {"of": of, "gap": name, **spread._asdict(), "smallest": part.smallest}
        for of, part in levels.items()
        for name, spread in spreads(part).items()
    ]
    return pd.DataFrame(rows, columns=["of", "gap", *Spread._fields, "smallest"])


def range_intervals(values: Array, draws: Array, floor: Array) -> tuple[Array, Array]:
    """Returns (m,) lower and (m,) upper ends for the ranges of (m, k) values.

    All pairs of groups of all lines have simultaneous intervals |d| -+ c se; the range is at
    least the largest lower end of a pair and at most the largest upper end. It holds 0 where no
    pair is apart, and it covers 95 % or more, also where a true gap is 0: quantiles of redrawn
    ranges would not, since a redrawn range is hardly ever as small as a true one.

    Args:
      values: (m, k).
      draws: (B, m, k); draws that leave a value undefined are left out, NaN ends if those are
        more than a tenth.
      floor: (m, k) smallest variances.
    """
    m, k = values.shape
    nothing = np.full(m, np.nan)
    kept = draws[np.isfinite(draws).all(axis=(1, 2))] if k > 1 else draws[:0]
    if len(kept) < max(0.9 * len(draws), 20) or not np.isfinite(values).all():
        return nothing, nothing
    left, right = np.triu_indices(k, 1)
    apart = np.abs(values[:, left] - values[:, right])
    moved = kept[:, :, left] - kept[:, :, right]
    moved = moved - moved.mean(axis=0)
    error = np.sqrt(np.maximum(moved.var(axis=0), floor[:, left] + floor[:, right]))
    if not (error > 0).all():
        return nothing, nothing
    reach = np.quantile((np.abs(moved) / error).max(axis=(1, 2)), 0.95) * error
    low, high = (apart - reach).max(axis=1), (apart + reach).max(axis=1)
    return np.maximum(low, 0.0), np.minimum(high, 1.0)


def studentised(values: Array, variances: Array) -> Array:
    """Returns the largest |difference| / standard error over pairs: (..., k) to (...)."""
    left, right = np.triu_indices(values.shape[-1], 1)
    apart = np.abs(values[..., left] - values[..., right])
    error = np.sqrt(variances[..., left] + variances[..., right])
    infinite = np.where(apart > 1e-12, np.inf, 0.0)
    return np.asarray(np.divide(apart, error, out=infinite, where=error > 0).max(axis=-1))


def by_bootstrap(values: Array, draws: Array, floor: Array) -> tuple[Array, Array, Array]:
    """Returns t (m,), null ranges and null t (R, m) from the centred draws of (m, k) values."""
    kept = draws[np.isfinite(draws).all(axis=(1, 2))]
    if values.shape[1] < 2 or len(kept) < 0.9 * len(draws) or not len(kept):
        nothing = np.empty((0, len(values)))
        return np.full(len(values), np.nan), nothing, nothing
    moved = kept - kept.mean(axis=0)
    variance = np.maximum(moved.var(axis=0), floor)
    return studentised(values, variance), ranges(moved), studentised(moved, variance[None])


def ranges(values: Array) -> Array:
    """Returns largest minus smallest over the last axis; NaN with fewer than two groups."""
    if values.shape[-1] < 2:
        return np.full(values.shape[:-1], np.nan)
    return np.asarray(np.ptp(values, axis=-1))
