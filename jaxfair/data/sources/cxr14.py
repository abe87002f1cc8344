"""NIH ChestX-ray14: 112,120 films of 30,805 patients, 14 findings mined from reports."""

import os
import pathlib
from typing import Any

import pandas as pd

from jaxfair.data import pixels
from jaxfair.data.sources.base import (
    MissingData,
    Options,
    SourceTable,
    find,
    read_csv,
    rejected,
    require,
    sizes_in,
    task_name,
    without_file,
)
from jaxfair.errors import InputError
from jaxfair.schema import ATTRIBUTES

__all__ = [
    "HOW_TO_GET",
    "OPTIONS",
    "SPEC",
    "inventory",
    "label",
    "read_pixels",
    "read_rows",
    "read_table",
]

ENTRIES = "Data_Entry_2017*.csv*"
TRAIN_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
NOTHING = "No Finding"
COLUMNS = [
    "Image Index",
    "Finding Labels",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
]

SPEC: dict[str, Any] = {
    "name": "cxr14",
    "title": "NIH ChestX-ray14",
    "population": "nih-chestxray14",
    "tasks": tuple(task_name(name) for name in FINDINGS),
    "attributes": ATTRIBUTES,
    "licence": "open; the NIH Clinical Center asks to be cited (Wang et al., CVPR 2017)",
    "where": "https://nihcc.app.box.com/v/ChestXray-NIHCC",
    "needs": (ENTRIES,),
    "optional": (TRAIN_LIST, TEST_LIST),
    "ndim": 2,
    "modalities": ("CR", "DX"),
    "channels": (1,),
    "carve_validation": True,
    "patient_hint": "its table names them",
    "config": "configs/cxr14_resnet.py",
}

HOW_TO_GET = (
    f"Wanted in one folder: {ENTRIES} and images/*.png (or images_001/images/*.png and so on); "
    f"and, for the published split, {TRAIN_LIST} and {TEST_LIST}. Get {SPEC['title']} from "
    f"{SPEC['where']}."
)

read_pixels = pixels.read_square
OPTIONS = Options


def read_table(root: str | os.PathLike[str], options: Options) -> SourceTable:
    """Reads the table and looks which films are there.

    Read are Image Index, Finding Labels (separated by |), Patient ID, Patient Age (years, as a
    number or as 058Y; above 110 is unknown), Patient Gender and View Position; and, if both
    are there, the two lists of image names that publish a split. patient_id has eight digits,
    as in RSNA's mapping: the two are one population. Films lie in images/ or images_*/images/.
    Each row without a film is set aside as "row without a file".

    Raises:
      InputError: a file is missing or not of this layout, or there is no film at all.
    """
    root = pathlib.Path(root)
    rows, counts = read_rows(root)
    files = {path.name: str(path) for folder in _folders(root) for path in folder.iterdir()}
    found = rows["image_id"].isin(files)
    if not found.any():
        raise MissingData(f"{root} has no film of its {len(rows)} rows. {HOW_TO_GET}")
    rows["path"] = rows["image_id"].map(files).fillna(rows["image_id"])
    rows, aside = without_file(rows, found)
    extra = sorted(set(files) - set(rows["image_id"]))
    aside += [(name, name, "file without a row") for name in extra]
    return SourceTable(rows, rejected(aside), "patient", counts | {"films": len(files)})


def read_rows(root: str | os.PathLike[str]) -> tuple[pd.DataFrame, dict[str, int]]:
    """The table alone, no film sought: rows of `SourceTable` without `path`, and counts.

    Raises:
      InputError: as `read_table`, but for the films.
    """
    root = pathlib.Path(root)
    require(root, SPEC["needs"], HOW_TO_GET)
    path = find(root, ENTRIES)
    assert path is not None
    table = read_csv(path, COLUMNS, SPEC["where"])
    names = table["Image Index"]
    _check_entries(table, path)
    rows = pd.DataFrame({"image_id": names, "patient_id": table["Patient ID"].str.zfill(8)})
    rows["age_text"], rows["sex_text"] = table["Patient Age"], table["Patient Gender"]
    rows["view_text"] = table["View Position"]
    found = table["Finding Labels"].str.get_dummies("|")
    unknown = sorted(set(map(str, found)) - {*FINDINGS, NOTHING})
    if unknown:
        raise InputError(f"{path} has the finding {unknown[0]!r}; known are {', '.join(FINDINGS)}.")
    for name in FINDINGS:
        rows[f"label_{task_name(name)}"] = found[name].astype(float) if name in found else 0.0
    split = _published(root, names)
    if split is not None:
        rows["source_split"] = split
    counts = {"rows": len(rows), "patients": int(rows["patient_id"].nunique())}
    return rows.sort_values("image_id", ignore_index=True), counts


def inventory(
    root: pathlib.Path, options: Options
) -> tuple[list[pathlib.Path], list[tuple[str, int]]]:
    """The table and the two lists; names and sizes of the films."""
    tables = [find(root, ENTRIES) or root / ENTRIES, root / TRAIN_LIST, root / TEST_LIST]
    return tables, [entry for folder in _folders(root) for entry in sizes_in(folder, root)]


def label(rows: pd.DataFrame, options: Options) -> pd.DataFrame:
    """A finding that is not named is absent: labels stand as they were read."""
    return rows


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
    return [p for p in (root / "images", *sorted(root.glob("images_*/images"))) if p.is_dir()]


def _check_entries(table: pd.DataFrame, path: pathlib.Path) -> None:
    twice = table.loc[table["Image Index"].duplicated(), "Image Index"]
    if len(twice):
        raise InputError(f"{path} has two rows of the film {twice.iloc[0]!r}; get it again.")
    wrong = table.loc[~table["Patient ID"].str.fullmatch(r"\d{1,8}"), "Patient ID"]
    if len(wrong):
        raise InputError(f"{path} has the Patient ID {wrong.iloc[0]!r}; it is a number.")


def _published(root: pathlib.Path, names: pd.Series) -> pd.Series | None:
    """train or test of each film by the two lists, "" in neither; None without them."""
    if not all((root / name).is_file() for name in (TRAIN_LIST, TEST_LIST)):
        return None
    train, test = (set((root / n).read_text().split()) for n in (TRAIN_LIST, TEST_LIST))
    if train & test:
        raise InputError(
            f"{root} has the film {min(train & test)!r} in both {TRAIN_LIST} and {TEST_LIST}; get "
            f"the lists again from {SPEC['where']}."
        )
    return names.map(lambda n: "train" if n in train else "test" if n in test else "")
