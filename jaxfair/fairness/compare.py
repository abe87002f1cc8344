"""Private against plain models, and fairness laws: seeds and patients are two sources of chance.

A training seed is no patient and a patient no seed. Both variances are shown, named apart,
and added (protocol S5). Seeds of the two arms are not pairs; splits are never replicates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats

from jaxfair.errors import InputError
from jaxfair.fairness.agreement import check_runs
from jaxfair.fairness.delong import auroc_estimate
from jaxfair.fairness.groups import OVERALL, group_labels
from jaxfair.fairness.influence import Estimate, covariance, difference
from jaxfair.fairness.predictions import checked, patient_codes

__all__ = ["MIN_SEEDS", "Law", "Loss", "fairness_law", "private_against_plain", "two_source"]

MIN_SEEDS = 5
"""Seeds per arm below which the interval is not given (with 3 it covers 84 to 92 %)."""

_NOTHING = 1e-20
"""A variance below it is rounding, and no interval can be made of it."""

Array = npt.NDArray[np.float64]


class Loss(NamedTuple):
    """A difference of two arms with its sources of chance apart.

    Attributes:
      value: mean of plain seeds minus mean of private seeds.
      ci_low, ci_high: 95 %, Satterthwaite t; NaN below MIN_SEEDS seeds in either arm.
      sd_patients: what other test patients would change (paired).
      sd_plain_seed, sd_private_seed: from one seed to the next.
      df: degrees of freedom of the sum.
    """

    value: float
    ci_low: float
    ci_high: float
    sd_patients: float
    sd_plain_seed: float
    sd_private_seed: float
    df: float


def two_source(plain: Sequence[Estimate], private: Sequence[Estimate]) -> Loss:
    """Returns plain minus private, from one Estimate per seed on the same test patients.

    var = s2_patients (paired) + s2_plain / S + s2_private / S', and Satterthwaite's df.
    """
    arms = [_averaged(arm) for arm in (plain, private)]
    gap = difference(*arms)
    spread = [_spread(arm) for arm in (plain, private)]
    sizes = [len(plain), len(private)]
    parts = [gap.variance, spread[0] / sizes[0], spread[1] / sizes[1]]
    dfs = [gap.df, sizes[0] - 1, sizes[1] - 1]
    low = high = df = float("nan")
    if min(sizes) >= MIN_SEEDS and np.isfinite(parts).all() and sum(parts) > _NOTHING:
        df = sum(parts) ** 2 / sum(v**2 / d for v, d in zip(parts, dfs, strict=True))
        half = float(scipy.stats.t.ppf(0.975, df) * np.sqrt(sum(parts)))
        low, high = gap.value - half, gap.value + half
    seeds = np.sqrt(spread)
    return Loss(gap.value, low, high, gap.se, float(seeds[0]), float(seeds[1]), df)


def private_against_plain(
    plain: Sequence[pd.DataFrame], private: Sequence[pd.DataFrame], attribute: str = OVERALL
) -> pd.DataFrame:
    """Returns the utility lost to privacy in each group, and how unevenly it is lost.

    Args:
      plain, private: predictions of one task, one table per training seed, all on the same
        test images.
      attribute: whose groups.

    Returns:
      One row per group: plain, private (mean AUROC over seeds), n_plain, n_private (seeds),
      the fields of Loss, and `disparity`, `disparity_low`, `disparity_high`: the group's loss
      minus that of all other patients.

    Raises:
      InputError: if the tables hold different test images, more than one task, or contradict
        each other; or if two are one and the same run (see `agreement.check_runs`).
    """
    tables = [_test_rows(table) for table in [*plain, *private]]
    _same_images(tables)
    arms_of = [("plain", plain), ("private", private)]
    check_runs(tables, [f"{arm} table {i + 1}" for arm, of in arms_of for i in range(len(of))])
    arms = tables[: len(plain)], tables[len(plain) :]
    labels = group_labels(tables[0], attribute)
    rows = []
    for group in sorted(set(labels)):
        own = [[_estimate(t, labels == group) for t in arm] for arm in arms]
        rest = [[_estimate(t, labels != group) for t in arm] for arm in arms]
        apart = [[difference(a, b) for a, b in zip(*pair)] for pair in zip(own, rest)]
        loss, disparity = two_source(*own), two_source(*apart)
        levels = {
            "plain": float(np.mean([e.value for e in own[0]])),
            "private": float(np.mean([e.value for e in own[1]])),
        }
        counts = {"n_plain": len(plain), "n_private": len(private)}
        uneven = {
            "disparity": disparity.value,
            "disparity_low": disparity.ci_low,
            "disparity_high": disparity.ci_high,
        }
        rows.append({"group": group, **levels, **counts, **loss._asdict(), **uneven})
    return pd.DataFrame(rows)


class Law(NamedTuple):
    """A fairness law: performance as a straight line in a group's share of the training set.

    Attributes:
      slope: least squares over all seeds, per unit of share.
      p_value: of the slope, over seeds and shares.
      predicted: (k,) the line between the means at the smallest and largest share.
      mae: mean absolute error of each seed's own line at the inner shares, over seeds.
      r: mean |Pearson's r| over seeds.
    """

    slope: float
    p_value: float
    predicted: Array
    mae: float
    r: float


def fairness_law(shares: npt.ArrayLike, values: npt.ArrayLike) -> Law:
    """Returns how well the ends predict what lies between (Meissen et al. 2023).

    Args:
      shares: (k,) ascending shares of the group in training, k >= 3.
      values: (S, k) metric of the group for each seed.
    """
    x, y = np.asarray(shares, dtype=float), np.atleast_2d(np.asarray(values, dtype=float))
    if len(x) < 3 or y.shape[1] != len(x) or (np.diff(x) <= 0).any():
        raise ValueError(
            f"A law needs ascending shares (k,) with k >= 3 and values (S, k), got {x.shape} and"
            f" {y.shape}."
        )
    weight = (x - x[0]) / (x[-1] - x[0])
    lines = y[:, :1] * (1 - weight) + y[:, -1:] * weight
    mae = float(np.abs(y - lines)[:, 1:-1].mean())
    fit = scipy.stats.linregress(np.tile(x, len(y)), y.ravel())
    varied = [row for row in y if np.ptp(row) > 0]
    r = float(np.mean([abs(np.corrcoef(x, row)[0, 1]) for row in varied])) if varied else np.nan
    return Law(float(fit.slope), float(fit.pvalue), lines.mean(axis=0), mae, r)


def _averaged(arm: Sequence[Estimate]) -> Estimate:
    """The mean over seeds: its patients' parts are averaged, so its variance is theirs."""
    parts = np.mean([estimate.parts for estimate in arm], axis=0)
    value = float(np.mean([estimate.value for estimate in arm]))
    apart = float(np.mean([estimate.centre for estimate in arm]))
    spread = np.mean([estimate.deviations for estimate in arm], axis=0)
    mean = arm[0]._replace(value=value, parts=parts, spread=spread, apart=apart)
    return mean._replace(variance=covariance(mean, mean))


def _spread(arm: Sequence[Estimate]) -> float:
    values = [estimate.value for estimate in arm]
    return float(np.var(values, ddof=1)) if len(values) > 1 else float("nan")


def _test_rows(table: pd.DataFrame) -> pd.DataFrame:
    rows = checked(table)
    if rows["task"].nunique() > 1:
        raise InputError(
            f"Compare one task at a time; the tables hold {sorted(rows['task'].unique())}."
        )
    return rows[rows["split"] == "test"].sort_values("image_id").reset_index(drop=True)


def _same_images(tables: Sequence[pd.DataFrame]) -> None:
    first = set(tables[0]["image_id"])
    for table in tables[1:]:
        odd = first ^ set(table["image_id"])
        if odd:
            raise InputError(
                f"The runs were not tested on the same images ({len(odd)} are in one only, such as"
                f" {min(odd)!r}); compare runs of one dataset and split."
            )


def _estimate(table: pd.DataFrame, inside: npt.NDArray[np.bool_]) -> Estimate:
    patients, n_patients = patient_codes(table)
    rows = table[inside]
    return auroc_estimate(rows["y_true"], rows["y_score"], patients[inside], n_patients=n_patients)
