"""All runs of a label in one table: the AUROC with delta-EO, and whom no other run beats."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxfair.fairness.levels import Levels
from jaxfair.fairness.selection import trade_off
from jaxfair.files import slug
from jaxfair.report.cells import Cell, Number, number, with_interval
from jaxfair.report.content import Block, Plot, Table
from jaxfair.report.measured import ONE, WORST
from jaxfair.report.scatter import trade_off as trade_off_plot
from jaxfair.report.views import TaskView

__all__ = ["front_blocks"]


def front_blocks(task: str, views: Sequence[TaskView]) -> list[Block]:
    """Returns utility and gap of all runs: the AUROC with delta-EO, for each attribute."""
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
            "excess": data["excess"].map(Number),
            "on the front": np.where(data["on_front"], "yes", ""),
        }
    )
    name = f"_before_after.{slug(task)}.front"
    title = f"Gap against AUROC of all runs, {task}"
    blocks: list[Block] = [Table(name, shown, title, _FRONT, data, heads=2)]
    for attribute, table in tables.items() if len(views) > 2 else ():
        figure = trade_off_plot(table, attribute)
        blocks.append(Plot(f"{name}.{slug(attribute)}", figure, _alt(table, attribute)))
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


def _alt(table: pd.DataFrame, attribute: str) -> str:
    best = table.iloc[int(table["utility"].argmax())]
    even = table.iloc[int(table["gap"].argmin())]
    return (
        f"AUROC against delta-EO by {attribute}, a point for each run, bars 95 %: the highest AUROC"
        f" is {number(best['utility'])} ({best.name}), the smallest gap {number(even['gap'])}"
        f" ({even.name})"
    )


def _ends(table: pd.DataFrame, name: str) -> list[Cell]:
    ends = table[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float)
    return [with_interval(*row) for row in ends]
