"""Before and after: how gaps changed from the first run to the others, and what that cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.errors import InputError
from jaxfair.fairness.change import (
    changes,
    check_paired,
    fate_of,
    overall_change,
    same_validation,
)
from jaxfair.fairness.levels import Levels, overall_interval
from jaxfair.fairness.selection import trade_off
from jaxfair.files import slug
from jaxfair.report.cells import number, p_text, with_interval
from jaxfair.report.content import Block, Plot, Section, Table, Text
from jaxfair.report.measured import ALONE, ONE, OWN, WORST, Line
from jaxfair.report.scatter import trade_off as trade_off_plot
from jaxfair.report.views import TaskView

__all__ = ["before_after", "needed"]

_MOST = 3
"""Runs that are set beside the first one by one; of more, only the table of all."""

_FATES = {"delta-AUC": "FATE_AUC", WORST: "FATE_EO"}
_SHOWN = ("delta-AUC", WORST, "calibration: ECE, 15 bins", "calibration: squared error, debiased")


def before_after(views: Sequence[TaskView]) -> list[Section]:
    """Returns one section per task that more than one run has; the first run is `before`."""
    found = []
    for task in sorted({view.task for view in views}):
        same = [view for view in views if view.task == task]
        if len(same) > 1:
            found.append(_section(task, same))
    return found


def _section(task: str, views: Sequence[TaskView]) -> Section:
    before, others = views[0], views[1:]
    blocks: list[Block] = [Text(needed(views))]
    paired = []
    for after in others:
        try:
            check_paired(before.measured.resamples, after.measured.resamples)
            paired.append(after)
        except InputError as error:
            blocks.append(Text(f"{before.run.name} and {after.run.name}: {error}"))
    for after in paired if len(others) <= _MOST else []:
        blocks.extend(_pair(task, before, after))
    if paired:
        blocks.extend(_front(task, [before, *paired]))
    return Section(f"Before and after, {task}: gaps, and what they cost", blocks)


def needed(views: Sequence[TaskView]) -> str:
    """Returns what each run needs at test time, as a sentence."""
    told = []
    for view in views:
        needs = view.run.needs
        what = "not known" if needs is None else ", ".join(["the image", *needs])
        told.append(f"{view.run.name}: {what}")
    return (
        f"Needed at test time: {'; '.join(dict.fromkeys(told))}. Thresholds per group need the"
        " patient's group, of any model."
    )


def _pair(task: str, before: TaskView, after: TaskView) -> list[Block]:
    stem = f"_before_after.{slug(task, after.run.name)}"
    pairs = _paired(before, after)
    gaps = pd.DataFrame([_gap_row(*pair) for pair in pairs])
    costs = pd.DataFrame(_costs(before, after))
    fates = pd.DataFrame([row for pair in pairs if (row := _fate_row(*pair))])
    title = f"Before: {before.run.name}. After: {after.run.name}."
    blocks: list[Block] = [
        Text(f"{title} {_lead(costs, gaps)}", strong=True),
        Table(f"{stem}.gaps", _shown_gaps(gaps), f"{title} {_GAPS}", data=gaps),
        Table(f"{stem}.cost", _shown_costs(costs), _COST, data=costs),
    ]
    if not same_validation(before.measured.resamples, after.measured.resamples):
        blocks.append(Text(_OTHERS))
    if len(fates):
        blocks.append(Table(f"{stem}.fate", _shown_fates(fates), _FATE, data=fates))
    return blocks


_GAPS = (
    "Both were tested on the same images; delta-EO is the larger of the gaps of TPR and TNR, at the"
    " threshold where |TPR - TNR| is smallest on validation: one for all, or one for each group"
    " with 200 validation cases of either label. Excess is what a gap has above its mean by chance"
    " alone (patients exchange groups, thresholds are fitted again), p tests it. Change is paired,"
    " covers other patients of both splits, and no other training seed."
)
_OTHERS = (
    "Decisions are not set side by side: the runs were not validated on the same images, so that"
    " their thresholds differ for more reasons than the model."
)
_COST = "What it cost: AUROC, and accuracy at these thresholds, over all test images."
_FATE = (
    "FairREAD's FATE: relative gain in AUROC or accuracy, minus relative change of the gap. It"
    " divides by the gap before: where that is within chance FATE is unstable, and means nothing."
    " Read gap and cost first."
)


def _paired(before: TaskView, after: TaskView) -> list[tuple[Line, Line]]:
    ours = {(x.attribute, x.gap, x.threshold): x for x in after.measured.lines}
    same = same_validation(before.measured.resamples, after.measured.resamples)
    return [
        (line, ours[key])
        for line in before.measured.lines
        if (same or not line.threshold)
        and line.gap in _SHOWN
        and (key := (line.attribute, line.gap, line.threshold)) in ours
    ]


def _gap_row(before: Line, after: Line) -> dict[str, Any]:
    change = changes(before.levels, after.levels)[before.gap]
    row: dict[str, Any] = {"gap": before.title}
    for name, line in (("before", before), ("after", after)):
        row |= {f"{name}_{k}": v for k, v in line.spread._asdict().items()}
    few = min(before.levels.smallest, after.levels.smallest)
    notes = "; ".join(dict.fromkeys(note for note in (before.note, after.note) if note))
    row |= {f"change_{k}": v for k, v in change._asdict().items()}
    if len(before.levels.groups) < 2:
        notes = ALONE
    return row | {"fewest_positives": few, "note": notes}


def _costs(before: TaskView, after: TaskView) -> list[dict[str, Any]]:
    """The AUROC once, and the accuracy at one threshold once and by each attribute's own."""
    rows, seen = [], set()
    for one, other in _paired(before, after):
        kind = "AUROC" if one.gap == "delta-AUC" else "accuracy" if one.gap == WORST else ""
        of = f", {one.threshold}" if one.threshold else ""
        title = f"{kind}{of}" + (f" of {one.attribute}" if one.threshold == OWN else "")
        pooled = one.threshold == OWN and not (one.own or other.own)
        if not kind or title in seen or pooled:
            continue
        seen.add(title)
        change = overall_change(one.levels, other.levels)
        rows.append(
            {"what": title, **_overall("before", one.levels), **_overall("after", other.levels)}
            | {f"change_{k}": v for k, v in change._asdict().items()}
        )
    return rows


