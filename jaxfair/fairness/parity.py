"""Parity of decisions between groups at one threshold; undefined groups are listed, never 0."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats

from jaxfair.fairness import metrics
from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.metrics import Counts
from jaxfair.fairness.permutation import own_groups, patient_strata, permuted_groups
from jaxfair.fairness.predictions import patient_codes

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


def parity_table(
    frame: GroupFrame, threshold: float, *, seed: int = 0, n_permutations: int = 199
) -> pd.DataFrame:
    """Returns all gaps of one frame beside what chance alone gives.

    Columns criterion, difference, chance (its mean where patients of the same labels exchange
    groups; NaN where a patient is in several groups), undefined, too_few. Groups with too few
    patients take no part in either.
    """
    found = {
        "equal opportunity (sensitivity)": equal_opportunity(frame, threshold),
        "equalized odds (worst of TPR, FPR)": equalized_odds(frame, threshold),
        "predictive parity (PPV)": predictive_parity(frame, threshold),
        "demographic parity (share called positive)": demographic_parity(frame, threshold),
        "accuracy": _gap(frame, "accuracy", threshold),
    }
    chance = _chance(frame, threshold, seed, n_permutations)
    rows = [
        (name, gap.value, chance[i], ", ".join(gap.undefined), ", ".join(gap.too_few))
        for i, (name, gap) in enumerate(found.items())
    ]
    names = ["criterion", "difference", "chance", "undefined", "too_few"]
    return pd.DataFrame(rows, columns=names)


def _chance(
    frame: GroupFrame, threshold: float, seed: int, n_permutations: int
) -> npt.NDArray[np.float64]:
    """Mean gaps under permutation, in the order of `parity_table`."""
    use = ~np.isin(frame.labels.astype(str), frame.too_few)
    rows, undefined = frame.rows[use], np.full(5, np.nan)
    codes, names = pd.factorize(frame.labels[use])
    if len(names) < 2 or not np.isfinite(threshold):
        return undefined
    patients = patient_codes(rows)[0]
    own = own_groups(codes.astype(np.int64), patients)
    if own is None:
        return undefined
    y = rows["y_true"].to_numpy(dtype=float)
    cell = 2 * y.astype(np.int64) + (rows["y_score"].to_numpy() >= threshold)
    strata, rng = patient_strata(y, patients), np.random.default_rng(seed)
    gaps = []
    for _ in range(n_permutations):
        groups = permuted_groups(own, strata, 1, rng)[0][patients].astype(np.int64)
        table = np.bincount(groups * 4 + cell, minlength=4 * len(names)).reshape(-1, 4)
        gaps.append(_gaps_of_counts(Counts(table[:, 3], table[:, 2], table[:, 1], table[:, 0])))
    return np.asarray(np.mean(gaps, axis=0))


def _gaps_of_counts(counts: Counts) -> list[float]:
    names = ("sensitivity", "fpr", "ppv", "positive_rate", "accuracy")
    tpr, fpr, ppv, shares, right = (_range(metrics.rate_from_counts(n, counts)) for n in names)
    return [tpr, max(tpr, fpr), ppv, shares, right]


def _range(values: npt.NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.ptp(known)) if len(known) > 1 else float("nan")


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
    if high - low < 1e-9:  # Points on one line: r is 1, and nothing says how surely.
        low = high = float("nan")
    return float(found.statistic), float(low), float(high), len(x)


def _gap(frame: GroupFrame, rate: str, threshold: float) -> Parity:
    values = frame.by_group(lambda y, s: getattr(metrics, rate)(y, s, threshold))
    small = tuple(frame.too_few)
    undefined = tuple(str(name) for name in values.index[values.isna()])
    kept = values.drop(list(small)).dropna()
    gap = float(kept.max() - kept.min()) if len(kept) > 1 else float("nan")
    return Parity(gap, undefined, small)
