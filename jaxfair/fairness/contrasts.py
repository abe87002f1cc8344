"""Each group against the rest, in all labels and statistics of a report: one family of tests.

"Flagged" means worse than the rest, one-sided and corrected (protocol S2): a lower AUROC, more
of the ill missed, more of the healthy called ill, or a risk that is further off. Two-sided,
clean groups would be flagged because the rest contains the bad one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.fairness.multiplicity import balanced, romano_wolf
from jaxfair.fairness.partition import CALIBRATION, Partition, Record, Task, Tested
from jaxfair.fairness.predictions import checked

__all__ = ["COLUMNS", "MIRRORED", "group_contrasts", "n_comparisons"]

KEYS = ("task", "attribute", "group", "statistic")
COLUMNS = (
    *KEYS,
    "value",
    "rest",
    "difference",
    "ci_low",
    "ci_high",
    "p",
    "p_corrected",
    "flagged",
    "why",
    "too_few",
    "standardised",
)
MIRRORED = "the same contrast as the other group's"
"""Why the better of two groups has no contrast of its own."""

Array = npt.NDArray[np.float64]

_DRAWS = (999, 399, 199)
"""Each gives exact levels of 5 % and exact tails of 2.5 %."""
_WORK = 1.5e9
"""Rows times groups times draws that take a good half of a minute."""


def group_contrasts(
    predictions: pd.DataFrame,
    attributes: Sequence[str],
    *,
    seed: int,
    thresholds: Mapping[str, float] | None = None,
    probabilities: Mapping[str, Array] | None = None,
    control: str | None = "view",
    split: str = "test",
    n_draws: int | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Returns how each group does in each label and statistic, minus all other patients.

    AUROC, sensitivity and specificity are compared by units that change groups among their
    like (exchange.py), at the pooled mix of the control column; the mean of label minus
    probability, as it is, by the cluster bootstrap. All comparisons of a call are one family,
    corrected by Romano-Wolf's step-down (protocol S13).

    Args:
      predictions: rows of one or several tasks (see `predictions.checked`).
      attributes: columns or intersections to form groups from.
      seed: of the draws.
      thresholds: {task: threshold}, scores from there on are called positive; tasks that lack
        one, or have NaN, have no rates.
      probabilities: {task: (n,)} of the task's rows of `split`, in their order; tasks that lack
        them have no calibration.
      control: column to whose pooled mix, within each label, group and rest are weighted;
        None, or a column that is not there, compares as they are, and so do attributes that
        contain it.
      split: which rows.
      n_draws: permutations and resamples; None takes 999, or 399 or 199 where rows are many.
      level: of the two-sided intervals, and 1 - level of the flag.

    Returns:
      COLUMNS, one row per task, group and statistic. p is one-sided for worse (two-sided for
      calibration). Who could not be compared has values and no p, and `why` says the reason.
      p_corrected is at least twice a one-sided p, so that no flag contradicts its interval.
      Where two groups are each other's rest (but for a tenth of the rows), there is one
      contrast, and it stands in the row of the worse.
    """
    rows = checked(predictions)
    rows = rows[rows["split"] == split].reset_index(drop=True)
    at, risks = thresholds or {}, probabilities or {}
    partitions = []
    for number, (name, part) in enumerate(rows.groupby("task", sort=True)):
        task = Task(str(name), part, control, at.get(str(name)), risks.get(str(name)))
        partitions += [(number, Partition(task, attribute)) for attribute in attributes]
    draws = n_draws or _affordable(len(rows) * sum(len(p.groups) for _, p in partitions))
    records: list[Record] = []
    tested: list[Tested] = []
    for number, partition in partitions:
        records += partition.records()
        tested += partition.exchanged([seed, number], draws, level)
        tested += partition.resampled([seed, number], draws, level)
    table = pd.DataFrame(records, columns=list(Record._fields))
    return _shown_once(_corrected(table, tested, level))[list(COLUMNS)]


def n_comparisons(table: pd.DataFrame) -> int:
    """Returns how many contrasts of `group_contrasts` have been tested."""
    return int(table["p"].notna().sum())


def _affordable(work: int) -> int:
    return next((n for n in _DRAWS if n * work <= _WORK), _DRAWS[-1])


def _corrected(table: pd.DataFrame, tested: Sequence[Tested], level: float) -> pd.DataFrame:
    """Adds intervals, p, p_corrected and flags."""
    names = ["ci_low", "ci_high", "p", "p_corrected"]
    if not tested:
        return table.assign(**dict.fromkeys(names, np.nan), flagged=False)
    worse = np.array([one.worse for one in tested])
    null = np.stack([one.null for one in tested], axis=1)
    p = (1 + (null >= worse - 1e-9).sum(axis=0)) / (1 + len(null))
    tails = np.array([2 if one.tails == 1 else 1 for one in tested])
    corrected = np.maximum(romano_wolf(*balanced(worse, null, level)), np.minimum(tails * p, 1))
    found = pd.DataFrame([one.key for one in tested], columns=list(KEYS))
    found = found.assign(
        ci_low=[one.low for one in tested], ci_high=[one.high for one in tested]
    ).assign(p=p, p_corrected=corrected)
    joined = table.merge(found, on=list(KEYS), how="left", validate="one_to_one")
    return joined.assign(flagged=joined["p_corrected"] <= 1 - level)


def _shown_once(table: pd.DataFrame) -> pd.DataFrame:
    """Of two groups that are each other's rest, only the worse one keeps its contrast."""
    table = table.copy()
    for (_, _, statistic), part in table.groupby(["task", "attribute", "statistic"]):
        rows = part[part["p"].notna()]
        if len(rows) == 2 and rows["images"].sum() >= 0.9 * part["images"].sum():
            off = rows["value"].abs()
            better = off.idxmin() if statistic == CALIBRATION else rows["difference"].idxmax()
            emptied = ["rest", "difference", "ci_low", "ci_high", "p", "p_corrected"]
            table.loc[better, emptied] = np.nan
            table.loc[better, "flagged"] = False
            table.loc[better, "why"] = MIRRORED
    return table
