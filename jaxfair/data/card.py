"""The data card: counts that a reader must know before trusting a model made of the data."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.schema import UNKNOWN

__all__ = ["card_of", "meaning_of", "unknown_lines"]

NAMES = r"['\"]?[^\s'\"]+\.(?:dcm|dicom|png|jpe?g|np[yz]|nii(?:\.gz)?)['\"]? ?"
"""A file's name within a reason."""


def card_of(table: pd.DataFrame, rejected: pd.DataFrame, more: dict[str, Any]) -> dict[str, Any]:
    """The data card: what a reader must know about a table before trusting a model made of it.

    Args:
      table: a manifest.
      rejected: image_id, file, reason.
      more: further entries.

    Returns:
      A dict for JSON: counts by split x label x sex x age group x view (of several labels, how
      often each was asked and positive in each split), missing values, rejected files by
      reason. It is about patients and no differential privacy covers it.
    """
    labels = [name for name in table.columns if name.startswith("label_")]
    keys = ["split", *labels, "sex", "age_group", "view"]
    several = {}
    if len(labels) > 1:  # all combinations of labels would be as many lines as images
        keys = ["split", "sex", "age_group", "view"]
        several["labels"] = _label_counts(table, labels)
    cells = (
        table.groupby(keys, dropna=False, sort=True, observed=True)
        .size()
        .reset_index(name="images")
    )
    return (
        {
            "covered_by_privacy_guarantee": False,
            "images": len(table),
            "patients": int(table["patient_id"].nunique()),
            "images_per_patient": _tally(table.groupby("patient_id").size()),
            "patients_with_two_sexes": int(
                (table.groupby("patient_id")["sex"].nunique() > 1).sum()
            ),
            "counts": [
                {str(name): _plain(value) for name, value in cell.items()}
                for cell in cells.to_dict("records")
            ],
            "missing": {
                "sex": int((table["sex"] == UNKNOWN).sum()),
                "age": int(table["age"].isna().sum()),
                "view": int((table["view"] == UNKNOWN).sum()),
            },
            "rejected": {"total": len(rejected), "by_reason": _tally(_kinds(rejected["reason"]))},
        }
        | several
        | more
    )


def meaning_of(column: str) -> str:
    """How a line says what the words of a column of groups mean."""
    return f"--config.data.table.values=\"{{{column!r}: {{'word': 'value'}}}}\""


def unknown_lines(
    table: pd.DataFrame, attributes: Iterable[str], unread: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """Says of how many images a group is unknown, and which words were not understood.

    Args:
      table: a manifest.
      attributes: its columns of groups.
      unread: of the card, column -> word -> how often, the commonest words.

    Returns:
      A line for each column with an unknown group. They are about patients: for the terminal of
      whoever holds the data, and for no file that leaves the house.
    """
    lines = []
    for column in attributes:
        name, unknown = "age" if column == "age_group" else column, table[column] == UNKNOWN
        told = ", ".join(f"{word!r} x {n}" for word, n in unread.get(name, {}).items())
        hint = f"; not understood: {told} ({meaning_of(name)} says what they mean)" if told else ""
        if unknown.any():
            lines.append(f"{name} unknown in {unknown.sum()} of {len(table)} images{hint}")
    return lines


def _label_counts(table: pd.DataFrame, labels: list[str]) -> list[dict[str, Any]]:
    lines = []
    for split, rows in table.groupby("split", sort=True):
        for name in labels:
            asked, positive = rows[name].notna().sum(), (rows[name] == 1).sum()
            counts = {"asked": int(asked), "positive": int(positive)}
            lines.append({"split": split, "label": name.removeprefix("label_")} | counts)
    return lines


def _kinds(reasons: pd.Series) -> pd.Series:
    """Reasons without the names and numbers in them, for counting."""
    return reasons.str.replace(NAMES, "", regex=True)


def _tally(values: pd.Series) -> dict[str, int]:
    return {str(key): int(n) for key, n in values.value_counts().sort_index().items()}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
