"""The one table: one row per image; what its cells mean, and its checks."""

import math
import re

import pandas as pd

from jaxfair.errors import InputError
from jaxfair.schema import AGE_EDGES, COLUMNS, SEXES, SPLITS, UNKNOWN, VIEWS

__all__ = ["age_from_text", "check", "sex_from_text", "view_from_text"]

_OLDEST = AGE_EDGES[-1] - 1
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def age_from_text(text: str) -> tuple[float, str]:
    """A header's PatientAge to years and how it was read; what is no age becomes NaN.

    Returns:
      (years or NaN, one of "plain number", "age string", "missing", "above 110",
      "unreadable"). "043Y", "22Y", "006M", "010W" and "003D" are age strings (DICOM PS3.5,
      value representation AS), "43" and "43.0" plain numbers.

    >>> age_from_text("043Y"), age_from_text("43"), age_from_text("148")
    ((43.0, 'age string'), (43.0, 'plain number'), (nan, 'above 110'))
    """
    text = text.strip()
    if not text:
        return math.nan, "missing"
    match = re.fullmatch(r"(\d{1,4}(?:\.\d+)?)([YMWD]?)", text.upper())
    if match is None:
        return math.nan, "unreadable"
    years = float(match[1]) * _YEARS[match[2] or "Y"]
    if years > _OLDEST:
        return math.nan, f"above {_OLDEST}"
    return years, "age string" if match[2] else "plain number"


def sex_from_text(text: str) -> tuple[str, str]:
    """A header's PatientSex to "F", "M" or "unknown", and how it was read.

    >>> sex_from_text("F"), sex_from_text("male"), sex_from_text("O"), sex_from_text("")
    (('F', 'as written'), ('M', 'normalised'), ('unknown', 'other'), ('unknown', 'missing'))
    """
    return _from_names(text, {"F": "F", "FEMALE": "F", "M": "M", "MALE": "M"})


def view_from_text(text: str) -> tuple[str, str]:
    """A header's ViewPosition to one of `schema.VIEWS` or "unknown", and how it was read."""
    return _from_names(text, {name.upper(): name for name in VIEWS})


def check(manifest: pd.DataFrame, *, unit: str = "patient") -> pd.DataFrame:
    """Refuses a table that is no manifest; returns it unchanged.

    Checked: the columns of `COLUMNS` and at least one `label_<task>`; no missing or repeated
    image_id; known values of split, sex and view; labels 0, 1 or NaN; no patient in two
    splits (an image whose split is "" is in none).

    Args:
      manifest: the table.
      unit: what patient_id names, for the sentence.

    Raises:
      InputError: the first rule that is broken, with the value and the rule.
    """
    labels = [name for name in manifest.columns if name.startswith("label_")]
    missing = [name for name in COLUMNS if name not in manifest.columns]
    if missing or not labels:
        lacking = ", ".join(missing) or "label_<task>"
        raise InputError(
            f"The manifest lacks the column {lacking}; a manifest has {', '.join(COLUMNS)} "
            "and one label_<task> per task."
        )
    _check_ids(manifest)
    _check_values(manifest, "split", (*SPLITS, ""))
    _check_values(manifest, "sex", (*SEXES, UNKNOWN))
    _check_values(manifest, "view", (*VIEWS, UNKNOWN))
    for name in labels:
        _check_values(manifest[manifest[name].notna()], name, (0, 1))
    _check_disjoint(manifest, unit)
    return manifest


def _from_names(text: str, names: dict[str, str]) -> tuple[str, str]:
    text = text.strip()
    if not text:
        return UNKNOWN, "missing"
    value = names.get(text.upper())
    if value is None:
        return UNKNOWN, "other"
    return value, "as written" if value == text else "normalised"


def _check_ids(manifest: pd.DataFrame) -> None:
    for name in ("image_id", "patient_id"):
        if manifest[name].isna().any() or (manifest[name] == "").any():
            raise InputError(f"The manifest has an empty {name}; every row needs one.")
    twice = manifest.loc[manifest["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise InputError(
            f"The manifest names image {twice.iloc[0]!r} more than once ({len(twice)} repeated "
            "rows); one row per image is the rule, drop the others."
        )


def _check_values(manifest: pd.DataFrame, name: str, allowed: tuple) -> None:
    wrong = manifest.loc[~manifest[name].isin(allowed), name]
    if len(wrong):
        known = ", ".join(repr(value) for value in allowed)
        raise InputError(
            f"The manifest's column {name} holds {wrong.tolist()[0]!r} ({len(wrong)} rows); "
            f"allowed are {known}."
        )


def _check_disjoint(manifest: pd.DataFrame, unit: str) -> None:
    placed = manifest[manifest["split"] != ""]
    splits = placed.groupby("patient_id", sort=False)["split"].nunique()
    twice = splits[splits > 1]
    if len(twice):
        where = sorted(placed.loc[placed["patient_id"] == twice.index[0], "split"].unique())
        raise InputError(
            f"The {unit} {twice.index[0]!r} is in the splits {' and '.join(where)} "
            f"({len(twice)} such); give each {unit} to one split, or use data.split='random'."
        )
