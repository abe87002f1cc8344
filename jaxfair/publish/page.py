"""The page of a release: one HTML file without scripts, of noisy numbers alone."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from jaxfair.privacy.meaning import risk_words, rounded_up
from jaxfair.publish.asking import Histogram
from jaxfair.schema import COUPLED, PHANTOM

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; font-weight: 600; padding: .5rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8888; text-align: right; }
th { text-align: left; font-weight: 600; }
"""
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
    "groups that are shown."
)


def page(
    shown: pd.DataFrame, found: Mapping[str, Mapping[str, Histogram]], statement: Mapping[str, Any]
) -> str:
    """Returns the page as HTML.

    Args:
      shown: tables.csv.
      found: label -> attribute -> noisy histogram.
      statement: of the release.
    """
    parts = [f"<p>{_text(line)}</p>" for line in _lines(statement)] + [f"<p>{_text(_READ)}</p>"]
    for task, rows in shown.groupby("task", sort=False):
        edge = next(iter(found[str(task)].values()))
        threshold = edge.edges[edge.at - 1]
        parts.append(
            f"<h2>{_text(task)}</h2><p>Positive at a score of {threshold:.4g} or more.</p>"
        )
        parts += [_table(str(name), part) for name, part in rows.groupby("attribute", sort=False)]
    title = "Evaluation by subgroup, with differential privacy"
    phantom = "PHANTOM data. " if statement["data"] == PHANTOM else ""
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>"
    )
    return f"{head}<h1>{phantom}{title}</h1>{''.join(parts)}</main></body></html>\n"


def _lines(told: Mapping[str, Any]) -> list[str]:
    """Who is protected and how well, and who is not."""
    lines = [
        f"Protected: {told['covered']}. Epsilon {rounded_up(told['epsilon'])}, delta"
        f" {rounded_up(told['delta'])} (budget {rounded_up(told['budget'])}, all"
        " releases under one ledger together).",
        risk_words(told["true_positive_rates"], told["unit"]),
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


def _table(attribute: str, rows: pd.DataFrame) -> str:
    body = [_row(str(group), part) for group, part in rows.groupby("group", sort=False)]
    cells = "".join(f'<th scope="col">{title}</th>' for title in _METRICS.values())
    head = f'<tr><th scope="col">group</th><th scope="col">patients</th>{cells}</tr>'
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{_text(attribute)}</caption>'
        f"<thead>{head}</thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _row(group: str, part: pd.DataFrame) -> str:
    rows = part.set_index("metric")
    patients = rows["patients"].iloc[0]
    count = "too few" if pd.isna(patients) else f"{patients:,.0f}"
    own = _cells(rows, list(_METRICS))
    lines = [f'<tr><th scope="row">{_text(group)}</th><td>{count}</td>{own}</tr>']
    gaps = [f"gap_{name}" for name in _METRICS]
    if set(gaps) & set(rows.index):
        lines.append(
            f'<tr><th scope="row">{_text(group)}: difference</th><td></td>{_cells(rows, gaps)}</tr>'
        )
    return "".join(lines)


def _cells(rows: pd.DataFrame, metrics: Sequence[str]) -> str:
    return "".join(f"<td>{_cell(rows, metric)}</td>" for metric in metrics)


def _cell(rows: pd.DataFrame, metric: str) -> str:
    if metric not in rows.index:
        return "not shown"
    line: Any = rows.loc[metric]
    value, low, high = (float(line[name]) for name in ("value", "ci_low", "ci_high"))
    if math.isnan(value):
        return "not shown"
    low, high = math.floor(low * 1000) / 1000, math.ceil(high * 1000) / 1000
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _text(text: object) -> str:
    return html.escape(str(text))
