"""Forest plots: every group that can be compared, with its interval."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxfair.fairness.contrasts import MIRRORED
from jaxfair.fairness.groups import OVERALL
from jaxfair.files import slug
from jaxfair.report import plots
from jaxfair.report.cells import name, number, short
from jaxfair.report.content import Plot
from jaxfair.report.views import TaskView
from jaxfair.report.worse import more_of_100

__all__ = ["forest_plots"]

_MOST = 40
"""Groups in one plot; of more, those with the lowest values."""
_RUNS = 4


def forest_plots(views: Sequence[TaskView]) -> list[Plot]:
    """Returns the AUROC of each comparable group, of up to four runs of one label side by side.

    Of one run also how many more of 100 each group misses than all others; [] where no group can
    be compared.
    """
    views = views[:_RUNS]
    tables = [_areas(view) for view in views]
    if all(len(table) < 2 for table in tables):
        return []
    names = [slug(view.run.name, view.task) for view in views]
    figure = _areas_figure([view.run.name for view in views], tables)
    found = [Plot(f"{names[0]}.forest", figure, _areas_alt(views, tables))]
    if len(views) == 1 and len(missed := _missed(views[0])):
        figure = _missed_figure(missed)
        found.append(Plot(f"{names[0]}.missed_more", figure, _missed_alt(missed)))
    return found


def _areas(view: TaskView) -> pd.DataFrame:
    """Columns title, value, low, high, flagged: all together first, then the groups."""
    table = view.headline[view.headline["auroc"].notna()]
    groups = table[table["attribute"] != OVERALL]
    if len(groups) > _MOST:
        kept = groups.nsmallest(_MOST, "auroc").index
        table = table[(table["attribute"] == OVERALL) | table.index.isin(kept)]
    return pd.DataFrame(
        {
            "title": [_title(a, g) for a, g in table[["attribute", "group"]].to_numpy()],
            "value": table["auroc"].to_numpy(),
            "low": table["auroc_low"].to_numpy(),
            "high": table["auroc_high"].to_numpy(),
            "flagged": table["flagged"].to_numpy(),
        }
    )


def _title(attribute: str, group: str) -> str:
    """'sex: F'; of an intersection the group says enough."""
    return group if " x " in attribute else name(attribute, group)


def _areas_figure(runs: Sequence[str], tables: Sequence[pd.DataFrame]) -> Figure:
    titles = list(dict.fromkeys(title for table in tables for title in table["title"]))
    figure, axes = _blank(titles, len(tables))
    for i, (run, table) in enumerate(zip(runs, tables, strict=True)):
        shift = 0.6 * ((i + 0.5) / len(tables) - 0.5)
        places = np.array([titles.index(title) for title in table["title"]]) + shift
        colour = plots.COLOURS[i]
        _points(axes, table, places, colour, run if len(tables) > 1 else None)
        axes.axvline(table["value"].iloc[0], color=colour, linewidth=0.7, linestyle=":")
    axes.set(xlabel="AUROC, 95 % (dotted: all)")
    if len(tables) > 1:
        _legend(axes, len(tables))
    return figure


def _areas_alt(views: Sequence[TaskView], tables: Sequence[pd.DataFrame]) -> str:
    told = []
    for view, table in zip(views, tables, strict=True):
        groups = table[1:]
        if not len(groups):
            continue
        low, high = (
            groups.iloc[int(i)] for i in (groups["value"].argmin(), groups["value"].argmax())
        )
        told.append(
            f"{view.run.name}: all {number(table['value'].iloc[0])}, lowest {low['title']}"
            f" {number(low['value'])}, highest {high['title']} {number(high['value'])}"
        )
    worse = any(table["flagged"].any() for table in tables)
    mark = ". Squares: found worse than the rest, in any statistic" if worse else ""
    return f"AUROC of {views[0].task} by group with 95 % intervals. {'; '.join(told)}{mark}"


def _missed(view: TaskView) -> pd.DataFrame:
    """Columns title, value, low, high, flagged, told: how many more of 100 a group misses."""
    table = view.contrasts
    rows = table[
        (table["statistic"] == "sensitivity")
        & table["difference"].notna()
        & table["ci_low"].notna()
        & (table["why"] != MIRRORED)
    ]
    return pd.DataFrame(
        {
            "title": [_title(a, g) for a, g in rows[["attribute", "group"]].to_numpy()],
            "value": -100 * rows["difference"].to_numpy(dtype=float),
            "low": -100 * rows["ci_high"].to_numpy(dtype=float),
            "high": -100 * rows["ci_low"].to_numpy(dtype=float),
            "flagged": rows["flagged"].to_numpy(dtype=bool),
            "told": [more_of_100(row) for row in rows.to_dict("records")],
        }
    ).sort_values("value", ascending=False, kind="stable", ignore_index=True)[:_MOST]


def _missed_figure(table: pd.DataFrame) -> Figure:
    figure, axes = _blank(list(table["title"]), 1)
    _points(axes, table, np.arange(len(table)), plots.COLOURS[0], None)
    axes.axvline(0, color="#999999", linewidth=0.7)
    axes.set(xlabel="more missed of 100 than the rest, 95 %")
    return figure


def _missed_alt(table: pd.DataFrame) -> str:
    worst, flagged = table.iloc[0], list(table.loc[table["flagged"], "title"])
    found = f"found worse: {', '.join(flagged)}" if flagged else "no group was found worse"
    return (
        "How many more of 100 with the finding are missed in each group than in all others, with"
        f" 95 % intervals. Most: {worst['title']} {worst['told']}; {found}"
    )


def _blank(titles: Sequence[str], series: int) -> tuple[Figure, Axes]:
    step = 0.2 + 0.08 * (series - 1)
    figure, axes = plots.blank(3.85, 0.75 + step * len(titles) + 0.18 * (series > 1) * series)
    axes.set_yticks(range(len(titles)), [plots.plain(short(title, 26)) for title in titles])
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.set_ylim(len(titles) - 0.4, -0.6)
    axes.xaxis.label.set_fontsize(8)
    return figure, axes


def _points(
    axes: Axes, table: pd.DataFrame, places: np.ndarray, colour: str, label: str | None
) -> None:
    """Points with intervals; what was found worse is a filled square of another colour."""
    ends = table[["low", "high"]].to_numpy(dtype=float)
    errors = np.nan_to_num(np.abs(ends - table[["value"]].to_numpy(dtype=float))).T
    for flagged, mark, own in ((False, "o", colour), (True, "s", "#d55e00")):
        use = table["flagged"].to_numpy(dtype=bool) == flagged
        if use.any():
            axes.errorbar(
                table["value"][use], places[use], xerr=errors[:, use], fmt=mark, markersize=4,
                color=own if label is None else colour, linewidth=1.2,
                label=None if label is None or flagged else plots.plain(short(label)),
            )  # fmt: skip


def _legend(axes: Axes, entries: int) -> None:
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.4, 1), frameon=False,
                labelcolor=plots.INK, ncols=1 if entries > 2 else entries)  # fmt: skip
