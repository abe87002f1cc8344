"""Figures of the report: matplotlib figures, and their bytes as PNG or inline SVG."""

import io
import re
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import sklearn.metrics
from matplotlib.figure import Figure

from jaxfair.fairness import metrics
from jaxfair.fairness.frame import GroupFrame

__all__ = ["COLOURS", "as_png", "as_svg", "histogram_by_group", "roc_by_group"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8860b")
"""Okabe and Ito's colours, told apart without red and green and on white and black."""

_INK = "#010203"
_STYLE: dict[Any, Any] = {
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.fonttype": "none",
}


def roc_by_group(rows: pd.DataFrame, attribute: str) -> Figure:
    """Returns the ROC curve of each group of `rows` (columns y_true, y_score and groups).

    A group with one class only has no curve, and its name says so.
    """
    frame = GroupFrame(rows, attribute, split=None)
    figure, axes = _axes(3.6, 3.6)
    for i, group in enumerate(frame.groups):
        part = frame.rows[frame.labels == group]
        value = metrics.auroc(part["y_true"], part["y_score"])
        if np.isnan(value):
            axes.plot([], [], color=_colour(i), label=f"{group} (one label only)")
            continue
        fpr, tpr, _ = sklearn.metrics.roc_curve(part["y_true"], part["y_score"])
        fpr, tpr = _thinned(fpr, tpr)
        axes.plot(fpr, tpr, color=_colour(i), linestyle=_dash(i), label=f"{group} {value:.3f}")
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.7)
    axes.set(xlabel="false-positive rate", ylabel="sensitivity", title=f"ROC by {attribute}")
    _legend(axes, len(frame.groups))
    return figure


def histogram_by_group(
    rows: pd.DataFrame, attribute: str, threshold: float | None = None
) -> Figure:
    """Returns score densities of normal (filled) and abnormal rows (line), a panel per group."""
    frame = GroupFrame(rows, attribute, split=None)
    shown = frame.groups[:16]
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(1.9 * columns + 0.6, 1.5 * lines + 0.5), layout="constrained")
        panels = np.atleast_1d(figure.subplots(lines, columns, sharex=True)).ravel()
        edges = np.histogram_bin_edges(frame.rows["y_score"], bins=30)
        for panel, group in zip(panels, shown, strict=False):
            part = frame.rows[frame.labels == group]
            _densities(panel, part, edges)
            panel.set_title(f"{group} (n {len(part)})", fontsize=8)
            if threshold is not None:
                panel.axvline(threshold, color=_INK, linewidth=0.8, linestyle=":")
            panel.set_yticks([])
        for panel in panels[len(shown) :]:
            panel.set_visible(False)
        panels[0].legend(fontsize=7)
        figure.supxlabel("score (dotted: threshold from validation)", fontsize=8)
    return figure


def as_png(figure: Figure) -> bytes:
    """Returns the figure as PNG on white, 150 dots per inch."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, facecolor="white")
    return stream.getvalue()


def as_svg(figure: Figure, name: str) -> str:
    """Returns an <svg> element for inlining: no background, ink in the page's text colour.

    `name` keeps the element ids of several figures in one page apart.
    """
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' height="[^"]*pt"', "", text, count=1)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)


def _axes(width: float, height: float) -> tuple[Figure, matplotlib.axes.Axes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()


def _densities(panel: matplotlib.axes.Axes, part: pd.DataFrame, edges: Any) -> None:
    styles: list[Any] = [(0, COLOURS[0], "stepfilled"), (1, COLOURS[1], "step")]
    for label, colour, style in styles:
        scores = part.loc[part["y_true"] == label, "y_score"]
        if len(scores):
            weights = np.full(len(scores), 1 / len(scores))
            name = "abnormal" if label else "normal"
            alpha = 1.0 if label else 0.45
            panel.hist(
                scores,
                edges,
                weights=weights,
                histtype=style,
                color=colour,
                alpha=alpha,
                label=name,
            )


def _thinned(x: np.ndarray, y: np.ndarray, limit: int = 300) -> tuple[np.ndarray, np.ndarray]:
    keep = np.unique(np.linspace(0, len(x) - 1, min(limit, len(x))).astype(int))
    return x[keep], y[keep]


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _dash(index: int) -> str:
    return ("-", "--", ":", "-.")[index // len(COLOURS) % 4]


def _legend(axes: matplotlib.axes.Axes, entries: int) -> None:
    axes.legend(fontsize=7 if entries < 8 else 5.5, loc="best", labelcolor=_INK)
