"""Who is worse, by name and by how many of 100, from the contrasts of a report."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from jaxfair.fairness.contrasts import MIRRORED, n_comparisons
from jaxfair.report.cells import at_least, at_most, listed, name, number, short
from jaxfair.report.verdict import TITLES, harm

__all__ = ["more_of_100", "not_compared", "worse_words", "worst_words", "zero_words"]

_NAMED = 2
"""Groups that a verdict names."""


def worst_words(table: pd.DataFrame, several: bool, named: int = _NAMED) -> str:
    """Returns the gravest differences in words, '' where no group is flagged.

    Args:
      table: contrasts of all labels (contrasts.group_contrasts).
      several: whether labels are to be named.
      named: groups that are named; further ones are counted.
    """
    rows = _gravest(table)
    if not rows:
        return ""
    first = [row for row in rows[:named] if harm(row) == harm(rows[0])]
    told = ", ".join(_words(row, several) for row in first)
    more = len(rows) - len(first)
    rest = f" And {more} more {'harm' if more == 1 else 'harms'}." if more else ""
    return f"{_START[rows[0]['statistic']]}: {told}.{rest}"


def worse_words(table: pd.DataFrame, several: bool) -> list[str]:
    """Returns what stands beside a verdict that names groups."""
    return [_counted(table, several), *not_compared(table)]


def zero_words(table: pd.DataFrame, several: bool) -> list[str]:
    """Returns what stands beside a verdict that names nobody: what is not ruled out, and why."""
    rows = table[(table["statistic"] == "sensitivity") & table["ci_low"].notna()]
    lines = []
    if len(rows) and not rows["too_few"].all():
        row = rows.iloc[int(rows["ci_low"].argmin())]
        more = at_most(-100 * row["ci_low"])
        who = _who(row.to_dict(), several)
        lines.append(f"Not ruled out: {more} more missed of 100 ({who}). Small groups hide much.")
    counted = [_counted(table, several)] if n_comparisons(table) else []
    return [*lines, *counted, *not_compared(table)]


def more_of_100(row: Mapping[Hashable, Any]) -> str:
    """'12 [5, 20]': how many more of 100 are worse off than among the rest.

    The number is rounded up, its interval outwards.
    """
    low, high = -100 * row["ci_high"], -100 * row["ci_low"]
    ends = f" [{at_least(low)}, {at_most(high)}]" if pd.notna(low) and low < high else ""
    return f"{at_most(-100 * row['difference'])}{ends}"


def not_compared(table: pd.DataFrame) -> list[str]:
    """Returns in one line which groups could not be compared, and why; [] where all were."""
    rows = table[(table["why"] != "") & (table["why"] != MIRRORED)]
    rows = rows.drop_duplicates(["attribute", "group"])
    told = []
    for why, part in rows.groupby("why", sort=False):
        every = table.drop_duplicates(["attribute", "group"])["attribute"].value_counts()
        names = [_attribute(str(a), list(p["group"]), int(every[a]))
                 for a, p in part.groupby("attribute", sort=False)]  # fmt: skip
        told.append(f"{listed(names, 4)} ({why})")
    return [f"Not compared: {'; '.join(told)}."] if told else []


def _attribute(attribute: str, groups: list[str], every: int) -> str:
    """'sex: F, M', or '10 of 12 of sex x age_group'."""
    if len(groups) > 3:
        return f"{len(groups)} of {every} of {short(attribute)}"
    return f"{short(attribute)}: {', '.join(map(short, groups))}"


def _gravest(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    rows = [row for row in table.to_dict("records") if row["flagged"] and not row["too_few"]]
    order = list(TITLES)
    return sorted(rows, key=lambda row: (order.index(row["statistic"]), -abs(row["difference"])))


def _who(row: Mapping[Hashable, Any], several: bool) -> str:
    crossed = " x " in row["attribute"]
    who = short(row["group"] if crossed else name(row["attribute"], row["group"]))
    return f"{short(str(row['task']))}, {who}" if several else who


_START = {
    "sensitivity": "More missed of 100 with the finding than among the rest",
    "specificity": "More false alarms of 100 without the finding than among the rest",
    "auroc": "Ranked worse than the rest (AUROC)",
    "calibration": "Risk stated too high or too low (of 100)",
}


def _words(row: Mapping[Hashable, Any], several: bool) -> str:
    """'sex: F 18 [7, 28]'."""
    who = _who(row, several)
    if row["statistic"] == "auroc":
        return f"{who} {number(row['value'])} against {number(row['rest'])}"
    if row["statistic"] == "calibration":
        return f"{who}, {harm(row)} by {at_most(100 * abs(row['value']))}"
    return f"{who} {more_of_100(row)}"


def _counted(table: pd.DataFrame, several: bool) -> str:
    tested = table[table["p"].notna() | (table["why"] == MIRRORED)]
    few, every = (len(t.drop_duplicates(["attribute", "group"])) for t in (tested, table))
    over = f" in {table['task'].nunique()} labels" if several else ""
    return f"{n_comparisons(table)} comparisons, corrected together: {few} of {every} groups{over}."
