"""Utility against a gap, one point for each run."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxfair.report import plots

__all__ = ["trade_off"]


def trade_off(table: pd.DataFrame, attribute: str) -> Figure:
    """Returns AUROC against delta-EO with 95 % bars; runs on the front are filled.

    Args:
      table: of `selection.trade_off`.
      attribute: whose gap.
    """
    figure, axes = plots.blank(4.2, 3.0)
    for i, (model, row) in enumerate(table.iterrows()):
        colour = plots.COLOURS[i % len(plots.COLOURS)]
        fill = colour if row["on_front"] else "none"
        axes.errorbar(
            row["gap"], row["utility"], xerr=_bars(row, "gap"), yerr=_bars(row, "utility"),
            fmt="o", markersize=5, color=colour, markerfacecolor=fill, label=plots.plain(model),
        )  # fmt: skip
    title = plots.plain(f"By {attribute} (filled: on the front)")
    axes.set(xlabel="delta-EO, worst case", ylabel="AUROC", title=title)
    axes.legend(fontsize=7, loc="best", frameon=False, labelcolor=plots.INK)
    return figure


def _bars(row: pd.Series, name: str) -> np.ndarray:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return np.nan_to_num([[max(row[name] - low, 0)], [max(high - row[name], 0)]])
