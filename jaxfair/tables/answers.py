"""Columns of which the possible answers are known: labels, and the split of an image."""

import pandas as pd

from jaxfair.schema import SPLITS
from jaxfair.tables.values import numbers, refusal, texts

__all__ = ["labels", "splits"]

_LABELS = {"true": "1", "false": "0"}
_SPLITS = {name: name for name in SPLITS} | {
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "dev": "validation",
    "testing": "test",
}


def labels(column: pd.Series, *, where: str = "") -> pd.Series:
    """Returns 0.0, 1.0, or NaN where a cell is empty (not asked, not labelled).

    Args:
      column: cells of any type: 0 and 1 as `numbers` reads them, true and false.
      where: the file, for a refusal (see `refusal`).

    Raises InputError for the first cell that is no label.

    >>> labels(pd.Series(["1", "0.0", "TRUE", ""])).tolist()
    [1.0, 0.0, 1.0, nan]
    """
    rule = "labels are 0 (normal) or 1 (abnormal), or an empty cell for an unlabelled image"
    if not pd.api.types.is_numeric_dtype(column):
        cells = texts(column)
        column = cells.str.lower().map(_LABELS).fillna(cells)
    found = numbers(column, where=where, rule=rule)
    wrong = found.notna() & ~found.isin([0, 1])
    if wrong.any():
        raise refusal(column, wrong, "is no label", where, rule)
    return found


def splits(column: pd.Series, *, where: str = "", empty: bool = False) -> pd.Series:
    """Returns each split by its name in `schema.SPLITS`, "" where a cell is empty.

    Args:
      column: cells such as "train", "Training", "val", "dev".
      where: the file, for a refusal.
      empty: whether a cell may be empty.

    Raises InputError for the first cell that is no split.

    >>> splits(pd.Series(["Training", "val", "dev", "test"])).tolist()
    ['train', 'validation', 'validation', 'test']
    """
    known = _SPLITS | ({"": ""} if empty else {})
    cells = texts(column)
    found = cells.map({cell: known.get(cell.lower()) for cell in cells.unique().tolist()})
    if found.isna().any():
        more = " or empty" if empty else ", or leave the column out"
        rule = f"use train, validation or test{more}"
        raise refusal(cells, found.isna(), "is no split", where, rule)
    return found.astype(str)
