"""The thesis's figures with intervals: groups and their gap over the composition of training."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxfair.report.plots import COLOURS

__all__ = ["gaps_figure", "levels_figure"]

PLAIN = math.inf
_DASHES = ("-", "--", "-.", ":")


def levels_figure(rows: pd.DataFrame, pair: Sequence[str], metric: str, title: str) -> Figure:
    """Returns each group over the share of A, with regression lines; a panel per epsilon.

    Args:
      rows: of `Tables.levels`, of one detector, attribute, split and metric.
      pair: groups A and B.
      metric: of the axis.
      title: whose data it is.
    """
    epsilons = sorted(set(rows["epsilon"]), reverse=True)
    figure = Figure(figsize=(2.6 * len(epsilons) + 0.6, 3.0), layout="constrained")
    figure.suptitle(title, fontsize=9)
    panels = np.atleast_1d(figure.subplots(1, len(epsilons), sharey=True))
    for axes, epsilon in zip(panels, epsilons, strict=True):
        for place, group in enumerate(pair):
            part = rows[(rows["epsilon"] == epsilon) & (rows["group"] == group)]
            _with_bars(axes, part.sort_values("share"), COLOURS[place], "o", group)
            _line(axes, part, COLOURS[place])
        axes.set_title(named(epsilon), fontsize=8)
        axes.set_xlabel(f"share of {pair[0]} in training")
    panels[0].set_ylabel(metric)
    panels[0].legend(fontsize=7, frameon=False)
    return figure


def gaps_figure(rows: pd.DataFrame, pair: Sequence[str], metric: str, title: str) -> Figure:
    """Returns A - B over the share of A, a line per epsilon, and what chance gives in 95 %.

    Points of one share stand side by side, so that their intervals can be told apart.

    Args:
      rows: of `Tables.gaps`, of one detector, attribute, split and metric.
      pair, metric, title: as of `levels_figure`.
    """
    figure = Figure(figsize=(6.0, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=9)
    epsilons = sorted(set(rows["epsilon"]), reverse=True)
    for place, epsilon in enumerate(epsilons):
        part = rows[rows["epsilon"] == epsilon].sort_values("share")
        part = part.assign(share=part["share"] + 0.012 * (place - (len(epsilons) - 1) / 2))
        dash = _DASHES[place % len(_DASHES)]
        _with_bars(axes, part, COLOURS[place % len(COLOURS)], dash, named(epsilon))
    axes.axhline(0, color="black", linewidth=0.6)
    if "null_95" in rows and rows["null_95"].notna().any():
        edge = float(rows["null_95"].max())
        axes.axhspan(-edge, edge, color="0.9", zorder=0, label="within chance (95 %)")
    axes.set_xlabel(f"share of {pair[0]} in training")
    axes.set_ylabel(f"{metric}: {pair[0]} - {pair[1]}")
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def named(epsilon: float) -> str:
    """Returns how an epsilon is called."""
    return "without privacy" if epsilon == PLAIN else f"epsilon {epsilon:g}"


def _with_bars(axes: Axes, part: pd.DataFrame, colour: str, form: str, label: str) -> None:
    if part.empty:
        return
    value = part["value"].to_numpy()
    ends = part[["ci_low", "ci_high"]].to_numpy()
    bars = np.abs(np.nan_to_num(ends - value[:, None])).T
    form = f"o{form}" if form != "o" else form
    axes.errorbar(
        part["share"], value, yerr=bars, fmt=form, color=colour, label=label,
        markersize=3.5, linewidth=1, capsize=2,
    )  # fmt: skip


def _line(axes: Axes, part: pd.DataFrame, colour: str) -> None:
    if len(part) >= 2:
        slope, start = np.polyfit(part["share"], part["value"], 1)
        ends = np.array([part["share"].min(), part["share"].max()])
        axes.plot(ends, start + slope * ends, ":", color=colour, linewidth=1)
