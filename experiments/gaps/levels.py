"""Levels of groups, gaps and changes of them, with what patients and what seeds add to chance.

A number of an arm is the mean over its training seeds. Its variance is that of patients, paired
wherever two numbers are of the same patients, plus that of the seeds over their number (protocol
S5); there is no interval below five seeds. Splits are never replicates: each has its own row.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from jaxfair.fairness.compare import MIN_SEEDS, two_source
from jaxfair.fairness.delong import mann_whitney_estimate
from jaxfair.fairness.gaps import Gap, max_min_gap
from jaxfair.fairness.groups import group_labels
from jaxfair.fairness.influence import Estimate, difference, dot
from jaxfair.fairness.predictions import patient_codes

__all__ = [
    "MIN_SEEDS",
    "PAIRS",
    "Level",
    "Nulls",
    "change",
    "combined",
    "compared",
    "estimates",
    "gap_of",
    "level",
    "nulls",
    "pair_labels",
    "power",
]

PAIRS: Mapping[str, tuple[str, str]] = {
    "sex": ("men", "women"),
    "age": ("old", "young"),
    "view": ("PA", "AP"),
}
"""Attribute -> groups A and B of the composition; old is 61 and over, young 30 and under."""

_SIDES = {
    "sex": {"M": "men", "F": "women"},
    "age": {"61-75": "old", "76-110": "old", "0-17": "young", "18-30": "young"},
    "view": {"PA": "PA", "AP": "AP"},
}
_COLUMNS = {"sex": "sex", "age": "age_group", "view": "view"}


class Level(NamedTuple):
    """A number with its 95 % interval and its sources of chance apart.

    Attributes:
      value: mean over seeds.
      ci_low, ci_high, p_value: Satterthwaite t, p two-sided against 0; NaN below MIN_SEEDS seeds.
      se, df: standard error of all, and its degrees of freedom.
      sd_patients: what other test patients would change.
      sd_seed: from one seed to the next; of a change the larger of both arms'.
      seeds: of the arm, of a change the fewer.
    """

    value: float
    ci_low: float
    ci_high: float
    p_value: float
    se: float
    df: float
    sd_patients: float
    sd_seed: float
    seeds: int


class Nulls(NamedTuple):
    """A max-min gap beside what chance alone gives, over several seeds.

    Attributes:
      value, null_mean, null_95: means over seeds.
      p_value: twice the median of the seeds' p, which is a p whatever they share.
    """

    value: float
    null_mean: float
    null_95: float
    p_value: float


def pair_labels(table: pd.DataFrame, attribute: str) -> np.ndarray:
    """Returns (n,) the group of PAIRS of each row, "" for those of neither."""
    labels = pd.Series(group_labels(table, _COLUMNS[attribute]))
    return labels.map(_SIDES[attribute]).fillna("").to_numpy(object)


def estimates(table: pd.DataFrame, labels: np.ndarray, metric: str) -> dict[str, Estimate]:
    """Returns the AUROC of all rows as "", and AUROC or sAUROC of each group.

    Args:
      table: test rows of one task, sorted by image.
      labels: (n,) the group of each row; rows of "" are in no group, and no positives of sAUROC.
      metric: "AUROC", both labels of the group, or "sAUROC": its negatives against all positives
        (uad.md's subgroup AUROC, of which the thesis's figures are).
    """
    people, count = patient_codes(table)
    y, score = table["y_true"].to_numpy() == 1, table["y_score"].to_numpy(float)
    known = labels != ""
    sides = {"": (y, ~y)}
    for name in sorted(set(labels[known])):
        own = labels == name
        sides[name] = (y & (own if metric == "AUROC" else known), ~y & own)
    return {
        name: mann_whitney_estimate(score, up, low, people, n_patients=count)
        for name, (up, low) in sides.items()
    }


def gap_of(found: Mapping[str, Estimate], pair: tuple[str, str]) -> Estimate:
    """Returns the estimate of group A minus that of group B."""
    return difference(found[pair[0]], found[pair[1]])


def combined(parts: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """Returns the weighted sum of estimates over one list of patients, as of a regression line."""
    spread = np.sum([w * e.deviations for w, e in zip(weights, parts, strict=True)], axis=0)
    total = float(np.dot(weights, [e.value for e in parts]))
    defined = np.isfinite([e.variance for e in parts]).all()
    return Estimate(
        total,
        dot(spread, spread) if defined else float("nan"),
        min(e.df for e in parts),
        np.sum([w * e.parts for w, e in zip(weights, parts, strict=True)], axis=0),
        np.any([e.members for e in parts], axis=0),
        spread,
    )


def level(seeds: Sequence[Estimate]) -> Level:
    """Returns the mean of an arm, from one estimate per seed on the same patients."""
    nothing = seeds[0]._replace(
        value=0.0,
        variance=0.0,
        df=float("inf"),
        parts=np.zeros_like(seeds[0].parts),
        members=np.zeros_like(seeds[0].members),
        spread=np.zeros(seeds[0].parts.shape[1]),
        apart=0.0,
    )
    return change([nothing] * MIN_SEEDS, seeds)._replace(seeds=len(seeds))


def change(before: Sequence[Estimate], after: Sequence[Estimate]) -> Level:
    """Returns after minus before, from one estimate per seed of each arm on the same patients.

    var = s2_patients (paired) + s2_before / S + s2_after / S'; `compare.two_source`.
    """
    loss = two_source(after, before)
    spreads = np.array([loss.sd_plain_seed, loss.sd_private_seed])
    parts = [loss.sd_patients, *(spreads / np.sqrt([len(after), len(before)]))]
    error = float(np.linalg.norm(parts))
    known = np.isfinite(loss.df) and error > 0
    p = 2 * float(scipy.stats.t.sf(abs(loss.value) / error, loss.df)) if known else float("nan")
    return Level(
        loss.value,
        loss.ci_low,
        loss.ci_high,
        p,
        error,
        loss.df,
        loss.sd_patients,
        float(spreads.max()),
        min(len(before), len(after)),
    )


def power(benefit: float, found: Level, alpha: float = 0.05) -> float:
    """Returns how often a two-sided t test as precise as `found` finds a true change `benefit`.

    Args:
      benefit: measured on other patients than those of `found`, else it says no more than its p.
      found: the change that is tested; NaN where it has no interval.
      alpha: level of the test.

    >>> exact = Level(0.0, -1.0, 1.0, 1.0, 0.5, 30.0, 0.5, 0.0, 5)
    >>> round(power(0.0, exact), 3), round(power(1.5, exact), 2), power(-4.0, exact) > 0.99
    (0.05, 0.83, True)
    >>> round(power(1.5, exact._replace(df=np.inf)), 2)  # patients are all the chance there is
    0.85
    >>> power(0.206, exact._replace(se=0.01, df=10.0))
    1.0
    """
    if np.isnan(found.df) or not found.se > 0:
        return float("nan")
    df = min(found.df, 1e6)  # of the normal law, where all chance is that of patients
    edge = float(scipy.stats.t.ppf(1 - alpha / 2, df))
    law = scipy.stats.nct(df, abs(benefit) / found.se)
    far = np.nan_to_num(law.cdf(-edge))  # scipy gives NaN for some that are below 1e-60
    return float(law.sf(edge) + far)


def compared(table: pd.DataFrame, labels: np.ndarray) -> list[str]:
    """Returns the groups with at least 50 patients and 10 of either label (protocol S3)."""
    found = []
    for name in sorted(set(labels) - {"", "unknown"}):
        part = table[labels == name]
        fewest = min((part["y_true"] == value).sum() for value in (0, 1))
        if part["patient_id"].nunique() >= 50 and fewest >= 10:
            found.append(str(name))
    return found


def nulls(
    tables: Sequence[pd.DataFrame], labels: np.ndarray, groups: Sequence[str], *, control: str
) -> Nulls:
    """Returns the max-min gap of the AUROC of some groups, beside its null, over seeds.

    Args:
      tables: test rows of each seed, in one order.
      labels: (n,) the group of each row.
      groups: those that are compared.
      control: column within which patients exchange groups; "" for none (protocol S1).
    """
    kept = np.isin(labels, groups)
    found = [_null(table[kept], labels[kept], control) for table in tables]
    means = np.mean([[g.value, g.null_mean, g.null_95] for g in found], axis=0)
    p = min(1.0, 2 * float(np.median([gap.p_value for gap in found])))
    return Nulls(*(float(v) for v in means), p if len(found) > 1 else found[0].p_value)


def _null(table: pd.DataFrame, labels: np.ndarray, control: str) -> Gap:
    within = table[control] if control and table[control].nunique() > 1 else None
    return max_min_gap(
        table["y_true"], table["y_score"], labels, patient_codes(table)[0],
        seed=0, control=within, n_replicates=199,
    )  # fmt: skip
