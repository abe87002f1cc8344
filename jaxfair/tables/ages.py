"""Ages as people write them: years, DICOM's "045Y" and "006M", "89+" and ">89"."""

import math
import re
from collections.abc import Sequence

import pandas as pd

from jaxfair.schema import AGE_EDGES
from jaxfair.tables.values import text_of

__all__ = ["years", "years_of"]

_UNITS = {"y": 1.0, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}
_AGE = re.compile(r"(\d{1,4}(?:[.,]\d+)?)\s*(y|yo|yrs?|years?|m|months?|w|weeks?|d|days?)?")
_AT_LEAST = re.compile(r"(>=|≥|>)\s*(\d{1,3})y?|(\d{1,3})y?\s*\+")
_BELOW = re.compile(r"<\s*(\d{1,3})y?")


def years(column: pd.Series, edges: Sequence[int] = AGE_EDGES) -> pd.Series:
    """Returns ages in years, NaN where one is missing or not understood (see `years_of`)."""
    if pd.api.types.is_numeric_dtype(column):
        ages = pd.Series(
            column.to_numpy(dtype=float, na_value=math.nan), column.index, name=column.name
        )
        return ages.where((ages >= edges[0]) & (ages < edges[-1]))
    found = [years_of(cell, edges) for cell in column.tolist()]
    return pd.Series(found, column.index, dtype=float, name=column.name)


def years_of(cell: object, edges: Sequence[int] = AGE_EDGES) -> float:
    """Returns one age in years, or NaN.

    An age without an end ("89+", ">89", "<1") is taken at its bound where all that it may be
    lies in one age group, and else is NaN: "60+" may be in two.

    Args:
      cell: a number, or text such as "45", "45,5", "045Y", "6 months", "89+", ">= 90".
      edges: lower bounds of the age groups; the last is the first age that is not believed.

    >>> [years_of(age) for age in ("045Y", "6M", "45,5", "89+", ">89", "60+", "200")]
    [45.0, 0.5, 45.5, 89.0, 90.0, nan, nan]
    """
    text = text_of(cell).lower()
    plain, least, below = (rule.fullmatch(text) for rule in (_AGE, _AT_LEAST, _BELOW))
    age = math.nan
    if plain:
        age = float(plain[1].replace(",", ".")) * _UNITS[(plain[2] or "y")[0]]
    elif least:
        age = int(least[2] or least[3]) + (least[1] == ">")
        age = age if age >= edges[-2] else math.nan
    elif below and int(below[1]) <= edges[1]:
        age = max(int(below[1]) - 1, 0)
    return float(age) if edges[0] <= age < edges[-1] else math.nan
