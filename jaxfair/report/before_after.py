"""Before and after: how gaps changed from the first run to the others, and what that cost."""

import dataclasses
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
from jaxfair.fairness.groups import natural
from jaxfair.fairness.levels import Levels, overall_interval
from jaxfair.files import slug
from jaxfair.report.cells import Cell, Number, Quiet, number, p_text, with_interval
from jaxfair.report.content import Block, Section, Table, Text
from jaxfair.report.front import front_blocks
from jaxfair.report.measured import ALONE, ONE, OWN, WORST, Line
from jaxfair.report.views import TaskView

__all__ = ["Compared", "Pair", "before_after", "compared", "needed"]

_MOST = 3
"""Runs that are set beside the first one by one; of more, only the table of all."""

_FATES = {"delta-AUC": "FATE_AUC", WORST: "FATE_EO"}
_SHOWN = ("delta-AUC", WORST, "calibration: ECE, 15 bins", "calibration: squared error, debiased")


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two runs' gaps and costs in one label, the first of which is `before`.

    `gaps`, `costs` and `fates` hold numbers: a row for each gap, overall number, FATE.
    """

    before: TaskView
    after: TaskView
    gaps: pd.DataFrame
    costs: pd.DataFrame
    fates: pd.DataFrame


@dataclasses.dataclass(frozen=True)
class Compared:
    """One label of several runs: those that could be set beside the first, and why others not."""

    task: str
    views: Sequence[TaskView]
    paired: Sequence[TaskView]
    pairs: Sequence[Pair]
    refusals: Sequence[str]


def compared(views: Sequence[TaskView]) -> list[Compared]:
    """Returns each label that more than one run has; the first run is `before`."""
    found = []
    for task in sorted({view.task for view in views}, key=natural):
        same = [view for view in views if view.task == task]
        if len(same) > 1:
            found.append(_compared(task, same))
    return found


def before_after(found: Sequence[Compared], *, folded: bool = False) -> list[Section]:
    """Returns one section for each label: gaps before and after, and what they cost."""
    return [_section(one, folded) for one in found]


def _compared(task: str, views: Sequence[TaskView]) -> Compared:
    before, others = views[0], views[1:]
    paired, refusals = [], []
    for after in others:
        try:
            check_paired(before.measured.resamples, after.measured.resamples)
            paired.append(after)
        except InputError as error:
            refusals.append(f"{before.run.name} and {after.run.name}: {error}")
    pairs = [_pair(before, after) for after in paired] if len(others) <= _MOST else []
    return Compared(task, views, paired, pairs, refusals)


def _pair(before: TaskView, after: TaskView) -> Pair:
    lines = _paired(before, after)
    fates = [row for line in lines if (row := _fate_row(*line))]
    gaps = pd.DataFrame([_gap_row(*line) for line in lines])
    costs = pd.DataFrame(_costs(before, after))
    return Pair(before, after, gaps, costs, pd.DataFrame(fates))


def _section(one: Compared, folded: bool) -> Section:
    blocks: list[Block] = [Text(needed(one.views)), *map(Text, one.refusals)]
    for pair in one.pairs:
        blocks.extend(_shown(one.task, pair))
    if one.paired:
        blocks.extend(front_blocks(one.task, [one.views[0], *one.paired]))
    return Section(f"Before and after, {one.task}: gaps, and what they cost", blocks, folded)


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


def _shown(task: str, pair: Pair) -> list[Block]:
    before, after = pair.before, pair.after
    stem = f"_before_after.{slug(task, after.run.name)}"
    title = f"Before: {before.run.name}. After: {after.run.name}."
    costs = "What it cost, over all test images"
    blocks: list[Block] = [
        Text(f"{title} {_lead(pair.costs, pair.gaps)}", strong=True),
        Table(f"{stem}.gaps", _shown_gaps(pair.gaps), f"Gaps. {title}", _GAPS, pair.gaps),
        Table(f"{stem}.cost", _shown_costs(pair.costs), f"{costs}. {title}", data=pair.costs),
    ]
    if not same_validation(before.measured.resamples, after.measured.resamples):
        blocks.append(Text(_OTHERS))
    if len(pair.fates):
        shown = _shown_fates(pair.fates)
        blocks.append(Table(f"{stem}.fate", shown, f"FATE. {title}", _FATE, pair.fates))
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


def _interval(table: pd.DataFrame, name: str) -> list[Cell]:
    """A column of values with their intervals."""
    ends = table[[f"{name}_value", f"{name}_ci_low", f"{name}_ci_high"]].to_numpy(dtype=float)
    return [with_interval(*row) for row in ends]


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
                else Quiet(f"unstable ({number(row['value'])})")
                for row in rows
            ],
            "relative gain": table["gain"].map(Number),
            "relative change of the gap": table["gap_change"].map(Number),
        }
    )
