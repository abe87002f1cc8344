"""Figures of the report: matplotlib figures, and their bytes as PNG or inline SVG."""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import sklearn.metrics
from matplotlib.figure import Figure

from jaxfair.fairness import metrics
from jaxfair.fairness.frame import GroupFrame
from jaxfair.privacy.meaning import rounded_up

__all__ = [
    "COLOURS",
    "INK",
    "against_epsilon",
    "as_png",
    "as_svg",
    "blank",
    "gap_against_epsilon",
    "heat_map",
    "histogram_by_group",
    "plain",
    "reliability",
    "roc_by_group",
]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8860b")
"""Okabe and Ito's colours, told apart without red and green and on white and black."""

INK = "#010203"
"""Becomes the page's own text colour in an SVG."""
_STYLE: dict[Any, Any] = {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.fonttype": "none",
}


def roc_by_group(frame: GroupFrame) -> Figure:
    """Returns the ROC curve of each group that has enough patients.

    Groups without a curve are named: too few patients, or one label only.
    """
    figure, axes = blank(3.6, 3.6)
    for i, group in enumerate(frame.groups):
        part, small = frame.part(group), group in frame.hidden
        if small or part["y_true"].nunique() < 2:
            why = "too few" if small else "one label only"
            axes.plot([], [], color=_colour(i), label=plain(f"{group} ({why})"))
            continue
        value = metrics.auroc(part["y_true"], part["y_score"])
        fpr, tpr, _ = sklearn.metrics.roc_curve(part["y_true"], part["y_score"])
        fpr, tpr = _thinned(fpr, tpr)
        axes.plot(
            fpr, tpr, color=_colour(i), linestyle=_dash(i), label=plain(f"{group} {value:.3f}")
        )
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.7)
    title = plain(f"ROC by {frame.attribute}")
    axes.set(xlabel="false-positive rate", ylabel="sensitivity", title=title)
    _legend(axes, len(frame.groups))
    return figure


def histogram_by_group(frame: GroupFrame, threshold: float = np.nan) -> Figure:
    """Returns score densities of normal (filled) and abnormal rows (line), a panel per group."""
    shown = [group for group in frame.groups if group not in frame.hidden][:16]
    columns = max(1, min(4, len(shown)))
    lines = max(1, -(-len(shown) // columns))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(1.9 * columns + 0.6, 1.5 * lines + 0.5), layout="constrained")
        panels = np.atleast_1d(figure.subplots(lines, columns, sharex=True)).ravel()
        edges = np.histogram_bin_edges(frame.rows["y_score"], bins=30)
        for panel, group in zip(panels, shown, strict=False):
            part = frame.part(group)
            _densities(panel, part, edges)
            panel.set_title(plain(f"{group} (n {len(part)})"), fontsize=8)
            if np.isfinite(threshold):
                panel.axvline(threshold, color=INK, linewidth=0.8, linestyle=":")
            panel.set_yticks([])
        for panel in panels[len(shown) :]:
            panel.set_visible(False)
        if shown:
            panels[0].legend(fontsize=7, labelcolor=INK, frameon=False)
        figure.supxlabel("score (dotted: threshold from validation)", fontsize=8)
    return figure


def heat_map(headline: pd.DataFrame, attribute: str) -> Figure:
    """Returns the AUROC of each cell of an intersection; cells with too few stay empty.

    Args:
      headline: columns attribute, group, auroc (`report.headline`).
      attribute: 'sex x age_group'; the last part runs along x.
    """
    rows = headline[headline["attribute"] == attribute]
    parts = rows["group"].str.rsplit(" x ", n=1)
    table = pd.DataFrame({"y": parts.str[0], "x": parts.str[1], "auroc": rows["auroc"]})
    table = table.pivot(index="y", columns="x", values="auroc")
    figure, axes = blank(1.2 + 0.75 * table.shape[1], 1.1 + 0.45 * table.shape[0])
    values = table.to_numpy(dtype=float)
    axes.imshow(np.ma.masked_invalid(values), cmap="cividis", aspect="auto", vmin=0.5, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        known = np.isfinite(value)
        colour = INK if not known else "white" if value < 0.75 else "black"
        text = f"{value:.2f}" if known else "-"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(table.shape[1]), list(map(plain, table.columns)), fontsize=8)
    axes.set_yticks(range(table.shape[0]), list(map(plain, table.index)), fontsize=8)
    axes.set_title(plain(f"AUROC by {attribute} (-: too few)"), fontsize=9)
    return figure


def reliability(curves: Mapping[str, tuple[Any, Any, Any]]) -> Figure:
    """Returns observed share against mean probability, from `calibration.reliability`."""
    figure, axes = blank(3.6, 3.6)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.7)
    for i, (label, (_, truth, mean)) in enumerate(curves.items()):
        axes.plot(mean, truth, marker="o", markersize=3, color=_colour(i), label=plain(label))
    axes.set(xlabel="probability", ylabel="observed share", title="Calibration")
    _legend(axes, len(curves))
    return figure


def against_epsilon(points: pd.DataFrame) -> Figure:
    """Returns AUROC against epsilon, a panel per attribute and a line with band per group.

    Args:
      points: columns epsilon (infinite without DP), attribute, group, value, low, high.
    """
    attributes = points["attribute"].drop_duplicates().tolist()
    places = _places(points["epsilon"])
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.6 * len(attributes) + 0.4, 3.0), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(attributes), sharey=True))
        for panel, attribute in zip(panels, attributes, strict=True):
            part = points[points["attribute"] == attribute]
            for i, (group, rows) in enumerate(part.groupby("group")):
                rows = rows.groupby("epsilon")[["value", "low", "high"]].mean()
                x = [places[e] for e in rows.index]
                panel.plot(
                    x,
                    rows["value"],
                    marker="o",
                    markersize=3,
                    color=_colour(i),
                    label=plain(group),
                )
                panel.fill_between(x, rows["low"], rows["high"], color=_colour(i), alpha=0.15)
            _epsilon_axis(panel, places)
            panel.set_title(plain(attribute), fontsize=9)
            panel.legend(fontsize=6, labelcolor=INK, frameon=False)
        panels[0].set_ylabel("AUROC")
    return figure


