"""Many labels at once: labels by groups as a heat map, the gravest differences first."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.fairness.contrasts import MIRRORED
from jaxfair.fairness.groups import OVERALL, natural
from jaxfair.files import slug
from jaxfair.report.cells import Cell, Heat, Link, Quiet, at_least, at_most, cells, name
from jaxfair.report.content import Block, Section, Table, Text
from jaxfair.report.single import Run
from jaxfair.report.views import TaskView

__all__ = ["overview", "results_title"]

_MOST = 40
"""Groups that have a column; of more, those with the largest differences."""
_FULL = 20.0
"""Of 100: where the shades end."""


def results_title(view: TaskView) -> str:
    """Returns the title of the section with a label's results, where links of labels lead."""
    return f"{view.run.title()}, {view.task}: results by group"


def overview(run: Run, views: Sequence[TaskView]) -> Section:
    """Returns a row for each label and a column for each group of a single attribute."""
    rates = any(np.isfinite(view.threshold) for view in views)
    harms = {view.task: _harms(view, "sensitivity" if rates else "auroc") for view in views}
    groups = _groups(harms)
    order = sorted(views, key=lambda view: _gravity(harms[view.task], view.task))
    shown = pd.DataFrame([_row(view, harms[view.task], groups) for view in order])
    data = pd.DataFrame(
        [{"label": view.task, **{g: harms[view.task].get(g, {}).get("more", np.nan)
          for g in groups}} for view in order]
    )  # fmt: skip
    what = (
        "how many more of 100 with the finding are missed than among all other patients, at one"
        " threshold and the same mix of views"
        if rates
        else "how many points of 100 the AUROC is below that of all other patients, at the same mix"
        " of views"
    )
    title = f"{run.title()}: labels by groups, {what}"
    blocks: list[Block] = [
        Table(f"{slug(run.name)}.overview", shown, title, _NOTE, data=data),
    ]
    left = len({g for found in harms.values() for g in found}) - len(groups)
    if left:
        blocks.append(Text(f"{left} more groups, with smaller differences, are in the sections."))
    return Section(f"{run.title()}: all labels at once", blocks)


_NOTE = (
    "Rounded up. Labels with the gravest differences stand first and lead to their sections."
    " 'worse': the group was found worse than the rest in this label, in any statistic, corrected"
    " for all comparisons of the run. few: too few patients. see: of two groups the other one holds"
    " the contrast."
)


def _harms(view: TaskView, statistic: str) -> dict[str, dict[Hashable, Any]]:
    """Group -> `more` of 100 who are worse off, whether flagged in any statistic, and why not."""
    table = view.contrasts
    table = table[~table["attribute"].str.contains(" x ", regex=False)]
    flagged = table[table["flagged"]].groupby(["attribute", "group"]).size().index
    found = {}
    for row in table[table["statistic"] == statistic].to_dict("records"):
        key = (row["attribute"], row["group"])
        more = -100 * row["difference"]
        found[name(*key)] = {**row, "more": more, "worse": key in flagged}
    return found


def _groups(harms: Mapping[str, Mapping[str, Mapping[Hashable, Any]]]) -> list[str]:
    """The columns in natural order, at most _MOST."""
    largest: dict[str, float] = {}
    places: dict[str, tuple[int, Any]] = {}
    for found in harms.values():
        for group, row in found.items():
            more = 0.0 if np.isnan(row["more"]) else abs(row["more"])
            largest[group] = max(largest.get(group, 0.0), more)
            places.setdefault(group, (len(places), row))
    kept = sorted(largest, key=lambda group: -largest[group])[:_MOST]
    attributes = list(dict.fromkeys(str(row["attribute"]) for _, row in places.values()))
    return sorted(
        kept,
        key=lambda g: (attributes.index(places[g][1]["attribute"]), natural(places[g][1]["group"])),
    )


def _gravity(found: Mapping[str, Mapping[Hashable, Any]], task: str) -> tuple[Any, ...]:
    """The key of the order: flagged groups, then the largest difference, then the name."""
    known = [row["more"] for row in found.values() if np.isfinite(row["more"])]
    return -sum(row["worse"] for row in found.values()), -max(known, default=0.0), natural(task)


def _row(
    view: TaskView, found: Mapping[str, Mapping[Hashable, Any]], groups: Sequence[str]
) -> dict[str, Any]:
    whole = view.headline[view.headline["attribute"] == OVERALL]
    (area,) = cells(whole, "auroc", interval=True)
    seen = whole["sensitivity"].iloc[0] if "sensitivity" in whole else np.nan
    return {
        "label": Link(view.task, results_title(view)),
        "AUROC [95 %]": area,
        "found of 100": Quiet("undefined") if np.isnan(seen) else at_least(100 * seen),
        **{group: _cell(found, group) for group in groups},
    }


def _cell(found: Mapping[str, Mapping[Hashable, Any]], group: str) -> Cell:
    row = found.get(group)
    if row is None:
        return Quiet("none")
    if row["too_few"]:
        return Quiet("few")
    if row["why"] == MIRRORED:
        others = [g for g, r in found.items() if r["attribute"] == row["attribute"] and g != group]
        others = [g for g in others if np.isfinite(found[g]["more"])]
        other = str(found[others[0]]["group"]) if others else "the other"
        return Heat(f"see {other}", np.nan, row["worse"])
    if np.isnan(row["more"]):
        return Quiet("undefined")
    harm = float(np.clip(row["more"] / _FULL, -1, 1))
    return Heat(f"{int(at_most(row['more'])):+d}", harm, row["worse"])
