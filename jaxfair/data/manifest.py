"""The one table schema: one row per image; its checks, groups and patient-disjoint splits."""

import hashlib
import math
import re
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from jaxfair.errors import InputError

__all__ = [
    "AGE_GROUPS",
    "COLUMNS",
    "SPLITS",
    "SPLIT_RULES",
    "VIEWS",
    "age_from_text",
    "age_group",
    "check",
    "hash_fraction",
    "sex_from_text",
    "split_as_published",
    "split_at_random",
    "split_by_patient",
    "split_in_folds",
    "view_from_text",
]

COLUMNS = ("image_id", "patient_id", "split", "sex", "age", "age_group", "view")
SPLITS = ("train", "validation", "test", "")
SPLIT_RULES = ("patient", "random", "folds", "source", "thesis")
VIEWS = ("AP", "PA", "lateral", "unknown")
AGE_GROUPS = ("0-17", "18-30", "31-45", "46-60", "61-75", "76-110")
_AGE_EDGES = np.array([18, 31, 46, 61, 76])
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def age_group(age: Iterable[float]) -> np.ndarray:
    """Ages in years to the names of `AGE_GROUPS`; above 110, negative or missing is "unknown".

    The edges are constants, never quantiles of the table (protocol P4).

    >>> age_group([0, 17.9, 18, 75, 110, 111, float("nan")]).tolist()
    ['0-17', '0-17', '18-30', '61-75', '76-110', 'unknown', 'unknown']
    """
    ages = np.asarray(list(age), float)
    known = (ages >= 0) & (ages <= 110)
    index = np.searchsorted(_AGE_EDGES, np.where(known, ages, 0), side="right")
    return np.where(known, np.array(AGE_GROUPS)[index], "unknown").astype(object)


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
    if years > 110:
        return math.nan, "above 110"
    return years, "age string" if match[2] else "plain number"


def sex_from_text(text: str) -> tuple[str, str]:
    """A header's PatientSex to "F", "M" or "unknown", and how it was read.

    >>> sex_from_text("F"), sex_from_text("male"), sex_from_text("O"), sex_from_text("")
    (('F', 'as written'), ('M', 'normalised'), ('unknown', 'other'), ('unknown', 'missing'))
    """
    return _from_names(text, {"F": "F", "FEMALE": "F", "M": "M", "MALE": "M"})


def view_from_text(text: str) -> tuple[str, str]:
    """A header's ViewPosition to one of `VIEWS`, and how it was read."""
    return _from_names(text, {"AP": "AP", "PA": "PA", "LATERAL": "lateral"})


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
    _check_values(manifest, "split", SPLITS)
    _check_values(manifest, "sex", ("F", "M", "unknown"))
    _check_values(manifest, "view", VIEWS)
    for name in labels:
        _check_values(manifest[manifest[name].notna()], name, (0, 1))
    _check_disjoint(manifest, unit)
    return manifest


def hash_fraction(salt: str, name: str) -> float:
    """A number in [0, 1) that depends on nothing but a public salt and an id (SHA-256)."""
    digest = hashlib.sha256(f"{salt}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def split_by_patient(
    patient_id: Iterable[str], abnormal: Iterable[bool], label: Iterable[float], *, salt: str
) -> np.ndarray:
    """Patient-disjoint splits in which no patient's place depends on another (P4, P5).

    A patient with any abnormal image goes to validation (1/3) or test (2/3), every other to
    train (70 %), validation (10 %) or test (20 %), by a hash of the salt and the patient id.

    Args:
      patient_id: (n,) one id per image.
      abnormal: (n,) bool, True for every image that is not normal, also those without a label.
      label: (n,) 0, 1 or NaN; an image whose label is NaN gets the split "".
      salt: public constant.

    Returns:
      (n,) object array of "train", "validation", "test" or "".
    """
    frame = pd.DataFrame({"patient": list(patient_id), "abnormal": list(abnormal)})
    sick = frame.groupby("patient", sort=False)["abnormal"].any()
    place = {str(name): _place(hash_fraction(salt, str(name)), ill) for name, ill in sick.items()}
    split = frame["patient"].astype(str).map(place).to_numpy(object)
    return np.where(np.isnan(np.asarray(list(label), float)), "", split)


def split_at_random(patient_id: Iterable[str], *, salt: str) -> np.ndarray:
    """Splits in which disease plays no role: train 70 %, validation 10 %, test 20 % of patients.

    Args:
      patient_id: (n,) one id per image.
      salt: public constant.

    Returns:
      (n,) object array of "train", "validation" or "test".
    """
    return _by_patient(patient_id, lambda name: _place(hash_fraction(salt, name), ill=False))


def split_in_folds(patient_id: Iterable[str], *, folds: int, fold: int, salt: str) -> np.ndarray:
    """Fold number `fold` tests; of the other patients one in eight, by another hash, validates.

    Over all folds every image is tested once, as no patient's place depends on another.
    Arguments and value as of `split_at_random`; `fold` counts from 0.
    """

    def place(name: str) -> str:
        if int(folds * hash_fraction(salt, name)) == fold:
            return "test"
        return _train_or_validation(salt, name)

    return _by_patient(patient_id, place)


def split_as_published(
    patient_id: Iterable[str], published: Iterable[str], *, salt: str
) -> np.ndarray:
    """The split that the source publishes.

    Where it publishes no validation set, one in eight training patients validates, by hash.

    Args:
      patient_id: (n,) one id per image.
      published: (n,) train, validation, test or "".
      salt: public constant.

    Returns:
      (n,) object array of the same words; a patient may be in two (`check` refuses it).
    """
    split = np.asarray(list(published), object)
    if (split == "validation").any():
        return split
    carved = _by_patient(patient_id, lambda name: _train_or_validation(salt, name))
    return np.where(split == "train", carved, split)


def _train_or_validation(salt: str, name: str) -> str:
    return "validation" if hash_fraction(f"{salt} validation", name) < 1 / 8 else "train"


def _by_patient(patient_id: Iterable[str], place: Callable[[str], str]) -> np.ndarray:
    names = pd.Series([str(name) for name in patient_id], dtype=object)
    return names.map({name: place(name) for name in names.unique()}).to_numpy(object)


def _place(fraction: float, ill: bool) -> str:
    if ill:
        return "validation" if fraction < 1 / 3 else "test"
    return "train" if fraction < 0.7 else "validation" if fraction < 0.8 else "test"


def _from_names(text: str, names: dict[str, str]) -> tuple[str, str]:
    text = text.strip()
    if not text:
        return "unknown", "missing"
    value = names.get(text.upper())
    if value is None:
        return "unknown", "other"
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