def gap_against_epsilon(points: pd.DataFrame) -> Figure:
    """Returns max-min gaps against epsilon; dashes: the 95th percentile of chance alone.

    Args:
      points: columns epsilon, attribute, value, null_95.
    """
    places = _places(points["epsilon"])
    figure, axes = blank(4.2, 3.0)
    for i, (attribute, rows) in enumerate(points.groupby("attribute", sort=False)):
        rows = rows.groupby("epsilon")[["value", "null_95"]].mean()
        x = [places[e] for e in rows.index]
        axes.plot(
            x, rows["value"], marker="o", markersize=3, color=_colour(i), label=plain(attribute)
        )
        axes.plot(x, rows["null_95"], linestyle="--", linewidth=0.8, color=_colour(i))
    _epsilon_axis(axes, places)
    axes.set(ylabel="max-min AUROC", title="Gap (dashed: 95 % of chance alone)")
    _legend(axes, 4)
    return figure


def as_png(figure: Figure) -> bytes:
    """Returns the figure as PNG on white, 120 dots per inch."""
    stream = io.BytesIO()
    with _any_letters():
        figure.savefig(stream, format="png", dpi=120, facecolor="white")
    figure.set_layout_engine("none")  # Its places are found; finding them again is slow.
    return stream.getvalue()


def as_svg(figure: Figure, name: str) -> str:
    """Returns an <svg> element for inlining: no background, ink in the page's text colour.

    `name` keeps the element ids of several figures in one page apart.
    """
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}), _any_letters():
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    figure.set_layout_engine("none")
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' height="[^"]*pt"', "", text, count=1)
    return re.sub(r' width="([^"]*pt)"', r' style="width: \1"', text, count=1)


@contextlib.contextmanager
def _any_letters() -> Iterator[None]:
    """Letters that the font lacks are boxes in a PNG and right in a browser: no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def plain(text: Any) -> str:
    """Returns a name as it is: "$" begins no formula, a leading "_" hides nothing in a legend."""
    text = str(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def blank(width: float, height: float) -> tuple[Figure, matplotlib.axes.Axes]:
    """Returns an empty figure of so many inches in the report's style, and its axes."""
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


def _places(epsilons: pd.Series) -> dict[float, int]:
    """Evenly spaced places; no DP comes last."""
    return {epsilon: i for i, epsilon in enumerate(sorted(set(epsilons)))}


def _epsilon_axis(axes: matplotlib.axes.Axes, places: Mapping[float, int]) -> None:
    names = ["no DP" if np.isinf(e) else rounded_up(e) for e in places]
    axes.set_xticks(list(places.values()), names)
    axes.set_xlim(-0.4, max(places.values()) + 0.4)
    axes.set_xlabel("epsilon")


def _thinned(x: np.ndarray, y: np.ndarray, limit: int = 300) -> tuple[np.ndarray, np.ndarray]:
    keep = np.unique(np.linspace(0, len(x) - 1, min(limit, len(x))).astype(int))
    return x[keep], y[keep]


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _dash(index: int) -> str:
    return ("-", "--", ":", "-.")[index // len(COLOURS) % 4]


def _legend(axes: matplotlib.axes.Axes, entries: int) -> None:
    axes.legend(fontsize=7 if entries < 8 else 5.5, loc="best", labelcolor=INK, frameon=False)
