"""What the first lines say: who is worse off and how, what was compared, and what was not."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from jaxfair.fairness.contrasts import MIRRORED, n_comparisons
from jaxfair.report.cells import name, number

__all__ = ["TITLES", "harm", "verdict"]

TITLES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "auroc": "AUROC",
    "calibration": "observed minus stated risk",
}
"""The statistics in the order of harm: whom it misses comes first."""

_NAMED = 6
"""Groups of one reason that are named; further ones are counted."""

_HARMS = {
    "sensitivity": "missed more often",
    "specificity": "false alarms more often",
    "auroc": "ranked worse",
}


def harm(row: pd.Series | Mapping[Any, Any]) -> str:
    """Returns what is worse for the group of a flagged contrast, '' for any other."""
    if not row["flagged"]:
        return ""
    if row["statistic"] in _HARMS:
        return _HARMS[row["statistic"]]
    return "risk stated too low" if row["value"] > 0 else "risk stated too high"


def verdict(
    contrasts: pd.DataFrame,
    inverted: float | None,
    below: Mapping[str, float],
    family: int,
    labels: int,
) -> list[str]:
    """Returns sentences, the first of which must not be overlooked.

    Args:
      contrasts: of one label (contrasts.group_contrasts).
      inverted: AUROC of all test rows of the label where all of its interval is under one half;
        else None.
      below: AUROCs of groups of which the same is true, by name, that have enough patients.
      family: comparisons over all labels of the run.
      labels: how many labels these are.
    """
    found = n_comparisons(contrasts)
    lines = [_inverted(inverted) + (_found(contrasts) if found else _nothing(contrasts))]
    if found:
        lines.append(_counted(contrasts, found, family, labels))
    if below and inverted is None:
        groups = ", ".join(f"{group} ({number(value)})" for group, value in below.items())
        lines.append(f"AUROC below one half, where the score points the wrong way: {groups}.")
    missing = [TITLES[s] for s in TITLES if s not in set(contrasts["statistic"])]
    if found and missing:
        lines.append(
            f"Not compared for want of validation rows of both labels: {', '.join(missing)}."
        )
    left = "; ".join(_left_out(contrasts))
    return lines + ([f"Groups not compared: {left}."] if found and left else [])


def _inverted(auroc: float | None) -> str:
    if auroc is None:
        return ""
    return f"The score points the wrong way: its AUROC is {number(auroc)}, below one half. "


def _found(contrasts: pd.DataFrame) -> str:
    words = [line for statistic in TITLES for line in _worse(contrasts, statistic)]
    return " ".join(words) or "No group was found worse than the rest."


def _worse(contrasts: pd.DataFrame, statistic: str) -> Iterator[str]:
    rows = contrasts[contrasts["flagged"] & (contrasts["statistic"] == statistic)]
    harms = pd.Series([harm(row) for _, row in rows.iterrows()], index=rows.index, dtype=object)
    for words, part in rows.groupby(harms, sort=True):
        groups = [
            f"{name(row['attribute'], row['group'])} ({TITLES[statistic]}"
            f" {number(row['value'])} against {number(row['rest'])})"
            for _, row in part.iterrows()
        ]
        than = " than the rest" if statistic in _HARMS else ""
        yield f"{str(words).capitalize()}{than}: {', '.join(groups)}."


def _nothing(contrasts: pd.DataFrame) -> str:
    why = "; ".join(_left_out(contrasts)) or "there are no columns to form groups from"
    return f"Nothing was compared, so nothing is known of differences between groups: {why}."


def _counted(contrasts: pd.DataFrame, found: int, family: int, labels: int) -> str:
    tested = contrasts[contrasts["p"].notna() | (contrasts["why"] == MIRRORED)]
    groups, every = (len(t.drop_duplicates(["attribute", "group"])) for t in (tested, contrasts))
    names = ", ".join(TITLES[s] for s in TITLES if s in set(tested["statistic"]))
    over = f" over {labels} labels" if labels > 1 else ""
    here = f"{found} of them here, " if family != found else ""
    return (
        f"{family} comparisons of a group with the rest{over} are one family and corrected"
        f" together; {here}in {names}, for {groups} of {every} groups."
    )


def _left_out(contrasts: pd.DataFrame) -> Iterator[str]:
    """'sex: F, M (no view in common with the rest)', by reason."""
    rows = contrasts[(contrasts["why"] != "") & (contrasts["why"] != MIRRORED)]
    rows = rows.drop_duplicates(["attribute", "group"])
    for why, part in rows.groupby("why", sort=False):
        groups = [name(a, g) for a, g in part[["attribute", "group"]].to_numpy()]
        more = f" and {len(groups) - _NAMED} more" if len(groups) > _NAMED else ""
        yield f"{', '.join(groups[:_NAMED])}{more} ({why})"
