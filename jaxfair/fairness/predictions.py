"""The table of predictions: reading it, checking it, filling what may be left out."""

import os
import pathlib

import numpy as np
import pandas as pd

from jaxfair.errors import InputError, nearest
from jaxfair.schema import ATTRIBUTES as COLUMNS_OF_GROUPS
from jaxfair.schema import CROSSED, SPLITS, age_groups

__all__ = ["ATTRIBUTES", "REQUIRED", "checked", "patient_codes", "read_predictions"]

REQUIRED = ("y_true", "y_score")
ATTRIBUTES = (*COLUMNS_OF_GROUPS, CROSSED)
"""The attributes of every run's table."""


def read_predictions(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Reads a .parquet or .csv file of predictions and checks it (see `checked`).

    Both labels must be present among the test rows of every task.

    Raises:
      InputError: if the file is missing, is not a table, or the table is refused.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a .csv or .parquet file of predictions.")
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"Predictions are read from .csv or .parquet, got {path.name}.")
    try:
        if path.suffix == ".csv":
            table = pd.read_csv(path, dtype={"patient_id": str, "image_id": str})
        else:
            table = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read as a table ({reason}).") from error
    table = checked(table)
    _check_classes(table)
    return table


def checked(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a copy of `table` with every column that the tables need, or refuses it.

    Columns:
      y_true: 0 or 1; an empty cell is an unlabelled row, which is left out.
      y_score: a finite number, higher means more abnormal.
      image_id: unique within a task; made from the row number if left out.
      patient_id: the cluster of all intervals; if left out each image is its own patient.
      task: several labels in one file; 'score' if left out.
      split: train, validation or test; 'test' if left out.
      age_group: made from age if left out. Any other column may form groups.

    Raises:
      InputError: one sentence with the value, the rule and the cure.
    """
    _need_columns(table)
    table = table.copy().reset_index(drop=True)
    _fill(table)
    _check_labels(table)
    table = table[table["y_true"].notna()].reset_index(drop=True)
    table["y_true"] = table["y_true"].astype(float)
    _check_scores(table)
    _check_ids(table)
    return table


def patient_codes(table: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Returns (n,) patient codes 0..p-1 in order of first appearance, and p."""
    codes, ids = pd.factorize(table["patient_id"])
    return codes.astype(np.int64), len(ids)


def _need_columns(table: pd.DataFrame) -> None:
    columns = [str(name) for name in table.columns]
    for name in REQUIRED:
        if name not in columns:
            raise InputError(
                f"The predictions have no column {name!r}; they need at least y_true (0 or 1) and"
                f" y_score (a number), and have {', '.join(columns) or 'none'}."
                f"{nearest(name, columns)}"
            )
    if table.empty:
        raise InputError("The predictions have no rows; give at least one image of each label.")


def _fill(table: pd.DataFrame) -> None:
    if "image_id" not in table:
        table["image_id"] = [f"row {i}" for i in range(len(table))]
    if "patient_id" not in table:
        table["patient_id"] = table["image_id"].astype(str)
    if "task" not in table:
        table["task"] = "score"
    if "split" not in table:
        table["split"] = "test"
    if "age_group" not in table and "age" in table:
        ages = pd.to_numeric(table["age"], errors="coerce")
        table["age_group"] = age_groups(ages.to_numpy(dtype=float))
    bad = sorted(set(table["split"].astype(str)) - set(SPLITS))
    if bad:
        raise InputError(
            f"Column split holds {bad[0]!r}; use train, validation or test, or leave it out."
        )


def _check_labels(table: pd.DataFrame) -> None:
    labels = pd.to_numeric(table["y_true"], errors="coerce")
    wrong = (labels.isna() & table["y_true"].notna()) | (labels.notna() & ~labels.isin([0, 1]))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        value = table["y_true"].iloc[row]
        raise InputError(
            f"Column y_true holds {str(value)!r} in row {row + 1}; labels are 0 (normal) or 1"
            " (abnormal), or an empty cell for an unlabelled image."
        )
    table["y_true"] = labels


def _check_scores(table: pd.DataFrame) -> None:
    scores = pd.to_numeric(table["y_score"], errors="coerce").to_numpy(dtype=float)
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise InputError(
            f"Column y_score is missing or not a finite number in {len(bad)} of {len(table)} rows"
            f" (first: image {table['image_id'].iloc[bad[0]]!r}); score these images again or"
            " drop the rows."
        )
    table["y_score"] = scores


def _check_ids(table: pd.DataFrame) -> None:
    twice = table.duplicated(["image_id", "task", "split"])
    if twice.any():
        first = table.loc[twice, "image_id"].iloc[0]
        raise InputError(
            f"Image {first!r} has more than one row for one task ({int(twice.sum())} such rows);"
            " give each image one row per task."
        )
    if table["patient_id"].isna().any():
        count = int(table["patient_id"].isna().sum())
        raise InputError(
            f"Column patient_id is empty in {count} rows; fill it, or leave the column out to"
            " count every image as its own patient."
        )


def _check_classes(table: pd.DataFrame) -> None:
    test = table[table["split"] == "test"]
    if test.empty:
        raise InputError("No row has split 'test'; mark the rows to report on as test.")
    for task, rows in test.groupby("task"):
        if rows["y_true"].nunique() < 2:
            only = int(rows["y_true"].iloc[0])
            raise InputError(
                f"All {len(rows)} test rows of task {task!r} have y_true {only}; both labels are"
                " needed to tell normal from abnormal."
            )
