"""What CheXpert and MIMIC-CXR share: 14 labels mined from reports, some left open, and race."""

import dataclasses
import re
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.data.checks import check_choice
from jaxfair.data.sources.base import Options, task_name
from jaxfair.errors import InputError
from jaxfair.schema import UNKNOWN

__all__ = ["LABELS", "RACES", "TASKS", "ReportOptions", "race_of_person", "read_labels", "settle"]

LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
TASKS = tuple(task_name(name) for name in LABELS)
OPEN = "uncertain"
"""Column with the tasks that a report leaves open, separated by |; `settle` reads it."""

_CODES = {"": 0.0, "0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0, "-1": -1.0, "-1.0": -1.0}
_SETTLED = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0}
_RACES = (
    (UNKNOWN, r"$|.*UNKNOWN|UNABLE TO OBTAIN|(PATIENT )?(DECLINED|REFUSED)"),
    ("white", "WHITE|PORTUGUESE"),
    ("black", "BLACK"),
    ("asian", "ASIAN"),
    ("hispanic", "HISPANIC|SOUTH AMERICAN"),
)


RACES = ("white", "black", "asian", "hispanic", "other")
"""What `race_of_person` finds, beside unknown."""


@dataclasses.dataclass(frozen=True)
class ReportOptions(Options):
    """What labels mined from reports can be asked.

    Attributes:
      uncertain: what a label that the report leaves open counts as: "ignore" (not asked),
        "zeros" or "ones".
    """

    uncertain: str = "ignore"

    def rule(self) -> dict[str, Any]:
        """`uncertain`, where it is not "ignore"."""
        return {} if self.uncertain == "ignore" else {"uncertain": self.uncertain}

    def __post_init__(self) -> None:
        check_choice(self, "uncertain", _SETTLED)


def read_labels(table: pd.DataFrame, path: object) -> pd.DataFrame:
    """Labels of the columns `LABELS`, and which were left open.

    1 is present, 0 absent, -1 uncertain. An empty cell, a finding that the report does not
    mention, is absent, as the authors of CheXpert have it (Irvin et al. 2019): "No Finding"
    would else never be 0.

    Args:
      table: texts, one row per report or film.
      path: of the file, for the sentence.

    Returns:
      float label_<task>, NaN where uncertain, and the column `OPEN`.

    Raises:
      InputError: a cell is none of these.
    """
    labels, unsure = {}, np.full(len(table), "", object)
    for name, task in zip(LABELS, TASKS):
        values = table[name].str.strip().map(_CODES)
        wrong = table.loc[values.isna(), name]
        if len(wrong):
            raise InputError(
                f"{path} holds the label {wrong.iloc[0]!r} in column {name} ({len(wrong)} such); "
                "a label is 1, 0, -1 (uncertain) or empty."
            )
        here = (values == -1).to_numpy()
        unsure[here] += f"{task}|"
        labels[f"label_{task}"] = values.mask(values == -1)
    return pd.DataFrame({**labels, OPEN: unsure}, index=table.index)


def settle(rows: pd.DataFrame, options: ReportOptions) -> pd.DataFrame:
    """Labels that the report leaves open, by `data.uncertain`; the others stay."""
    value = _SETTLED[options.uncertain]
    rows = rows.copy()
    for task in TASKS:
        here = rows[OPEN].str.contains(rf"(?:^|\|){task}\|", regex=True)
        rows.loc[here, f"label_{task}"] = value
    return rows


def race_of_person(person: pd.Series, text: pd.Series) -> tuple[pd.Series, int]:
    """One race a person, from tables that may hold several rows of one.

    Rows that say nothing (unknown, declined) do not count. A person whose other rows name
    different groups is "unknown": no rule says which of them is right.

    Args:
      person: (n,) id per row.
      text: (n,) race as written.

    Returns:
      id -> white, black, asian, hispanic, other or unknown; and how many contradict themselves.

    >>> race_of_person(pd.Series(["a", "a", "b", "b"]),
    ...                pd.Series(["WHITE - RUSSIAN", "UNKNOWN", "ASIAN", "White"]))[0].to_dict()
    {'a': 'white', 'b': 'unknown'}
    """
    groups = text.map({name: _race(name) for name in text.unique()})
    said = pd.DataFrame({"person": person, "race": groups.mask(groups == UNKNOWN)})
    by_person = said.groupby("person")["race"]
    clash = by_person.nunique() > 1
    return by_person.first().mask(clash).fillna(UNKNOWN), int(clash.sum())


def _race(text: str) -> str:
    text = text.strip().upper()
    return next((name for name, pattern in _RACES if re.match(pattern, text)), "other")
