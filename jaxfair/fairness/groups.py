"""Patient columns to subgroup labels: age bins, single columns, intersections.

A missing value is the group `unknown`, never a guess and never a dropped row.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.errors import InputError, nearest

__all__ = [
    "AGE_EDGES",
    "AGE_GROUPS",
    "ALL",
    "OVERALL",
    "THESIS_AGE_EDGES",
    "UNKNOWN",
    "age_groups",
    "group_labels",
]

UNKNOWN = "unknown"
OVERALL = "overall"
ALL = "all"
_CROSS = " x "

AGE_EDGES = (0, 18, 31, 46, 61, 76, 111)
"""Lower bounds in years of the age groups; the last one is where ages stop being believed."""

THESIS_AGE_EDGES = (0, 32, 61, 111)
"""Young (<= 31), middle, old (>= 61), as in the thesis that the anomaly detector comes from."""


def _names(edges: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{low}-{high - 1}" for low, high in itertools.pairwise(edges))


AGE_GROUPS = _names(AGE_EDGES)
"""'0-17', '18-30', '31-45', '46-60', '61-75', '76-110'."""


def age_groups(ages: npt.ArrayLike, edges: Sequence[int] = AGE_EDGES) -> npt.NDArray[np.object_]:
    """Returns the age group of each age.

    Args:
      ages: (n,) years; a fraction counts as the completed year, NaN as unknown.
      edges: ascending lower bounds; the last is the first age that is not believed.

    Returns:
      (n,) strings such as '18-30'; negative, impossible and missing ages are 'unknown'.

    >>> age_groups([17, 18.9, 61, 155, float("nan")]).tolist()
    ['0-17', '18-30', '61-75', 'unknown', 'unknown']
    """
    years = np.floor(np.asarray(ages, dtype=float))
    names = np.array([*_names(edges), UNKNOWN], dtype=object)
    bins = np.searchsorted(np.asarray(edges), years, side="right") - 1
    known = np.isfinite(years) & (bins >= 0) & (bins < len(edges) - 1)
    return names[np.where(known, bins, len(edges) - 1)]


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