def _overall(name: str, levels: Levels) -> dict[str, float]:
    low, high = overall_interval(levels)
    return {f"{name}_value": levels.overall, f"{name}_ci_low": low, f"{name}_ci_high": high}


def _fate_row(before: Line, after: Line) -> dict[str, Any] | None:
    if before.gap not in _FATES or np.isnan(before.spread.value):
        return None
    found = fate_of(before.levels, after.levels, before.gap, before.spread)
    title = f"{before.attribute}: {_FATES[before.gap]}"
    return {"of": title + (f", {before.threshold}" if before.threshold else ""), **found._asdict()}


def _lead(costs: pd.DataFrame, gaps: pd.DataFrame) -> str:
    """'AUROC 0.870, then 0.868. delta-EO, ...: sex 0.199, then 0.062 (by chance alone ...)'."""
    area = costs[costs["what"] == "AUROC"]
    words = [_then("AUROC", row, "value") + "." for _, row in area.iterrows()]
    ending = f": {WORST}, {ONE}"
    rows = gaps[gaps["gap"].str.endswith(ending) & gaps["before_value"].notna()]
    told = [
        f"{_then(row['gap'].removesuffix(ending), row, 'value')}"
        f" ({_then('by chance alone', row, 'null_mean')})"
        for _, row in rows.iterrows()
    ]
    if told:
        words.append(f"{WORST}, {ONE}: {'; '.join(told)}.")
    return " ".join(words)


def _then(name: str, row: Mapping[str, Any] | pd.Series, key: str) -> str:
    return f"{name} {number(row[f'before_{key}'])}, then {number(row[f'after_{key}'])}"


