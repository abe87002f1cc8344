"""What validation and test patients gave, as it may lie in a model file for the house.

No guarantee covers any of it. Thresholds of groups that have none of their own are the pooled ones
and are left out; values of groups that a report hides are left out; counts are rounded.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.groups import OVERALL
from jaxfair.fairness.thresholds import GROUP_RULES, STORED

__all__ = ["METRICS", "measured", "people", "performance", "ranges", "thresholds"]

METRICS = ("auroc", "sensitivity", "specificity")
FEW = 10
"""Counts below it are not told, and others are rounded to it, so that none follows from a sum."""
LEAST = 100
"""Fewer images than this have no range."""
TAILS = (0.005, 0.995)


def thresholds(fitted: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns task -> rule -> threshold, and `groups` of those with thresholds of their own.

    Args:
      fitted: as thresholds.json holds.
    """
    return {task: _kept(entry, STORED) | _own(entry) for task, entry in fitted.items()}


def _own(entry: Mapping[str, Any]) -> dict[str, Any]:
    groups = {
        attribute: {g: _kept(told, GROUP_RULES) for g, told in values.items() if told["own"]}
        for attribute, values in entry.get("groups", {}).items()
    }
    return {"groups": {attribute: values for attribute, values in groups.items() if values}}


def _kept(entry: Mapping[str, Any], rules: Sequence[str]) -> dict[str, Any]:
    return {rule: entry[rule] for rule in rules if rule in entry}


def performance(fairness: pd.DataFrame, predictions: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns METRICS of every group on test patients, as the report has them.

    Args:
      fairness: the table of fairness.csv.
      predictions: of the run.

    Returns:
      task, attribute, group, metric, value, ci_low, ci_high (None where undefined, or where the
      report hides them) and `too_few`.
    """
    shown = fairness[fairness["metric"].isin(METRICS)]
    hidden = set(_hidden(shown, predictions))
    rows = []
    for row in shown.to_dict("records"):
        few = (row["task"], row["attribute"], row["group"]) in hidden
        numbers = {name: None if few or pd.isna(row[name]) else float(row[name])
                   for name in ("value", "ci_low", "ci_high")}  # fmt: skip
        words = {name: row[name] for name in ("task", "attribute", "group", "metric")}
        rows.append(words | numbers | {"too_few": few})
    return rows


def _hidden(shown: pd.DataFrame, predictions: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    pairs = shown[["task", "attribute"]].drop_duplicates().itertuples(index=False)
    for task, attribute in pairs:
        frame = GroupFrame(predictions[predictions["task"] == task], attribute)
        groups = frame.too_few if attribute == OVERALL else frame.hidden
        yield from ((task, attribute, group) for group in groups)


def people(predictions: pd.DataFrame, attributes: Sequence[str]) -> list[dict[str, str]]:
    """Returns how many images validated and tested, by attribute: rounded, small ones untold.

    >>> sexes = ["F"] * 21 + ["M"] * 3
    >>> table = pd.DataFrame({"image_id": range(24), "split": "test", "sex": sexes})
    >>> [row["images"] for row in people(table, ["sex"])]
    ['20', '20', 'fewer than 10']
    """
    rows = predictions.drop_duplicates(["image_id", "split"])
    found = []
    for split, part in rows.groupby("split", sort=True):
        found.append({"split": str(split), "attribute": "overall", "group": "all",
                      "images": _told(len(part))})  # fmt: skip
        for name in attributes:
            counts = part[name].astype(str).value_counts().sort_index()
            found += [
                {"split": str(split), "attribute": name, "group": str(g), "images": _told(int(n))}
                for g, n in counts.items()
            ]
    return found


def ranges(pixels: np.ndarray) -> dict[str, list[float]]:
    """Returns the range of each image's mean and spread: quantiles TAILS of them, in [0, 1].

    Args:
      pixels: (n, ...) uint8 of validation images.

    Returns:
      {"mean": [low, high], "spread": [low, high]}; {} for fewer than LEAST images.
    """
    if len(pixels) < LEAST:
        return {}
    flat = np.stack([measured(image) for image in pixels])
    ends = np.quantile(flat, TAILS, axis=0).round(3).T.tolist()
    return {"mean": ends[0], "spread": ends[1]}


def measured(image: np.ndarray) -> tuple[float, float]:
    """Returns mean and standard deviation of stored pixels, uint8, in [0, 1]."""
    return float(image.mean() / 255), float(image.std() / 255)


def _told(count: int) -> str:
    return f"fewer than {FEW}" if count < FEW else f"{FEW * round(count / FEW):,}"
