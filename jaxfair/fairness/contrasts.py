"""Each group against the rest: signed, standardised to one view mix, corrected for their number.

"Flagged" means worse than the rest, one-sided and corrected (protocol S2). Two-sided, clean
groups would be flagged because the rest contains the bad one.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats

from jaxfair.fairness.delong import Estimate, auroc_estimate, difference, t_interval
from jaxfair.fairness.frame import GroupFrame, enough_patients
from jaxfair.fairness.groups import group_labels
from jaxfair.fairness.multiplicity import bootstrap_sums, holm, romano_wolf
from jaxfair.fairness.predictions import checked, patient_codes

__all__ = ["COLUMNS", "group_contrasts", "mix_weights"]

COLUMNS = (
    "attribute",
    "group",
    "auroc",
    "rest",
    "difference",
    "ci_low",
    "ci_high",
    "p",
    "p_corrected",
    "flagged",
    "too_few",
    "standardised",
)

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def group_contrasts(
    predictions: pd.DataFrame,
    attributes: Sequence[str],
    *,
    seed: int,
    control: str | None = "view",
    split: str = "test",
    n_bootstrap: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Returns the AUROC of each group minus that of all other patients.

    Args:
      predictions: rows of one task (see `predictions.checked`).
      attributes: all their groups together are one family of comparisons.
      seed: of the bootstrap behind the correction.
      control: column to whose pooled mix, within each label, group and rest are weighted;
        None, or a column that is not there, compares as they are, and so do attributes that
        contain it.
      split: which rows.
      n_bootstrap: resamples of patients.
      level: of the two-sided intervals, and 1 - level of the flag.

    Returns:
      COLUMNS, one row per group; p is one-sided for "worse than the rest". Where the group or
      the rest has too few patients there is a difference, but no p and no flag. Where two
      groups are each other's rest (but for a tenth of the rows), there is one contrast, and it
      stands in the row of the lower.
    """
    rows = checked(predictions)
    rows = rows[rows["split"] == split].reset_index(drop=True)
    use = control if control in rows else None
    as_is, alike = _Rows(rows, None), _Rows(rows, use)
    records, found, tested, images = [], [], [], []
    for attribute in attributes:
        source = as_is if use in attribute.split(" x ") else alike
        frame = GroupFrame(rows, attribute, split=None)
        small = set(frame.too_few)
        for group in frame.groups:
            pair = source.sides(frame.labels == group)
            gap = difference(*pair)
            values = (pair[0].value, pair[1].value, gap.value, *t_interval(gap, level))
            standardised = source.strata is not None
            records.append((attribute, group, *values, group in small, standardised))
            found.append(gap)
            tested.append(group not in small and enough_patients(rows[frame.labels != group]))
            images.append(int((frame.labels == group).sum()))
    names = [*COLUMNS[:7], "too_few", "standardised"]
    table = pd.DataFrame(records, columns=names)
    table = _tested(table, found, np.array(tested), n_bootstrap, np.random.default_rng(seed))
    table = table.assign(flagged=table["p_corrected"] <= 1 - level, images=images)
    return _shown_once(table)[list(COLUMNS)]


class _Rows:
    """The rows as arrays, coded once for many contrasts."""

    def __init__(self, rows: pd.DataFrame, control: str | None) -> None:
        self.y = rows["y_true"].to_numpy(dtype=float)
        self.score = rows["y_score"].to_numpy(dtype=float)
        self.patients, self.n_patients = patient_codes(rows)
        self.strata = None
        if control is not None:
            self.strata = pd.factorize(group_labels(rows, control))[0].astype(np.int64)

    def sides(self, inside: Bools) -> tuple[Estimate, Estimate]:
        return self._side(inside, ~inside), self._side(~inside, inside)

    def _side(self, chosen: Bools, other: Bools) -> Estimate:
        y, s, patients = self.y[chosen], self.score[chosen], self.patients[chosen]
        if self.strata is None:
            return auroc_estimate(y, s, patients, n_patients=self.n_patients)
        weights = mix_weights(self.y, self.strata, chosen, other)[chosen]
        strata = self.strata[chosen]
        return auroc_estimate(
            y, s, patients, weights=weights, strata=strata, n_patients=self.n_patients
        )


def mix_weights(y: Array, strata: npt.NDArray[np.int64], chosen: Bools, other: Bools) -> Array:
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


def _tested(
    table: pd.DataFrame,
    found: Sequence[Estimate],
    tested: Bools,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Adds p and p_corrected to the groups to be tested."""
    errors = np.sqrt([estimate.variance for estimate in found])
    usable = tested.astype(bool) & (errors > 0)
    worse = np.full(len(table), np.nan)
    worse[usable] = -table["difference"].to_numpy(dtype=float)[usable] / errors[usable]
    p = np.full(len(table), np.nan)
    df = np.array([estimate.df for estimate in found])
    p[usable] = scipy.stats.t.sf(worse[usable], df[usable])
    corrected = np.full(len(table), np.nan)
    if usable.any():
        influence = np.stack([e.influence for e, use in zip(found, usable) if use], axis=1)
        moved, spread = bootstrap_sums(influence, n_bootstrap, rng)
        if (spread > 0).all():
            corrected[usable] = romano_wolf(worse[usable], -moved / spread)
        else:
            corrected[usable] = holm(p[usable])
    return table.assign(p=p, p_corrected=corrected)


def _shown_once(table: pd.DataFrame) -> pd.DataFrame:
    """Of two groups that are each other's rest, only the lower one keeps its contrast."""
    table = table.copy()
    for _, part in table.groupby("attribute"):
        rows = part[part["p"].notna()]
        if len(rows) == 2 and rows["images"].sum() >= 0.9 * part["images"].sum():
            upper = rows["difference"].idxmax()
            emptied = ["rest", "difference", "ci_low", "ci_high", "p", "p_corrected"]
            table.loc[upper, emptied] = np.nan
            table.loc[upper, "flagged"] = False
    return table
