"""What CheXpert and MIMIC-CXR share: 14 labels mined from reports, some left open, and race."""

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxfair.data.sources.base import task_name
from jaxfair.errors import InputError

if TYPE_CHECKING:
    from jaxfair.data.config import DataConfig

__all__ = ["LABELS", "TASKS", "race_of_person", "read_labels", "settle"]

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
    ("unknown", r"$|.*UNKNOWN|UNABLE TO OBTAIN|(PATIENT )?(DECLINED|REFUSED)"),
    ("white", "WHITE|PORTUGUESE"),
    ("black", "BLACK"),
    ("asian", "ASIAN"),
    ("hispanic", "HISPANIC|SOUTH AMERICAN"),
)


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


def settle(rows: pd.DataFrame, config: "DataConfig") -> pd.DataFrame:
    """Labels that the report leaves open, by `data.uncertain`; the others stay."""
    value = _SETTLED[config.uncertain]
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
    said = pd.DataFrame({"person": person, "race": groups.mask(groups == "unknown")})
    by_person = said.groupby("person")["race"]
    clash = by_person.nunique() > 1
    return by_person.first().mask(clash).fillna("unknown"), int(clash.sum())


def _race(text: str) -> str:
    text = text.strip().upper()
    return next((name for name, pattern in _RACES if re.match(pattern, text)), "other")
