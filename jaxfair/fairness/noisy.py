"""A table by subgroup from one noisy histogram: values, intervals, and what is not shown.

Nothing here knows of patients or of privacy: the histogram (k groups, 2 labels, b bins) and the
standard deviation of its noise are all that is read, so that every number is a function of them.

Intervals hold sampling and noise: histograms are drawn anew from the noisy one, made non-negative,
as Poisson counts, and given the same noise. Each patient adds one unit of mass; the images of a
patient spread it, which has less variance than one image drawn from them, so that the interval is
then wider than it must be. An interval is the value and half of the central 95 % of the draws on
either side, of a share on the logit scale (Davison and Hinkley 1997, section 5.2).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.fairness.histogram import area, prevalence, sensitivity, specificity

__all__ = ["COLUMNS", "METRICS", "MINIMUM", "Spread", "noisy_table", "spread"]

Array = npt.NDArray[np.float64]

COLUMNS = (
    "group", "metric", "value", "ci_low", "ci_high", "noise_sd", "patients", "noise_sd_patients",
    "why",
)  # fmt: skip
"""Columns of a table; `patients` is the noisy mass of the group."""
METRICS = ("auroc", "sensitivity", "specificity", "prevalence")
MINIMUM = 50.0
"""Noisy patients that a group needs to be shown."""
_CLASS_MINIMUM = 10.0
_CLASS_NOISES = 4.0
"""A label needs that many patients, and that many deviations of the noise on their number."""
_TOO_FEW = "too few by the noisy count"


class Spread(NamedTuple):
    """Draws around a noisy histogram.

    Attributes:
      base: (k, 2, b), the noisy histogram without negative counts.
      draws: (r, k, 2, b), sampled and noised anew.
      noised: (r, k, 2, b), noised alone.
    """

    base: Array
    draws: Array
    noised: Array


def spread(counts: npt.ArrayLike, noise_sd: float, *, seed: int, n: int = 1000) -> Spread:
    """Returns `n` draws of sampling and noise around a noisy histogram (k, 2, b).

    Args:
      noise_sd: standard deviation of the noise on each count.
      seed: of the draws, which are public: they are made of the noisy histogram alone.
    """
    base, rng = _without_negatives(np.asarray(counts, float)), np.random.default_rng(seed)
    noise = rng.normal(scale=noise_sd, size=(2, n, *base.shape))
    return Spread(base, rng.poisson(base, (n, *base.shape)) + noise[0], base + noise[1])


def noisy_table(
    counts: npt.ArrayLike,
    noise_sd: float,
    groups: Sequence[str],
    *,
    at: int,
    seed: int,
    minimum: float = MINIMUM,
    n: int = 1000,
) -> pd.DataFrame:
    """Returns group, metric, value, interval, noise and noisy patients; undefined is NaN.

    A group below `minimum` noisy patients is named and nothing of it is shown, and so is a metric
    whose label has too few by the noisy count: no true count decides. Beside each group's own
    metrics stand `gap_*`: the group minus all others that are shown, once where two are shown.

    Args:
      counts: (k, 2, b) noisy histogram.
      noise_sd: standard deviation of the noise on each count.
      groups: k names.
      at: first bin of those that a threshold calls positive.
    """
    counts = np.asarray(counts, float)
    around = spread(counts, noise_sd, seed=seed, n=n)
    shown = [place for place in range(len(groups)) if counts[place].sum() >= minimum]
    rows = []
    for place, group in enumerate(groups):
        rows += _group_rows(counts, around, [place], group, at, noise_sd, place in shown)
        rest = [other for other in shown if other != place]
        if place in shown and rest and not (len(shown) == 2 and place == shown[1]):
            rows += _gap_rows(counts, around, (place, rest), group, at, noise_sd)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _statistic(metric: str, at: int) -> Callable[[Array], Array]:
    given: dict[str, Callable[[Array], Array]] = {
        "auroc": area,
        "sensitivity": lambda c: sensitivity(c, at),
        "specificity": lambda c: specificity(c, at),
        "prevalence": prevalence,
    }
    return given[metric]


def _group_rows(
    counts: Array, around: Spread, places: list[int], group: str, at: int, sd: float, shown: bool
) -> list[dict[str, Any]]:
    own = [_summed(part, places) for part in (counts, *around)]
    told = {"group": group, "patients": own[0].sum() if shown else np.nan}
    told["noise_sd_patients"] = sd * own[0].size ** 0.5
    rows = []
    for metric in METRICS:
        row = told | {"metric": metric, "why": ""}
        if shown and _enough(own[0], metric, sd):
            row |= _interval(_statistic(metric, at), own)
        else:
            row |= dict.fromkeys(("value", "ci_low", "ci_high", "noise_sd"), np.nan)
            row["why"] = _TOO_FEW
        rows.append(row)
    return rows


def _gap_rows(
    counts: Array, around: Spread, who: tuple[int, list[int]], group: str, at: int, sd: float
) -> list[dict[str, Any]]:
    """The group minus the others that are shown, for metrics that both sides have."""
    place, rest = who
    mine = [_summed(part, [place]) for part in (counts, *around)]
    others = [_summed(part, rest) for part in (counts, *around)]
    rows = []
    for metric in METRICS:
        if not (_enough(mine[0], metric, sd) and _enough(others[0], metric, sd * len(rest) ** 0.5)):
            continue
        of = _statistic(metric, at)
        value, _, draws, noised = (of(one) - of(two) for one, two in zip(mine, others))
        reach = _reach(draws)
        rows.append({
            "group": group, "metric": f"gap_{metric}", "value": value, "ci_low": value - reach,
            "ci_high": value + reach, "noise_sd": np.nanstd(noised), "why": "",
            "patients": mine[0].sum(), "noise_sd_patients": sd * mine[0].size ** 0.5,
        })  # fmt: skip
    return rows


def _enough(counts: Array, metric: str, sd: float) -> bool:
    """Whether the labels that a metric divides by have enough noisy patients."""
    least = max(_CLASS_MINIMUM, _CLASS_NOISES * sd * counts.shape[-1] ** 0.5)
    negatives, positives = counts.sum(-1)
    needed = {"auroc": min(negatives, positives), "sensitivity": positives}
    return bool(needed.get(metric, negatives if metric == "specificity" else np.inf) >= least)


def _interval(of: Callable[[Array], Array], own: Sequence[Array]) -> dict[str, float]:
    value, _, draws, noised = (of(part) for part in own)
    center, reach = _logit(value), _reach(_logit(draws))
    return {
        "value": float(np.clip(value, 0, 1)),
        "ci_low": _share(center - reach),
        "ci_high": _share(center + reach),
        "noise_sd": float(np.nanstd(noised)),
    }


def _reach(draws: Array) -> float:
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return float(high - low) / 2


def _summed(part: Array, places: list[int]) -> Array:
    return part[..., places, :, :].sum(-3)


def _logit(share: npt.ArrayLike) -> Array:
    inside = np.clip(share, 1e-3, 1 - 1e-3)
    return np.asarray(np.log(inside / (1 - inside)))


def _share(logit: float | Array) -> float:
    return float(1 / (1 + np.exp(-logit)))


def _without_negatives(counts: Array) -> Array:
    """The nearest histogram without negative counts, of the same mass by group and label.

    Projection onto a simplex (Duchi et al. 2008, figure 1); a label of less than 1 patient has 1.
    """
    mass = np.maximum(counts.sum(-1, keepdims=True), 1.0)
    ordered = -np.sort(-counts, axis=-1)
    excess = (np.cumsum(ordered, -1) - mass) / np.arange(1, counts.shape[-1] + 1)
    last = (ordered > excess).sum(-1, keepdims=True) - 1
    return np.maximum(counts - np.take_along_axis(excess, last, -1), 0.0)
