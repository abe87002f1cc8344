"""Any CSV of images with patients, labels and attributes: what its columns mean is configured."""

import dataclasses
import math
import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jaxfair.data import manifest, pixels
from jaxfair.data.sources.base import (
    MissingData,
    SourceTable,
    read_csv,
    rejected,
    sizes_in,
    without_file,
)
from jaxfair.errors import InputError

if TYPE_CHECKING:
    from jaxfair.data.config import DataConfig

__all__ = [
    "HOW_TO_GET",
    "SPEC",
    "TableConfig",
    "inventory",
    "label",
    "read_pixels",
    "read_rows",
    "read_table",
]

SPEC: dict[str, Any] = {
    "name": "table",
    "title": "a table of images",
    "population": "table",
    "tasks": (),
    "attributes": ("sex", "age_group", "view"),
    "licence": "that of the files",
    "where": "",
    "needs": (),
    "optional": (),
    "ndim": 2,
    "channels": (1, 3),
    "patient_hint": "name the column of patients as data.table.patient",
    "config": "configs/table_resnet.py",
}

HOW_TO_GET = (
    "Wanted in one folder: the CSV that data.table.file names, and the images that it names by "
    "path (data.table.image), or one stack of them (data.table.stack)."
)

UNITS = ("patient", "lesion")
TAKEN = (*manifest.COLUMNS, "path", "index", "sex_text", "age_text", "view_text", "source_split",
         "also_test", "abnormal", "patient_abnormal", "task", "y_true", "y_score")  # fmt: skip
