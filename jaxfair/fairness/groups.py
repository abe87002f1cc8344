"""Patient columns to subgroup labels: single columns, intersections.

A missing value is the group `unknown`, never a guess and never a dropped row.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.errors import InputError, nearest
from jaxfair.schema import SCORE_COLUMNS, UNKNOWN, age_groups
from jaxfair.tables.ages import years
from jaxfair.tables.values import names

__all__ = ["ALL", "OVERALL", "attribute_names", "group_labels", "natural"]

OVERALL = "overall"
ALL = "all"
_CROSS = " x "
_NO_ATTRIBUTES = (*SCORE_COLUMNS, "image_id", "patient_id", "split")
"""Columns that say which row it is, or what is asked of it."""


def group_labels(table: pd.DataFrame, attribute: str) -> npt.NDArray[np.object_]:
    """Returns the group of each row of `table` for an attribute or an intersection.

    Args:
      table: rows with the column `attribute`, or with all of its parts.
      attribute: a column, `overall`, or columns joined by ' x ' ('sex x age_group').
        `age_group` is made from `age` where it is missing.

    Returns:
      (n,) strings; a missing value is 'unknown', an intersection reads 'F x 18-30'.

    Raises:
      InputError: if a column is missing or can be no attribute, or if a value of an
        intersection holds ' x ' itself.

    >>> rows = pd.DataFrame({"sex": ["F", None], "age": [20, 70]})
    >>> group_labels(rows, "sex x age_group").tolist()
    ['F x 18-30', 'unknown x 61-75']
    """
    if attribute == OVERALL:
        return np.full(len(table), ALL, dtype=object)
    parts = attribute.split(_CROSS)
    columns = [_column(table, name.strip()) for name in parts]
    labels = columns[0]
    for column in columns[1:]:
        labels = labels.str.cat(column, sep=_CROSS)
    if len(parts) > 1:
        _check_parts(parts, columns)
    return labels.to_numpy(dtype=object)


def attribute_names(attributes: Iterable[str], table: pd.DataFrame) -> list[str]:
    """Returns the names stripped, each once, without `overall`, which every table of groups has.

    Raises:
      InputError: if `overall` is asked for and is a column too.
    """
    found = list(dict.fromkeys(name.strip() for name in attributes))
    if OVERALL in found and OVERALL in table:
        raise InputError(f"The column {OVERALL!r} has the name that all rows have; rename it.")
    return [name for name in found if name not in ("", OVERALL)]


def natural(name: str) -> tuple[bool, list[tuple[int, int, str]], str]:
    """Returns the key by which names stand in the order of people, those unknown last.

    >>> sorted(["site 10", "unknown", "site 2", "9-12", "10-12"], key=natural)
    ['9-12', '10-12', 'site 2', 'site 10', 'unknown']
    """
    parts = [part for part in re.split(r"(\d{1,18})", name) if part]
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
    return UNKNOWN in name, key, name


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    if name in _NO_ATTRIBUTES:
        raise InputError(
            f"Column {name} is no attribute of patients, so it forms no groups; give a column such"
            " as sex, or rename it if it is one."
        )
    if name == "age_group" and name not in table and "age" in table:
        return pd.Series(age_groups(years(table["age"]).to_numpy(dtype=float)), dtype=str)
    if name not in table:
        known = ", ".join(map(str, table.columns))
        raise InputError(
            f"The predictions have no column {name!r} to form groups from;"
            f" they have {known}.{nearest(name, map(str, table.columns))}"
        )
    column = names(table[name]).reset_index(drop=True)
    return column.mask((column == "") | (column.str.lower() == UNKNOWN), UNKNOWN)


def _check_parts(parts: Sequence[str], columns: Sequence[pd.Series]) -> None:
    """Refuses values by which two intersections would have one name: "a x" x "b", "a" x "x b"."""
    for name, column in zip(parts, columns, strict=True):
        within = (" " + column + " ").str.contains(_CROSS, regex=False) & (column != "x")
        if within.any():
            raise InputError(
                f"Column {name} has the value {column[within].iloc[0]!r}, whose 'x' would be taken"
                " for an intersection's; write it otherwise."
            )
