"""The one table: one row per image, and its checks."""

import pandas as pd

from jaxfair.errors import InputError
from jaxfair.schema import COLUMNS, SEXES, SPLITS, UNKNOWN, VIEWS

__all__ = ["check"]


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
