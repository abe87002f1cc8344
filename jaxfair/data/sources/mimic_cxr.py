"""MIMIC-CXR-JPG (Boston): 377,110 films of 65,379 patients; sex, age and race from MIMIC-IV."""

import os
import pathlib
from typing import Any

import pandas as pd

from jaxfair.data import pixels
from jaxfair.data.sources import reports
from jaxfair.data.sources.base import (
    Options,
    SourceTable,
    find,
    read_csv,
    rejected,
    require,
    without_file,
)
from jaxfair.errors import InputError
from jaxfair.schema import ATTRIBUTES, UNKNOWN
from jaxfair.tables import splits

__all__ = ["HOW_TO_GET", "OPTIONS", "SPEC", "inventory", "label", "read_pixels", "read_table"]

META = "mimic-cxr-2*-metadata.csv*"
LABELS = "mimic-cxr-2*-chexpert.csv*"
SPLIT = "mimic-cxr-2*-split.csv*"
PATIENTS = ("patients.csv*", "hosp/patients.csv*", "core/patients.csv*")
ADMISSIONS = ("admissions.csv*", "hosp/admissions.csv*", "core/admissions.csv*")
FILES = "files"

SPEC: dict[str, Any] = {
    "name": "mimic_cxr",
    "title": "MIMIC-CXR-JPG",
    "population": "mimic-cxr",
    "tasks": reports.TASKS,
    "attributes": (*ATTRIBUTES, "race"),
    "values": {"race": reports.RACES},
    "licence": "PhysioNet credentialed health data licence: not to be passed on",
    "where": "https://physionet.org/content/mimic-cxr-jpg",
    "needs": (META, LABELS, FILES),
    "optional": (SPLIT, PATIENTS[0], ADMISSIONS[0]),
    "ndim": 2,
    "modalities": ("CR", "DX"),
    "channels": (1,),
    "patient_hint": "its tables name them",
    "config": "configs/mimic_resnet.py",
}

HOW_TO_GET = (
    f"Wanted in one folder: {META}, {LABELS}, {SPLIT} and {FILES}/p10 to p19; and patients.csv.gz "
    "and admissions.csv.gz of MIMIC-IV (beside them, in hosp/ or core/) for sex, age and race. Get "
    f"{SPEC['title']} from {SPEC['where']}."
)

read_pixels = pixels.read_square
label = reports.settle
OPTIONS = reports.ReportOptions


def read_table(root: str | os.PathLike[str], options: Options) -> SourceTable:
    """Reads the tables of MIMIC-CXR-JPG and, if they are there, two of MIMIC-IV.

    Read are, plain or .gz: of the metadata dicom_id, subject_id, study_id, ViewPosition and
    StudyDate (YYYYMMDD); of the labels subject_id, study_id and the 14 labels, one row per
    study; of the split dicom_id and split (train, validate, test); of patients subject_id,
    gender, anchor_age and anchor_year; of admissions subject_id and race (ethnicity in
    version 1). Age is anchor_age + year of the study - anchor_year; an
    anchor_age of 0 stands for a missing one, as MIMIC-IV holds adults. View LATERAL and LL are
    "lateral". Films lie in files/p10/p10000032/s50414267/<dicom_id>.jpg. A film whose study
    has no labels, or that is not there, is set aside.

    Raises:
      InputError: a file is missing or not of this layout, or there is no film at all.
    """
    root = pathlib.Path(root)
    require(root, SPEC["needs"], HOW_TO_GET)
    meta, labels = _metadata(root), _labels(root)
    rows = pd.DataFrame({"image_id": meta["dicom_id"], "patient_id": meta["subject_id"]})
    rows["path"] = _paths(root, meta)
    rows["view_text"] = meta["ViewPosition"].str.upper().replace("LL", "LATERAL")
    rows["study_id"] = meta["study_id"]
    counts = {"rows": len(rows)} | _add_people(rows, root, meta["StudyDate"])
    _add_split(rows, root)
    read = rows["study_id"].isin(labels.index)
    aside = [(i, f"{i}.jpg", "study without labels") for i in rows.loc[~read, "image_id"]]
    rows = rows[read].reset_index(drop=True)
    found = labels.loc[rows["study_id"]].reset_index(drop=True)
    rows = pd.concat([rows.drop(columns="study_id"), found], axis=1)
    exists = rows["path"].map(os.path.exists).astype(bool)
    rows, lost = without_file(rows, exists)
    if rows.empty:
        raise InputError(f"{root} holds none of the {counts['rows']} films. {HOW_TO_GET}")
    rows = rows.sort_values("image_id", ignore_index=True)
    return SourceTable(rows, rejected(aside + lost), "patient", counts)


