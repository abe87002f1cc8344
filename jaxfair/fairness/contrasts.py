"""Each group against the rest, in all labels and statistics of a report: one family of tests.

"Flagged" means worse than the rest, one-sided and corrected (protocol S2): a lower AUROC, more
of the ill missed, more of the healthy called ill, or a risk that is further off. Two-sided,
clean groups would be flagged because the rest contains the bad one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
Key = tuple[str, ...]

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
    probability, as it is, by units that change groups freely (residuals.py). All comparisons of a
    call are one family, corrected by Romano-Wolf's step-down (protocol S13).

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
      n_draws: permutations; None takes 999, or 399 or 199 where rows are many.
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
    draws = n_draws or _affordable(sum(p.work for _, p in partitions))
    records: list[Record] = []
    tested: list[Tested] = []
    for number, partition in partitions:
        records += partition.records()
        tested += partition.exchanged([seed, number], draws, level)
        tested += partition.freely_exchanged([seed, number], draws, level)
    outcomes = _corrected(_without_moot(tested, records), level)
    found = [_row(record, outcomes.get(record.key)) for record in records]
    return pd.DataFrame(_shown_once(found, records), columns=list(COLUMNS))


def n_comparisons(table: pd.DataFrame) -> int:
    """Returns how many contrasts of `group_contrasts` have been tested."""
    return int(table["p"].notna().sum())


def _affordable(work: int) -> int:
    return next((n for n in _DRAWS if n * work <= _WORK), _DRAWS[-1])


def _without_moot(tested: Sequence[Tested], records: Sequence[Record]) -> list[Tested]:
    """Comparisons with all 1 (or all 0) on both sides get p = 1 and no interval.

    There every permutation has the same values, and only the half that is added to them, by sizes
    and views, would be compared: "missed more often, 1.000 against 1.000".
    """
    moot = {record.key for record in records if record.value == record.rest in (0, 1)}
    return [
        one._replace(worse=0.0, null=np.zeros(len(one.null)), low=_NAN, high=_NAN)
        if one.key in moot and one.tails == 1
        else one
        for one in tested
    ]


class _Outcome(NamedTuple):
    ci_low: float
    ci_high: float
    p: float
    p_corrected: float
    flagged: bool


_NAN = float("nan")
_UNTESTED = _Outcome(_NAN, _NAN, _NAN, _NAN, False)


def _corrected(tested: Sequence[Tested], level: float) -> dict[Key, _Outcome]:
    """Returns what came of each comparison, corrected for all of them."""
    if not tested:
        return {}
    worse = np.array([one.worse for one in tested])
    null = np.stack([one.null for one in tested], axis=1)
    p = (1 + (null >= worse - 1e-9).sum(axis=0)) / (1 + len(null))
    both = np.minimum(np.array([2 if one.tails == 1 else 1 for one in tested]) * p, 1)
    corrected = np.maximum(romano_wolf(*balanced(worse, null, level)), both)
    flagged = corrected <= 1 - level
    return {
        one.key: _Outcome(one.low, one.high, float(p[i]), float(corrected[i]), bool(flagged[i]))
        for i, one in enumerate(tested)
    }


def _row(record: Record, outcome: _Outcome | None) -> dict[str, Any]:
    """A contrast as it is shown; its interval holds the difference itself.

    Half a pair or image is added before the logit is taken, so that of two perfect sides of
    unequal size, say, the interval alone would begin beside their difference of 0.
    """
    found = outcome or _UNTESTED
    low, high = (
        np.minimum(found.ci_low, record.difference),
        np.maximum(found.ci_high, record.difference),
    )
    return {**record._asdict(), **found._asdict(), "ci_low": float(low), "ci_high": float(high)}


def _shown_once(rows: list[dict[str, Any]], records: Sequence[Record]) -> list[dict[str, Any]]:
    """Of two groups that are each other's rest, only the worse one keeps its contrast."""
    parts: dict[Key, list[dict[str, Any]]] = {}
    for row, record in zip(rows, records, strict=True):
        parts.setdefault((record.task, record.attribute, record.statistic), []).append(row)
    for (_, _, statistic), part in parts.items():
        two = [row for row in part if not np.isnan(row["p"])]
        images = [sum(row["images"] for row in some) for some in (two, part)]
        if len(two) == 2 and images[0] >= 0.9 * images[1]:
            off = [-abs(r["value"]) if statistic == CALIBRATION else r["difference"] for r in two]
            nothing = dict.fromkeys(("rest", "difference"), _NAN)
            two[int(np.argmax(off))].update(nothing | _UNTESTED._asdict() | {"why": MIRRORED})
    return rows
