"""CheXpert (Stanford): 224,316 films of 65,240 patients, 14 labels of which some are open."""

import os
import pathlib
from typing import Any

import numpy as np
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
    sizes_in,
    without_file,
)
from jaxfair.errors import InputError
from jaxfair.schema import ATTRIBUTES, UNKNOWN

__all__ = ["HOW_TO_GET", "OPTIONS", "SPEC", "inventory", "label", "read_pixels", "read_table"]

TRAIN, VALID = "train.csv", "valid.csv"
RACES = ("CHEXPERT DEMO.xlsx", "CHEXPERT DEMO.csv")

SPEC: dict[str, Any] = {
    "name": "chexpert",
    "title": "CheXpert",
    "population": "chexpert",
    "tasks": reports.TASKS,
    "attributes": (*ATTRIBUTES, "race"),
    "values": {"race": reports.RACES},
    "licence": "Stanford AIMI data use agreement: research, not to be passed on",
    "where": "https://stanfordmlgroup.github.io/competitions/chexpert",
    "needs": (TRAIN,),
    "optional": (VALID, *RACES),
    "ndim": 2,
    "modalities": ("CR", "DX"),
    "channels": (1,),
    "carve_validation": True,
    "patient_hint": "its paths name them",
    "config": "configs/chexpert_resnet.py",
}

HOW_TO_GET = (
    f"Wanted is the folder CheXpert-v1.0-small or CheXpert-v1.0, with {TRAIN}, {VALID}, train/ and "
    f"valid/; {RACES[0]} (or a .csv of it) beside them adds race. Get {SPEC['title']} from "
    f"{SPEC['where']}."
)

read_pixels = pixels.read_square
label = reports.settle
OPTIONS = reports.ReportOptions


def read_table(root: str | os.PathLike[str], options: Options) -> SourceTable:
    """Reads train.csv and valid.csv, the table of races if it is there, and looks for films.

    Read are Path (CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg; its first
    folder is the root, whatever the root is called), Sex, Age, Frontal/Lateral, AP/PA and the
    14 labels. Every row keeps its own labels and is one image, named by its path without the
    suffix. An age of 0 stands for a missing one. Lateral films have the view "lateral", LL
    and RL are "unknown". Of the races PATIENT and PRIMARY_RACE are read (see
    `reports.race_of_person`). As published split train.csv trains and valid.csv, which
    radiologists labelled, tests: the download has no other test set.

    Raises:
      InputError: a file is missing or not of this layout, or there is no film at all.
    """
    root = pathlib.Path(root)
    require(root, SPEC["needs"], HOW_TO_GET)
    parts = [(TRAIN, "train"), (VALID, "test")]
    rows = pd.concat([_rows(root, *part) for part in parts if (root / part[0]).is_file()])
    rows = rows.sort_values("image_id", ignore_index=True)
    twice = rows.loc[rows["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise InputError(f"{root} lists the film {twice.iloc[0]!r} twice; get its tables again.")
    counts = {"rows": len(rows), "age_zero": int((rows["age_text"] == "zero").sum())}
    race, clashes = _races(root)
    if race is not None:
        rows["race"] = rows["patient_id"].map(race).fillna(UNKNOWN)
        counts["contradictory_races"] = clashes
    exists = rows["path"].map(os.path.exists).astype(bool)
    rows, aside = without_file(rows, exists)
    if rows.empty:
        raise InputError(f"{root} holds none of the {counts['rows']} films. {HOW_TO_GET}")
    return SourceTable(rows, rejected(aside), "patient", counts)


def inventory(
    root: pathlib.Path, options: Options
) -> tuple[list[pathlib.Path], list[tuple[str, int]]]:
    """The tables; names and sizes of the films."""
    tables = [root / TRAIN, root / VALID, find(root, *RACES) or root / RACES[0]]
    return tables, [e for part in ("train", "valid") for e in sizes_in(root / part, root)]


def _rows(root: pathlib.Path, name: str, split: str) -> pd.DataFrame:
    path = root / name
    side, view = "Frontal/Lateral", "AP/PA"
    columns = ["Path", "Sex", "Age", side, view, *reports.LABELS]
    table = read_csv(path, columns, SPEC["where"])
    inside = table["Path"].str.split("/", n=1).str[-1]
    patient = table["Path"].str.extract(r"/(patient\d+)/study\d+/[^/]+\.\w+$")[0]
    if patient.isna().any():
        wrong = table.loc[patient.isna(), "Path"].iloc[0]
        raise InputError(
            f"{path} has the Path {wrong!r}; .../patientNNNNN/studyK/viewJ_frontal.jpg is expected."
        )
    rows = pd.DataFrame({"image_id": inside.str.rsplit(".", n=1).str[0], "patient_id": patient})
    rows["path"] = str(root) + os.sep + inside
    rows["sex_text"] = table["Sex"]
    rows["age_text"] = table["Age"].mask(table["Age"].isin(["0", "0.0"]), "zero")
    frontal = table[view].mask(table[view].isin(["LL", "RL"]), "frontal")  # which says nothing
    rows["view_text"] = np.where(table[side] == "Lateral", "lateral", frontal)
    rows["source_split"] = split
    return pd.concat([rows, reports.read_labels(table, path)], axis=1)


def _races(root: pathlib.Path) -> tuple[pd.Series | None, int]:
    path = find(root, *RACES)
    if path is None:
        return None, 0
    columns = ["PATIENT", "PRIMARY_RACE"]
    table = read_csv(path, columns)
    return reports.race_of_person(table["PATIENT"], table["PRIMARY_RACE"])
