"""Predictions from a file: what can be read of it, and what was lost on the way."""

import os
from typing import NamedTuple

import pandas as pd

from jaxfair.errors import InputError
from jaxfair.fairness.predictions import checked
from jaxfair.schema import UNKNOWN
from jaxfair.tables.ages import years
from jaxfair.tables.reader import read_table
from jaxfair.tables.values import names, texts

__all__ = ["Reading", "open_predictions", "read_predictions"]

_SHOWN = 3


class Reading(NamedTuple):
    """What a file of predictions held.

    Attributes:
      rows: as `checked` returns them.
      aside: task -> why it cannot be reported on, for those that were left out.
      remarks: sentences about what was lost or taken for granted.
    """

    rows: pd.DataFrame
    aside: dict[str, str]
    remarks: tuple[str, ...]


def read_predictions(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Reads a file of predictions (see `tables.read_table`) and checks it (see `checked`).

    Raises:
      InputError: if the file is missing or is no table, if the table is refused, or if any task
        has test rows of one label only.
    """
    found = open_predictions(path)
    if found.aside:
        raise InputError(next(iter(found.aside.values())))
    return found.rows


def open_predictions(path: str | os.PathLike[str], *, one_label: bool = False) -> Reading:
    """Reads a file of predictions; a task that is refused is set aside, and the others stand.

    Args:
      path: see `tables.read_table`.
      one_label: accept tasks whose test rows have one label only, or that have none.

    Raises:
      InputError: if nothing is left.
    """
    remarks: list[str] = []
    table = read_table(path, remarks=remarks)
    parts, aside = _by_task(table, str(path), one_label)
    if not parts:
        raise InputError(next(iter(aside.values())))
    rows = checked(pd.concat(parts).sort_index(), where=str(path)) if aside else parts[0]
    return Reading(rows, aside, (*remarks, *_lost(table, rows)))


def _by_task(
    table: pd.DataFrame, where: str, one_label: bool
) -> tuple[list[pd.DataFrame], dict[str, str]]:
    """The whole table if all is well; else the raw rows of each good task, and what is wrong."""
    try:
        rows = checked(table, where=where)
        if not one_label:
            _check_classes(rows)
        return [rows], {}
    except InputError as error:
        tasks = names(table["task"]) if "task" in table else pd.Series("", table.index)
        if tasks.nunique() < 2:
            return [], {"": str(error)}
    good, aside = [], {}
    for task, part in table.groupby(tasks, sort=True):
        try:
            rows = checked(part, where=where)
            if not one_label:
                _check_classes(rows)
            good.append(part)
        except InputError as error:
            aside[str(task)] = str(error)
    if not aside:  # each is well, and they contradict each other
        checked(table, where=where)
    return good, aside


def _check_classes(table: pd.DataFrame) -> None:
    for task, rows in table.groupby("task"):
        rows = rows[rows["split"] == "test"]
        if rows.empty:
            raise InputError(
                f"No row has split 'test' (task {task!r}); mark the rows to report on as test."
            )
        if rows["y_true"].nunique() < 2:
            only = int(rows["y_true"].iloc[0])
            raise InputError(
                f"All {len(rows)} test rows of task {task!r} have y_true {only}; both labels are"
                " needed to tell normal from abnormal."
            )


def _lost(table: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """Sentences about rows without a label, cells without a meaning, and patients in two splits."""
    said = []
    blank = int((table["y_true"] == "").sum())
    if blank:
        said.append(f"{blank} of {len(table)} rows have no label (y_true) and are left out.")
    if "age" in table:
        cells = texts(table["age"])
        unread = cells[(cells != "") & years(cells).isna()]
        if len(unread):
            common = unread.value_counts().head(_SHOWN)
            spelled = ", ".join(f"{text!r} ({n})" for text, n in common.items())
            said.append(
                f"Column age: {len(unread)} of {len(table)} rows are not understood as one age"
                f" group and are {UNKNOWN}; the commonest: {spelled}."
            )
    splits = rows.groupby("split")["patient_id"].agg(set)
    both = splits.get("validation", set()) & splits.get("test", set())
    if both:
        said.append(
            f"{len(both)} patients are in validation and in test: thresholds have seen some of"
            " those whom they are tested on."
        )
    return said
