"""Parity of decisions between groups at one threshold; undefined groups are listed, never 0."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats

from jaxfair.fairness import metrics
from jaxfair.fairness.frame import GroupFrame

__all__ = [
    "Parity",
    "accuracy_parity",
    "demographic_parity",
    "equal_opportunity",
    "equalized_odds",
    "fate",
    "loss_correlations",
    "parity_table",
    "predictive_parity",
]


class Parity(NamedTuple):
    """A difference between groups.

    Attributes:
      value: largest minus smallest rate over groups in which it is defined and that have
        enough patients; NaN with fewer than two.
      undefined: groups in which it is undefined (no positives, say).
      too_few: groups left out because they are too small.
    """

    value: float
    undefined: tuple[str, ...]
    too_few: tuple[str, ...]


def demographic_parity(frame: GroupFrame, threshold: float) -> Parity:
    """Returns the gap of the shares called positive: the true statistical parity difference.

    Groups with different prevalence should differ here; it is no goal in diagnosis.
    """
    return _gap(frame, "positive_rate", threshold)


def equal_opportunity(frame: GroupFrame, threshold: float) -> Parity:
    """Returns the gap of the sensitivities (Hardt et al. 2016)."""
    return _gap(frame, "sensitivity", threshold)


def predictive_parity(frame: GroupFrame, threshold: float) -> Parity:
    """Returns the gap of the positive predictive values."""
    return _gap(frame, "ppv", threshold)


def equalized_odds(frame: GroupFrame, threshold: float) -> Parity:
    """Returns the larger of the gaps of TPR and FPR, fairlearn's worst case.

    A group without positives counts for the FPR and is listed for the TPR.
    """
    tpr, fpr = _gap(frame, "sensitivity", threshold), _gap(frame, "fpr", threshold)
    undefined = tuple(dict.fromkeys(tpr.undefined + fpr.undefined))
    values = [gap.value for gap in (tpr, fpr) if np.isfinite(gap.value)]
    worst = max(values) if len(values) == 2 else float("nan")
    return Parity(worst, undefined, tpr.too_few)


def accuracy_parity(frame: GroupFrame, threshold: float) -> pd.Series:
    """Returns each group's accuracy minus that of the rest, weighted by size.

    DP_CXR publishes this as "statistical parity difference", with a right call as the
    favourable outcome. It is a difference of accuracies, and zero or not says nothing about
    `demographic_parity`.
    """
    return frame.to_rest(lambda y, s: metrics.accuracy(y, s, threshold))


def parity_table(frame: GroupFrame, threshold: float) -> pd.DataFrame:
    """Returns all gaps of one frame: columns criterion, difference, undefined, too_few."""
    found = {
        "equal opportunity (sensitivity)": equal_opportunity(frame, threshold),
        "equalized odds (worst of TPR, FPR)": equalized_odds(frame, threshold),
        "predictive parity (PPV)": predictive_parity(frame, threshold),
        "demographic parity (share called positive)": demographic_parity(frame, threshold),
        "accuracy": _gap(frame, "accuracy", threshold),
    }
    rows = [
        (name, gap.value, ", ".join(gap.undefined), ", ".join(gap.too_few))
        for name, gap in found.items()
    ]
    return pd.DataFrame(rows, columns=["criterion", "difference", "undefined", "too_few"])


def fate(value: float, gap: float, base_value: float, base_gap: float) -> float:
    """Returns FairREAD's FATE: relative gain in the metric minus relative gain in its gap.

    Args:
      value, gap: of the mitigated model, e.g. AUROC and its max-min gap over groups.
      base_value, base_gap: of the model without mitigation.

    Returns:
      Above 0 where fairness was bought cheaply; NaN where the base is 0.
    """
    if base_value == 0 or base_gap == 0:
        return float("nan")
    return (value - base_value) / base_value - (gap - base_gap) / base_gap


def loss_correlations(
    level: npt.ArrayLike,
    plain: npt.ArrayLike,
    private: npt.ArrayLike,
    samples: npt.ArrayLike,
) -> pd.DataFrame:
    """Returns DP_CXR's table of Pearson's r over labels or groups, with 95 % intervals.

    Args:
      level: (k,) AUROC of plain models of *other seeds* than `plain`: with the same seeds,
        noise alone gives r = .5 between loss and level (protocol S5).
      plain, private: (k,) AUROC of the two arms; their difference is the loss.
      samples: (k,) positives behind each value.

    Returns:
      Columns pair, r, ci_low, ci_high, n.
    """
    loss = np.asarray(plain, dtype=float) - np.asarray(private, dtype=float)
    pairs: Sequence[tuple[str, npt.ArrayLike, npt.ArrayLike]] = (
        ("loss, plain level", loss, level),
        ("loss, samples", loss, samples),
        ("plain level, samples", level, samples),
        ("private level, samples", private, samples),
    )
    rows = [(name, *_pearson(np.asarray(x), np.asarray(y))) for name, x, y in pairs]
    return pd.DataFrame(rows, columns=["pair", "r", "ci_low", "ci_high", "n"])


def _pearson(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[float, float, float, int]:
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan"), float("nan"), float("nan"), len(x)
    found = scipy.stats.pearsonr(x, y)
    low, high = found.confidence_interval()
    return float(found.statistic), float(low), float(high), len(x)


def _gap(frame: GroupFrame, rate: str, threshold: float) -> Parity:
    values = frame.by_group(lambda y, s: getattr(metrics, rate)(y, s, threshold))
    small = tuple(frame.too_few)
    undefined = tuple(str(name) for name in values.index[values.isna()])
    kept = values.drop(list(small)).dropna()
    gap = float(kept.max() - kept.min()) if len(kept) > 1 else float("nan")
    return Parity(gap, undefined, small)