def _interval(table: pd.DataFrame, name: str) -> list[str]:
    """A column of values with their intervals, as text."""
    ends = table[[f"{name}_value", f"{name}_ci_low", f"{name}_ci_high"]].to_numpy(dtype=float)
    return ["undefined" if np.isnan(v) else with_interval(v, *lowhigh) for v, *lowhigh in ends]


def _excess(table: pd.DataFrame, name: str) -> list[str]:
    pairs = table[[f"{name}_excess", f"{name}_p_value"]].to_numpy(dtype=float)
    return [number(e) + (f" (p {p_text(p)})" if np.isfinite(p) else "") for e, p in pairs]


def _shown_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each gap; of an attribute without one, a single row that says why."""
    table = table.copy()
    alone = table["note"] == ALONE
    table.loc[alone, "gap"] = table["gap"].str.split(":").str[0] + ": every gap"
    table = table[~(alone & table["gap"].duplicated())]
    return pd.DataFrame(
        {
            "gap": table["gap"],
            "before [95 %]": _interval(table, "before"),
            "after [95 %]": _interval(table, "after"),
            "change [95 %]": _interval(table, "change"),
            "excess before": _excess(table, "before"),
            "excess after": _excess(table, "after"),
            "note": table["note"],
        }
    )


def _shown_costs(table: pd.DataFrame) -> pd.DataFrame:
    columns = {f"{name} [95 %]": _interval(table, name) for name in ("before", "after", "change")}
    return pd.DataFrame({"what": table["what"], **columns})


def _shown_fates(table: pd.DataFrame) -> pd.DataFrame:
    rows = table.to_dict("records")
    return pd.DataFrame(
        {
            "FATE": table["of"],
            "value [95 %]": [
                with_interval(row["value"], row["ci_low"], row["ci_high"])
                if row["stable"]
                else f"unstable ({number(row['value'])})"
                for row in rows
            ],
            "relative gain": table["gain"].map(number),
            "relative change of the gap": table["gap_change"].map(number),
        }
    )


def _front(task: str, views: Sequence[TaskView]) -> list[Block]:
    """Utility and gap of all runs: the AUROC with delta-EO, for each attribute."""
    tables = {}
    for attribute in views[0].frames:
        found = {view.run.name: _levels(view, attribute) for view in views}
        known = {name: pair for name, pair in found.items() if pair is not None}
        if len(known) > 1:
            areas, odds = ({n: pair[i] for n, pair in known.items()} for i in (0, 1))
            tables[attribute] = trade_off(areas, odds, WORST)
    if not tables:
        return []
    data = pd.concat([t.reset_index().assign(attribute=a) for a, t in tables.items()])
    shown = pd.DataFrame(
        {
            "attribute": data["attribute"],
            "run": data["model"],
            "AUROC [95 %]": _ends(data, "utility"),
            f"{WORST}, {ONE} [95 %]": _ends(data, "gap"),
            "excess": data["excess"].map(number),
            "on the front": np.where(data["on_front"], "yes", ""),
        }
    )
    name = f"_before_after.{slug(task)}.front"
    blocks: list[Block] = [Table(name, shown, _FRONT, data=data)]
    for attribute, table in tables.items() if len(views) > 2 else ():
        words = f"AUROC against delta-EO by {attribute}, a point for each run; bars: 95 %"
        blocks.append(Plot(f"{name}.{slug(attribute)}", trade_off_plot(table, attribute), words))
    return blocks


_FRONT = (
    "The front holds the runs that no other beats in AUROC and gap together, by value; intervals"
    " that overlap say how little that may mean. These are test patients: a model is chosen on"
    " validation."
)


def _levels(view: TaskView, attribute: str) -> tuple[Levels, Levels] | None:
    lines = {(x.gap, x.threshold): x for x in view.measured.lines if x.attribute == attribute}
    area, odds = lines.get(("delta-AUC", "")), lines.get((WORST, ONE))
    if area is None or odds is None or np.isnan(odds.spread.value):
        return None
    return area.levels, odds.levels


def _ends(table: pd.DataFrame, name: str) -> list[str]:
    ends = table[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float)
    return [with_interval(*row) for row in ends]
