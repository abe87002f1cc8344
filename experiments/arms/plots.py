"""Plots of a study: what accuracy an arm keeps at which gap, and gaps beside chance."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.arms.cells import Arm
from jaxfair.fairness.selection import front
from jaxfair.report.plots import COLOURS

__all__ = ["gaps_figure", "on_front", "pareto_figure"]


def on_front(points: pd.DataFrame, utility: str = "AUROC", gap: str = "delta-EO") -> list[str]:
    """Returns the names that no other beats in one of the two without losing in the other.

    Args:
      points: index names; columns `utility`, the more the better, and `gap`, the less.
    """
    known = points.dropna(subset=[utility, gap])
    best = front(np.stack([known[utility], -known[gap]], axis=1))
    return [str(name) for name, kept in zip(known.index, best, strict=True) if kept]


def pareto_figure(
    table: pd.DataFrame, arms: Sequence[Arm], gap: str = "delta-EO", *, title: str = ""
) -> Figure:
    """Returns AUROC against the gap: a numbered point per arm and epsilon, filled on the front.

    Args:
      table: of `summary`, of one test set and one rule of thresholds.
      title: what the points are of; it says so where the images are drawn.
    """
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    run = [arm for arm in arms if arm.name in set(table["arm"])]
    for private, marker in ((False, "o"), (True, "s")):
        part = table[np.isfinite(table["epsilon"]) == private]
        wide = part.pivot_table(index="arm", columns="measure", values="mean")
        if not {"AUROC", gap} <= set(wide):
            continue
        best = on_front(wide, gap=gap)
        for place, arm in enumerate(run):
            if arm.name in wide.index:
                at = (wide.loc[arm.name, gap], wide.loc[arm.name, "AUROC"])
                _point(axes, at, marker, place, filled=arm.name in best)
    for place, arm in enumerate(run):
        axes.plot([], [], "o", color=_colour(place), label=f"{place + 1}  {arm.title}")
    axes.plot([], [], "o", color="black", markerfacecolor="none", label="without privacy")
    axes.plot([], [], "s", color="black", markerfacecolor="none", label="with privacy")
    axes.set_xlabel(f"{gap} (smaller is better)")
    axes.set_ylabel("AUROC; filled: no other is better in both")
    axes.set_title(title, fontsize=9)
    figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    return figure


def _point(axes: Axes, at: tuple[float, float], marker: str, place: int, *, filled: bool) -> None:
    colour = _colour(place)
    axes.plot(*at, marker, color=colour, markerfacecolor=colour if filled else "none")
    axes.annotate(str(place + 1), at, xytext=(5, 3), textcoords="offset points", fontsize=7)


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def gaps_figure(gaps: pd.DataFrame, measure: str = "delta-EO", *, title: str = "") -> Figure:
    """Returns a bar per arm beside what chance alone gives (mean, and 95 %).

    Args:
      gaps: of `tables.gaps_with_nulls`, the arm before mitigation first.
      title: as of `pareto_figure`.
    """
    part = gaps[gaps["measure"] == measure].reset_index(drop=True)
    figure = Figure(figsize=(6.4, 1.1 + 0.36 * max(len(part), 1)), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(part))
    axes.barh(place, part["value"], xerr=part["sd"], color=COLOURS[0], height=0.6)
    axes.plot(part["null_mean"], place, "|", color="black", markersize=14, label="chance, mean")
    axes.plot(part["null_95"], place, "|", color=COLOURS[1], markersize=14, label="chance, 95 %")
    axes.set_yticks(place, part["method"])
    axes.invert_yaxis()
    axes.set_xlabel(measure)
    axes.set_title(title, fontsize=9)
    figure.legend(loc="outside lower right", ncols=2, fontsize=7, frameon=False)
    return figure
