"""The first page of a report of several labels: each label's gaps in one table, and test time."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from jaxfair.fairness.groups import natural
from jaxfair.report.before_after import needed
from jaxfair.report.cells import Cell, Number, number, p_text, with_interval
from jaxfair.report.content import Block, Section, Table, Text
from jaxfair.report.measured import ALONE, ONE, OWN, WORST, Line
from jaxfair.report.views import TaskView

__all__ = ["glance"]

_WORDS = (
    "delta-EO: the larger of the gaps of TPR and TNR, at the threshold where |TPR - TNR| is"
    " smallest on validation, one for all; then with a threshold for each group, where any has its"
    " own. By chance alone: the mean where patients exchange groups; p tests what is above it."
    " Intervals of what changed between runs are below."
)


def glance(views: Sequence[TaskView]) -> Section:
    """Returns what each run needs, and a row for each label, attribute and run with a gap."""
    pairs = [(view, a) for view in views for a in view.frames if " x " not in a]
    lines = [(view, {(x.gap, x.threshold): x for x in view.measured.lines if x.attribute == a}, a)
             for view, a in pairs]  # fmt: skip
    rows = [_row(view, a, found) for view, found, a in lines if _told(found)]
    rows.sort(
        key=lambda row: (natural(row["label"]), natural(row["attribute"]))
    )  # runs stay in order
    blocks: list[Block] = [Text(needed(views), strong=True)]
    if rows:
        title = "Gaps of every label, attribute and run"
        blocks.append(Table("_glance", pd.DataFrame(rows), title, _WORDS, heads=3))
    blocks += [
        Text(line) for line in _missing([(v, a) for v, found, a in lines if not _told(found)])
    ]
    return Section("At a glance: gaps of every label", blocks)


def _told(found: Mapping[tuple[str, str], Line]) -> bool:
    return len(found["delta-AUC", ""].levels.groups) > 1


def _row(view: TaskView, attribute: str, found: Mapping[tuple[str, str], Line]) -> dict[str, Any]:
    area, one, own = found["delta-AUC", ""], found[WORST, ONE], found[WORST, OWN]
    return {
        "label": view.task,
        "attribute": attribute,
        "run": view.run.name,
        "AUROC": Number(area.levels.overall),
        "delta-AUC [95 %]": _gap(area),
        "delta-EO [95 %]": _gap(one),
        "by chance alone (p)": _chance(one),
        "delta-EO, a threshold per group": _gap(own) if own.own else "",
        "note": one.note,
    }


def _gap(line: Line) -> Cell:
    return with_interval(*line.spread[:3])


def _chance(line: Line) -> str:
    p = p_text(line.spread.p_value)
    return number(line.spread.null_mean) + (f" ({p})" if p else "")


def _missing(pairs: Sequence[tuple[TaskView, str]]) -> list[str]:
    """'Without a gap, since fewer than two groups ...: sex (a, b), race (b).'"""
    by: dict[str, list[str]] = {}
    for view, attribute in pairs:
        by.setdefault(attribute, []).append(view.task)
    told = [f"{a} ({', '.join(dict.fromkeys(tasks))})" for a, tasks in by.items()]
    return [f"Without a gap, since {ALONE}: {'; '.join(told)}."] if told else []
