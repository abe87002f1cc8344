"""Plots of a study: what accuracy an arm keeps at which gap, and gaps beside chance."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.arms.cells import PLAIN, Arm
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


def pareto_figure(table: pd.DataFrame, arms: Sequence[Arm], gap: str = "delta-EO") -> Figure:
    """Returns AUROC against the gap: a point per arm and epsilon, filled on the front.

    Args:
      table: of `summary`, of one test set and one rule of thresholds.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for epsilon, marker in ((PLAIN, "o"), (None, "s")):
        private = epsilon is None
        part = table[np.isfinite(table["epsilon"]) == private]
        wide = part.pivot_table(index="arm", columns="measure", values="mean")
        if not {"AUROC", gap} <= set(wide):
            continue
        best = on_front(wide, gap=gap)
        for place, arm in enumerate(a for a in arms if a.name in wide.index):
            x, y = wide.loc[arm.name, gap], wide.loc[arm.name, "AUROC"]
            colour = COLOURS[place % len(COLOURS)]
            face = colour if arm.name in best else "none"
            axes.plot(x, y, marker, color=colour, markerfacecolor=face)
            axes.annotate(arm.title, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.set_xlabel(f"{gap} (smaller is better); circles without privacy, squares with")
    axes.set_ylabel("AUROC; filled: no other is better in both")
    return figure


def gaps_figure(gaps: pd.DataFrame, measure: str = "delta-EO") -> Figure:
    """Returns a bar per arm beside what chance alone gives (mean, and 95 %).

    Args:
      gaps: of `tables.gaps_with_nulls`, the arm before mitigation first.
    """
    part = gaps[gaps["measure"] == measure].reset_index(drop=True)
    figure = Figure(figsize=(6.4, 0.6 + 0.36 * max(len(part), 1)), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(part))
    axes.barh(place, part["value"], xerr=part["sd"], color=COLOURS[0], height=0.6)
    axes.plot(part["null_mean"], place, "|", color="black", markersize=14, label="chance, mean")
    axes.plot(part["null_95"], place, "|", color=COLOURS[1], markersize=14, label="chance, 95 %")
    axes.set_yticks(place, part["method"])
    axes.invert_yaxis()
    axes.set_xlabel(measure)
    axes.legend(fontsize=7, frameon=False)
    return figure
