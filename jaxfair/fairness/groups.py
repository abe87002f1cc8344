"""Patient columns to subgroup labels: single columns, intersections.

A missing value is the group `unknown`, never a guess and never a dropped row.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.errors import InputError, nearest
from jaxfair.schema import UNKNOWN, age_groups

__all__ = ["ALL", "OVERALL", "group_labels"]

OVERALL = "overall"
ALL = "all"
_CROSS = " x "


def group_labels(table: pd.DataFrame, attribute: str) -> npt.NDArray[np.object_]:
    """Returns the group of each row of `table` for an attribute or an intersection.

    Args:
      table: rows with the column `attribute`, or with all of its parts.
      attribute: a column, `overall`, or columns joined by ' x ' ('sex x age_group').
        `age_group` is made from `age` where it is missing.

    Returns:
      (n,) strings; a missing value is 'unknown', an intersection reads 'F x 18-30'.

    Raises:
      InputError: if a column is missing.

    >>> rows = pd.DataFrame({"sex": ["F", None], "age": [20, 70]})
    >>> group_labels(rows, "sex x age_group").tolist()
    ['F x 18-30', 'unknown x 61-75']
    """
    if attribute == OVERALL:
        return np.full(len(table), ALL, dtype=object)
    parts = [_column(table, name.strip()) for name in attribute.split(_CROSS)]
    labels = pd.Series(parts[0], dtype=object)
    for part in parts[1:]:
        labels = labels.str.cat(pd.Series(part, dtype=object), sep=_CROSS)
    return labels.to_numpy(dtype=object)


def _column(table: pd.DataFrame, name: str) -> npt.NDArray[np.object_]:
    if name == "age_group" and name not in table and "age" in table:
        return age_groups(pd.to_numeric(table["age"], errors="coerce").to_numpy(dtype=float))
    if name not in table:
        known = ", ".join(map(str, table.columns))
        raise InputError(
            f"The predictions have no column {name!r} to form groups from;"
            f" they have {known}.{nearest(name, map(str, table.columns))}"
        )
    column = table[name].astype(object)
    text = column.where(column.notna(), UNKNOWN).astype(str).str.strip()
    return text.mask(text.isin(["", "nan", "None"]), UNKNOWN).to_numpy(dtype=object)
