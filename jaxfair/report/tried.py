"""The plot of what a search tried: its runs' scores against each setting. It stays in-house."""

import pandas as pd
from matplotlib.figure import Figure

from jaxfair.report.plots import COLOURS, as_png

__all__ = ["plot_of_tried"]

NOTICE = "Not covered by any guarantee: for who searched, not for publication."


def plot_of_tried(table: pd.DataFrame, score: str) -> bytes:
    """Returns a PNG: one panel for each setting, one dot for each run, the best one filled.

    Args:
      table: `score`, best first, and a column for each setting.
      score: what the score is, in words.
    """
    names = [name for name in table.columns if name != "score"]
    figure = Figure(figsize=(3.2 * len(names), 3.0), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names):
        values = table[name]
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            if values.nunique() > 2 and values.min() > 0:
                axes.set_xscale("log")
        else:
            values = values.astype(str)
        axes.scatter(values, table["score"], s=24, facecolors="none", edgecolors=COLOURS[0])
        axes.scatter(values[:1], table["score"][:1], s=36, color=COLOURS[1], label="chosen")
        axes.set_xlabel(name)
    panels[0].set_ylabel(score)
    panels[0].legend(loc="best", frameon=False)
    figure.suptitle(NOTICE, fontsize=8)
    return as_png(figure)