"""Columns of a manifest or of predictions that a group may not be called by."""
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "validate": "validation", "valid": "validation",
    "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
    "": "",
}  # fmt: skip
LABELS = {"": math.nan, "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "-0.0": 0.0}


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """What the columns of a table mean; each field but these is the name of one column.

    Attributes:
      file: the CSV, plain or .gz, relative to the root.
      labels: the columns of labels, 0, 1 or empty (not asked); each is a task of its name.
      image: path of the image (of the volume), relative to the root.
      stack: instead of `image`, an npy or npz file of all images, relative to the root: its
        image i belongs to row i of the CSV.
      id: names the image; None is its path or, in a stack, its row.
      patient: whose image it is; None where nobody knows, and each image stands alone.
      unit: what `patient` names, "patient" or "lesion" (protocol P2).
      sex, age, view: None where the header of a DICOM file has them, or nothing does. Age is in
        years.
      split: train, validation or test, for data.split="source".
      attributes: further columns of groups, kept as they are; an empty cell is "unknown".
      name: what reports and ledgers call these people.
      title: what reports call the data.
      licence: for the data card.
    """

    file: str
    labels: tuple[str, ...]
    image: str | None = None
    stack: str | None = None
    id: str | None = None
    patient: str | None = None
    unit: str = "patient"
    sex: str | None = None
    age: str | None = None
    view: str | None = None
    split: str | None = None
    attributes: tuple[str, ...] = ()
    name: str = "table"
    title: str = SPEC["title"]
    licence: str = SPEC["licence"]

    def __post_init__(self) -> None:
        for name in ("labels", "attributes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.labels:
            raise InputError("data.table.labels is empty; name at least one column of labels.")
        if (self.image is None) == (self.stack is None):
            raise InputError(
                "data.table needs either image (a column of paths) or stack (one npy or npz file)."
            )
        if self.unit not in UNITS:
            raise InputError(
                f"data.table.unit is {self.unit!r}; it must be one of {', '.join(UNITS)}."
            )
        for name in self.attributes:
            if name in TAKEN or name.startswith("label_"):
                raise InputError(
                    f"data.table.attributes has {name!r}, a name that a column of ours has; rename "
                    "it in the CSV (sex, age, view and split are options of data.table)."
                )
        named = [getattr(self, name) for name in ("image", "id", "patient", "sex", "age", "view")]
        kept = [*self.labels, *self.attributes, *(name for name in named if name)]
        twice = [name for name in kept if kept.count(name) > 1]
        if twice and set(twice) != {self.image}:  # an image's path may be its id
            raise InputError(f"data.table names the column {twice[0]!r} twice.")

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        named = (self.image, self.id, self.patient, self.sex, self.age, self.view, self.split)
        kept = [*(name for name in named if name), *self.labels, *self.attributes]
        return list(dict.fromkeys(kept))


read_pixels = pixels.read_square


def read_table(root: str | os.PathLike[str], config: "DataConfig") -> SourceTable:
    """Reads the CSV `config.table.file` and looks which of its images are there.

    A row without a patient, or whose path leads to no file, is set aside. Label cells are 0, 1
    or empty. Sex is read by `manifest.sex_from_text`, age by `age_from_text`.

    Raises:
      InputError: a column is missing, a label or split is none, an id occurs twice, no image
        is there, or the stack has another length than the table.
    """
    root = pathlib.Path(root)
    rows, aside = read_rows(root, config)
    about = table_of(config)
    counts = {"rows": len(rows) + len(aside)}
    unit = "image" if about.patient is None else about.unit
    if about.stack is not None:
        _check_stack(root / about.stack, counts["rows"])
        whole = 1 if about.stack.endswith(".npz") else None  # one copy of it in memory
        return SourceTable(rows, rejected(aside), unit, counts, whole)
    exists = rows["path"].map(os.path.exists).astype(bool)
    rows, lost = without_file(rows, exists)
    if rows.empty:
        raise InputError(
            f"None of the {counts['rows']} images that {root / about.file} names is there, as "
            f"{lost[0][1] if lost else 'none'}; paths in its column {about.image} are relative "
            f"to {root}."
        )
    return SourceTable(rows, rejected(aside + lost), unit, counts)


def read_rows(
    root: pathlib.Path, config: "DataConfig"
) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    """The table alone, no image sought: rows of `SourceTable`, and rows without a patient."""
    about = table_of(config)
    path = root / about.file
    if not root.is_dir():
        raise MissingData(f"The data folder {root} does not exist. {HOW_TO_GET}")
    if not path.is_file():
        raise MissingData(f"{root} has no file {about.file}. {HOW_TO_GET}")
    table = read_csv(path, about.columns)
    rows = pd.DataFrame({"image_id": _ids(table, about, path)}, dtype=object)
    rows["patient_id"] = table[about.patient] if about.patient else rows["image_id"]
    rows["path"] = str(root / about.stack) if about.stack else _paths(table[about.image], root)
    if about.stack:
        rows["index"] = np.arange(len(rows))
    for name, column in (("sex", about.sex), ("age", about.age), ("view", about.view)):
        if column:
            rows[f"{name}_text"] = table[column]
    if about.split:
        rows["source_split"] = _splits(table[about.split], about.split, path)
    for name in about.attributes:
        rows[name] = table[name].str.strip().replace("", "unknown")
    for name in about.labels:
        rows[f"label_{name}"] = _labels(table[name], name, path)
    nobody = rows["patient_id"].str.strip() == ""
    aside = [(i, pathlib.PurePath(p).name, f"row without a {about.unit}")
             for i, p in rows.loc[nobody, ["image_id", "path"]].to_numpy()]  # fmt: skip
    return rows[~nobody], aside


def inventory(
    root: pathlib.Path, config: "DataConfig"
) -> tuple[list[pathlib.Path], list[tuple[str, int]]]:
    """The CSV and the stack; names and sizes of the files that the CSV names."""
    about = table_of(config)
    tables = [root / name for name in (about.file, about.stack) if name]
    if about.image is None or not tables[0].is_file():
        return tables, []
    sizes: list[tuple[str, int]] = []
    for name in sorted(set(read_csv(tables[0], [about.image])[about.image])):
        path = root / name
        if name and path.is_dir():
            sizes += sizes_in(path, root)
        elif name and path.exists():
            sizes.append((name, path.stat().st_size))
    return tables, sizes


def label(rows: pd.DataFrame, config: "DataConfig") -> pd.DataFrame:
    """Labels stand as they are; one called anomaly also says whose images are abnormal.

    Then the anomaly detector's split and Method work on any table.
    """
    if "label_anomaly" not in rows:
        return rows
    rows = rows.assign(abnormal=rows["label_anomaly"] == 1)
    sick = rows.groupby("patient_id")["abnormal"].transform("any")
    return rows.assign(patient_abnormal=sick)


def table_of(config: "DataConfig") -> TableConfig:
    """The section data.table, which these sources have."""
    assert config.table is not None
    return config.table


def _ids(table: pd.DataFrame, about: TableConfig, path: pathlib.Path) -> pd.Series:
    column = about.id or about.image
    if column is None:
        return pd.Series([f"row-{i}" for i in range(len(table))])
    ids = table[column].str.strip()
    twice = ids[ids.duplicated() | (ids == "")]
    if len(twice):
        raise InputError(
            f"{path} names the image {twice.iloc[0]!r} in its column {column} twice, or not at "
            f"all ({len(twice)} rows); every row is one image."
        )
    return ids


def _paths(names: pd.Series, root: pathlib.Path) -> list[str]:
    return [os.path.join(root, name.strip()) for name in names]


def _labels(cells: pd.Series, name: str, path: pathlib.Path) -> pd.Series:
    values = cells.str.strip().map(LABELS)
    wrong = cells[~cells.str.strip().isin(list(LABELS))]
    if len(wrong):
        raise InputError(
            f"{path} holds the label {wrong.iloc[0]!r} in column {name}, row "
            f"{wrong.index[0] + 2} ({len(wrong)} such); a label is 0, 1 or empty."
        )
    return values.astype(float)


def _splits(cells: pd.Series, name: str, path: pathlib.Path) -> pd.Series:
    found = cells.str.strip().str.lower()
    wrong = cells[~found.isin(list(SPLIT_NAMES))]
    if len(wrong):
        raise InputError(
            f"{path} holds {wrong.iloc[0]!r} in column {name}; a split is train, validation, "
            "test or empty."
        )
    return found.map(SPLIT_NAMES)


def _check_stack(path: pathlib.Path, rows: int) -> None:
    if not path.is_file():
        raise MissingData(f"The stack {path} does not exist. {HOW_TO_GET}")
    images = pixels.open_stack(str(path))
    if len(images) != rows:
        raise InputError(
            f"{path} holds {len(images)} images and the table has {rows} rows; image i belongs "
            "to row i."
        )
