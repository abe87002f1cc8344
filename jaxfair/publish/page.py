"""The page of a release: one HTML file without scripts, of noisy numbers alone.

It is made from page.html by jinja2, which escapes every text; page.css goes into it.
"""

import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup

from jaxfair.privacy.meaning import risk_words, rounded_up
from jaxfair.publish.asking import Histogram
from jaxfair.schema import COUPLED, PHANTOM

__all__ = ["page"]

_FOLDER = pathlib.Path(__file__).parent
_TITLE = "Evaluation by subgroup, with differential privacy"
_METRICS = {
    "auroc": "AUROC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "prevalence": "prevalence",
}
_READ = (
    "Each cell: the value and its 95 % interval, which holds the chance of drawing these patients "
    "and the noise. Each patient counts once, however many images there are. Rates are at one "
    "threshold, taken from noisy counts of validation patients. Counts are noisy, and groups with "
    "too few are left out by the noisy count alone. Differences are of a group minus the other "
    "groups that are shown. AUROC is corrected for pairs of scores in one bin, by the amount in "
    "tables.csv."
)


class _Line(NamedTuple):
    """A row of a table: a group, or its difference from the others."""

    name: str
    patients: str
    cells: list[str]


class _Table(NamedTuple):
    """The groups of one attribute."""

    attribute: str
    lines: list[_Line]


class _Task(NamedTuple):
    """A label: where its threshold lies, and its tables."""

    name: str
    threshold: float
    tables: list[_Table]


def page(
    shown: pd.DataFrame, found: Mapping[str, Mapping[str, Histogram]], statement: Mapping[str, Any]
) -> str:
    """Returns the page as HTML.

    Args:
      shown: tables.csv.
      found: label -> attribute -> noisy histogram.
      statement: of the release.
    """
    tasks = [
        _Task(str(task), _threshold(found[str(task)]), _tables(rows))
        for task, rows in shown.groupby("task", sort=False)
    ]
    text = _template().render(
        title=_TITLE,
        style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        phantom=statement["data"] == PHANTOM,
        lines=[*_lines(statement), _READ],
        metrics=list(_METRICS.values()),
        tasks=tasks,
    )
    return text + "\n"


@functools.cache
def _template() -> jinja2.Template:
    """page.html; autoescape is on, and what is undefined raises."""
    room = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return room.get_template("page.html")


def _threshold(histograms: Mapping[str, Histogram]) -> float:
    """The lowest score that is positive; all attributes of a label have the same."""
    first = next(iter(histograms.values()))
    return float(first.edges[first.at - 1])


def _lines(told: Mapping[str, Any]) -> list[str]:
    """Who is protected and how well, and who is not."""
    lines = [
        f"Protected: {told['covered']}. Epsilon {rounded_up(told['epsilon'])}, delta"
        f" {rounded_up(told['delta'])} (budget {rounded_up(told['budget'])}), all releases under"
        " one ledger together, up to this one.",
        risk_words(told["true_positive_rates"], told["unit"]),
        f"A later release about the same people adds to this: one more like it makes epsilon"
        f" {rounded_up(told['epsilon_after_another'])}. The ledger adds up what is released under"
        " it; what is released under another adds to the risk, and nothing adds it up.",
    ]
    training = told["training"]
    if training["epsilon"] is None:
        lines.append(
            "Training patients are not protected: the model was trained without privacy, and these"
            " numbers are functions of it."
        )
    else:
        lines.append(
            f"Training patients are protected by the claim of the model itself: epsilon"
            f" {rounded_up(training['epsilon'])}, delta {rounded_up(training['delta'])}, unit"
            f" {training['unit']}."
        )
    if told["noise_source"] != "os":
        lines.append("Research grade, not private: the noise comes from a seed that is known.")
    if told["selection"] == COUPLED:
        lines.append("Guarantee for the selected table only: patients were counted to choose it.")
    return lines


def _tables(rows: pd.DataFrame) -> list[_Table]:
    return [
        _Table(str(attribute), [line for group, part in of.groupby("group", sort=False)
                                for line in _group(str(group), part)])
        for attribute, of in rows.groupby("attribute", sort=False)
    ]  # fmt: skip


def _group(name: str, part: pd.DataFrame) -> list[_Line]:
    """A group, and below it how it differs where it was compared."""
    rows = part.set_index("metric")
    patients = rows["patients"].iloc[0]
    count = "too few" if pd.isna(patients) else f"{patients:,.0f}"
    lines = [_Line(name, count, _cells(rows, list(_METRICS)))]
    gaps = [f"gap_{metric}" for metric in _METRICS]
    if set(gaps) & set(rows.index):
        lines.append(_Line(f"{name}: difference", "", _cells(rows, gaps)))
    return lines


def _cells(rows: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    return [_cell(rows, metric) for metric in metrics]


def _cell(rows: pd.DataFrame, metric: str) -> str:
    if metric not in rows.index:
        return "not shown"
    line: Any = rows.loc[metric]
    value, low, high = (float(line[name]) for name in ("value", "ci_low", "ci_high"))
    if math.isnan(value):
        return "not shown"
    low, high = math.floor(low * 1000) / 1000, math.ceil(high * 1000) / 1000
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
