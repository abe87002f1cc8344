"""The table of predictions: checking it, and filling what may be left out."""

import textwrap

import numpy as np
import pandas as pd

from jaxfair.errors import InputError, nearest
from jaxfair.fairness.agreement import check_images
from jaxfair.schema import ATTRIBUTES as COLUMNS_OF_GROUPS
from jaxfair.schema import CROSSED, UNKNOWN, age_groups
from jaxfair.tables.ages import years
from jaxfair.tables.answers import labels, splits
from jaxfair.tables.values import look_alikes, names, numbers, texts

__all__ = ["ATTRIBUTES", "REQUIRED", "checked", "patient_codes"]

REQUIRED = ("y_true", "y_score")
ATTRIBUTES = (*COLUMNS_OF_GROUPS, CROSSED)
"""The attributes of every run's table."""

_NOT_GROUPS = (*REQUIRED, "image_id", "patient_id", "task", "split", "age")


def checked(table: pd.DataFrame, *, where: str = "") -> pd.DataFrame:
    """Returns a copy of `table` with every column that the tables need, or refuses it.

    Cells are text first (jaxfair/tables): a CSV, a parquet file and a table in memory give the
    same result.

    Columns:
      y_true: 0 or 1; an empty cell is an unlabelled row, which is left out.
      y_score: a finite number, higher means more abnormal.
      image_id: unique within a task; made from the row number if left out.
      patient_id: the cluster of all intervals; if left out each image is its own patient.
      task: several labels in one file; 'score' if left out.
      split: train, validation or test; 'test' if left out.
      age: years, "045Y" or "89+"; what is no age is missing.
      age_group: made from age if left out. Any other column may form groups; an empty cell of it
        is the group 'unknown'.

    Args:
      table: the rows.
      where: the file that they came from, for a refusal; the index then tells the rows apart.

    Raises:
      InputError: one sentence with the value, the rule and the cure. Rows that contradict each
        other are refused too (see `agreement.check_images`).
    """
    table = table.copy() if where else table.reset_index(drop=True)
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    _check_columns(table)
    _fill(table)
    table["split"] = splits(table["split"], where=where)
    table["y_true"] = labels(table["y_true"], where=where)
    table = table[table["y_true"].notna()].copy()
    table["y_score"] = _scores(table, where)
    _check_patients(table["patient_id"])
    for name in ("image_id", "patient_id", "task"):
        table[name] = _named(table[name])
    _check_ids(table)
    _fill_groups(table)
    check_images([table])
    return table.reset_index(drop=True)


def patient_codes(table: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Returns (n,) patient codes 0..p-1 in order of first appearance, and p."""
    codes, ids = pd.factorize(table["patient_id"])
    return codes.astype(np.int64), len(ids)


def _check_columns(table: pd.DataFrame) -> None:
    columns = list(table.columns)
    known = textwrap.shorten(", ".join(columns), 400) or "none"
    for name in REQUIRED:
        if name not in columns:
            raise InputError(
                f"The predictions have no column {name!r}; they need at least y_true (0 or 1) and"
                f" y_score (a number), and have {known}."
                f"{nearest(name, columns)}"
            )
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise InputError(f"The predictions have the column {twice[0]!r} twice; rename one of them.")
    if table.empty:
        raise InputError("The predictions have no rows; give at least one image of each label.")


def _fill(table: pd.DataFrame) -> None:
    if "image_id" not in table:
        table["image_id"] = [f"row {i}" for i in table.index]
    if "patient_id" not in table:
        table["patient_id"] = table["image_id"]
    if "task" not in table:
        table["task"] = "score"
    if "split" not in table:
        table["split"] = "test"


def _fill_groups(table: pd.DataFrame) -> None:
    """Ages become years, and every column that may form groups becomes names."""
    if "age" in table:
        table["age"] = years(table["age"])
        if "age_group" not in table:
            table["age_group"] = age_groups(table["age"].to_numpy(dtype=float))
    for name in table.columns.difference(list(_NOT_GROUPS)):
        cells = names(table[name])
        table[name] = cells.mask((cells == "") | (cells.str.lower() == UNKNOWN), UNKNOWN)


def _scores(table: pd.DataFrame, where: str) -> pd.Series:
    rule = "score these images again or drop the rows"
    scores = numbers(table["y_score"], where=where, rule=rule)
    if scores.isna().any():
        first = texts(table.loc[scores.isna(), "image_id"]).iloc[0]
        raise InputError(
            f"Column y_score is missing or not a finite number in {int(scores.isna().sum())} of"
            f" {len(table)} rows (first: image {first!r}); {rule}."
        )
    return scores


def _named(column: pd.Series) -> pd.Series:
    """Ids and tasks as names; an empty one is refused."""
    found = names(column)
    if (found == "").any():
        raise InputError(
            f"Column {column.name} is empty in {int((found == '').sum())} rows; fill it, or leave"
            " the column out (then every image is its own patient, and all rows are one task)."
        )
    return found


def _check_patients(column: pd.Series) -> None:
    alike = look_alikes(column)
    if alike:
        one, other = alike[0]
        raise InputError(
            f"Column patient_id has {one!r} and {other!r}, which may be one patient ({len(alike)}"
            " such pairs); write each patient in one way."
        )


def _check_ids(table: pd.DataFrame) -> None:
    twice = table.duplicated(["image_id", "task", "split"])
    if twice.any():
        first = table.loc[twice, "image_id"].iloc[0]
        raise InputError(
            f"Image {first!r} has more than one row for one task ({int(twice.sum())} such rows);"
            " give each image one row per task."
        )
