"""Any CSV of images with patients, labels and attributes: what its columns mean is configured."""

import math
import os
import pathlib
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.data import pixels
from jaxfair.data.sources.base import (
    MissingData,
    SourceTable,
    read_csv,
    rejected,
    sizes_in,
    without_file,
)
from jaxfair.data.sources.columns import LICENCE, TITLE, TableConfig, TableOptions
from jaxfair.errors import InputError
from jaxfair.schema import ATTRIBUTES, UNKNOWN

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

SPEC: dict[str, Any] = {
    "name": "table",
    "title": TITLE,
    "population": "table",
    "tasks": (),
    "attributes": ATTRIBUTES,
    "licence": LICENCE,
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

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "validate": "validation", "valid": "validation",
    "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
    "": "",
}  # fmt: skip
LABELS = {"": math.nan, "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "-0.0": 0.0}


OPTIONS = TableOptions
read_pixels = pixels.read_square


def read_table(root: str | os.PathLike[str], options: TableOptions) -> SourceTable:
    """Reads the CSV `data.table.file` and looks which of its images are there.

    A row without a patient, or whose path leads to no file, is set aside. Label cells are 0, 1
    or empty. Sex is read by `manifest.sex_from_text`, age by `age_from_text`.

    Raises:
      InputError: a column is missing, a label or split is none, an id occurs twice, no image
        is there, or the stack has another length than the table.
    """
    root = pathlib.Path(root)
    rows, aside = read_rows(root, options)
    about = options.about
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
    root: pathlib.Path, options: TableOptions
) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    """The table alone, no image sought: rows of `SourceTable`, and rows without a patient."""
    about = options.about
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
        rows[name] = table[name].str.strip().replace("", UNKNOWN)
    for name in about.labels:
        rows[f"label_{name}"] = _labels(table[name], name, path)
    if about.weight:
        rows["weight"] = _weights(table[about.weight], about.weight, path)
    nobody = rows["patient_id"].str.strip() == ""
    aside = [(i, pathlib.PurePath(p).name, f"row without a {about.unit}")
             for i, p in rows.loc[nobody, ["image_id", "path"]].to_numpy()]  # fmt: skip
    return rows[~nobody], aside


def inventory(
    root: pathlib.Path, options: TableOptions
) -> tuple[list[pathlib.Path], list[tuple[str, int]]]:
    """The CSV and the stack; names and sizes of the files that the CSV names."""
    about = options.about
    tables = [root / name for name in (about.file, about.stack) if name]
    if about.image is None or not tables[0].is_file():
        return tables, []
    sizes: list[tuple[str, int]] = []
    for name in sorted(set(read_csv(tables[0], [about.image])[about.image])):
        path = root / name
        if name and os.path.isdir(path):  # False, where a Path raises, for a name that is none
            sizes += sizes_in(path, root)
        elif name and os.path.exists(path):
            sizes.append((name, path.stat().st_size))
    return tables, sizes


def label(rows: pd.DataFrame, options: TableOptions) -> pd.DataFrame:
    """Labels stand as they are; one called anomaly also says whose images are abnormal.

    Then the anomaly detector's split and Method work on any table.
    """
    if "label_anomaly" not in rows:
        return rows
    rows = rows.assign(abnormal=rows["label_anomaly"] == 1)
    sick = rows.groupby("patient_id")["abnormal"].transform("any")
    return rows.assign(patient_abnormal=sick)


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
    wrong = cells[~cells.str.strip().isin(list(LABELS))]
    _refuse(wrong, f"label {{!r}} in column {name}", "a label is 0, 1 or empty", path)
    return cells.str.strip().map(LABELS).astype(float)


def _weights(cells: pd.Series, name: str, path: pathlib.Path) -> pd.Series:
    values = pd.to_numeric(cells, errors="coerce")
    wrong = cells[~(np.isfinite(values) & (values >= 0))]
    _refuse(wrong, f"weight {{!r}} in column {name}", "a weight is a number of 0 or more", path)
    return values.astype(float)


def _refuse(wrong: pd.Series, what: str, rule: str, path: pathlib.Path) -> None:
    """Raises InputError for the first of the cells, if there are any."""
    if len(wrong):
        cell, row = wrong.iloc[0], wrong.index[0] + 2
        raise InputError(
            f"{path} holds the {what.format(cell)}, row {row} ({len(wrong)} such); {rule}."
        )


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