def inventory(
    root: pathlib.Path, options: Options
) -> tuple[list[pathlib.Path], list[tuple[str, int]]]:
    """The tables; the names of the patients' folders (227,835 folders of studies are not read)."""
    patterns = [(META,), (LABELS,), (SPLIT,), PATIENTS, ADMISSIONS]
    tables = [find(root, *p) or root / p[0] for p in patterns]
    groups = sorted((root / FILES).glob("p1*"))
    people = [f"{g.name}/{name}" for g in groups if g.is_dir() for name in sorted(os.listdir(g))]
    return tables, [(name, 0) for name in people]


def _metadata(root: pathlib.Path) -> pd.DataFrame:
    columns = ["dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate"]
    path = find(root, META)
    assert path is not None
    meta = _by(read_csv(path, columns, SPEC["where"]), "dicom_id", path).reset_index()
    wrong = meta.loc[~meta["subject_id"].str.fullmatch(r"\d{8}"), "subject_id"]
    if len(wrong):
        raise InputError(f"{path} has the subject_id {wrong.iloc[0]!r}; it has eight digits.")
    return meta


def _labels(root: pathlib.Path) -> pd.DataFrame:
    """Labels by study_id."""
    path = find(root, LABELS)
    assert path is not None
    table = read_csv(path, ["study_id", *reports.LABELS], SPEC["where"])
    return reports.read_labels(_by(table, "study_id", path), path)


def _by(table: pd.DataFrame, column: str, path: pathlib.Path) -> pd.DataFrame:
    """The table by a column whose values occur once."""
    twice = table.loc[table[column].duplicated(), column]
    if len(twice):
        raise InputError(f"{path} lists the {column} {twice.iloc[0]!r} twice; get it again.")
    return table.set_index(column)


def _paths(root: pathlib.Path, meta: pd.DataFrame) -> pd.Series:
    person = meta["subject_id"]
    folder = f"{root / FILES}{os.sep}p" + person.str[:2] + f"{os.sep}p" + person
    return folder + f"{os.sep}s" + meta["study_id"] + os.sep + meta["dicom_id"] + ".jpg"


def _add_people(rows: pd.DataFrame, root: pathlib.Path, date: pd.Series) -> dict[str, int]:
    """Adds what MIMIC-IV knows: sex and age by its patients, race by its admissions."""
    rows["sex_text"] = rows["age_text"] = ""
    path = find(root, *PATIENTS)
    if path is not None:
        columns = ["subject_id", "gender", "anchor_age", "anchor_year"]
        people = _by(read_csv(path, columns), "subject_id", path)
        rows["sex_text"] = rows["patient_id"].map(people["gender"]).fillna("")
        anchor, age = (pd.to_numeric(rows["patient_id"].map(people[c]), errors="coerce")
                       for c in ("anchor_year", "anchor_age"))  # fmt: skip
        age = age.mask(age == 0) + pd.to_numeric(date.str[:4], errors="coerce") - anchor
        rows["age_text"] = age.map(lambda a: "" if pd.isna(a) else f"{a:.0f}")
    path = find(root, *ADMISSIONS)
    if path is None:
        return {}
    stays = read_csv(path, ["subject_id"], optional=["race", "ethnicity"])
    column = next((name for name in ("race", "ethnicity") if name in stays), None)
    if column is None:
        raise InputError(f"{path} lacks the column race (ethnicity in version 1); get it again.")
    race, clashes = reports.race_of_person(stays["subject_id"], stays[column])
    rows["race"] = rows["patient_id"].map(race).fillna(UNKNOWN)
    return {"contradictory_races": clashes}


def _add_split(rows: pd.DataFrame, root: pathlib.Path) -> None:
    path = find(root, SPLIT)
    if path is None:
        return
    table = read_csv(path, ["dicom_id", "split"], SPEC["where"])
    table["split"] = splits(table["split"], where=str(path), empty=True)
    split = _by(table, "dicom_id", path)["split"]
    rows["source_split"] = rows["image_id"].map(split).fillna("")
