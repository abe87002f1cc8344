"""Any CSV of images with patients, labels and attributes: what its columns mean is configured."""

import os
import pathlib
import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxfair import tables
from jaxfair.data import pixels, words
from jaxfair.data.card import meaning_of
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

OPTIONS = TableOptions
read_pixels = pixels.read_square


def read_table(root: str | os.PathLike[str], options: TableOptions) -> SourceTable:
    """Reads the CSV `data.table.file` and looks which of its images are there.

    A row without a patient, or whose path leads to no file, is set aside. Label cells are 0, 1
    or empty. Sex, age and view are read by `words`, after `data.table.values`. Backslashes in a
    path part folders.

    Raises:
      InputError: a column is missing, a label or split is none, an id occurs twice, patients
        look alike, a column of groups says nothing, no image is there, or the stack has another
        length than the table.
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
    if not exists.any():
        raise InputError(_no_image(root, about, rows["path"]))
    rows, lost = without_file(rows, exists)
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
        raise _no_table(root, about)
    remarks: list[str] = []
    table = read_csv(path, about.columns, remarks=remarks)
    print(*remarks, sep="\n", end="\n" * bool(remarks), file=sys.stderr)
    rows = pd.DataFrame({"image_id": _ids(table, about, path)}, dtype=object)
    rows["patient_id"] = _patients(table, about, path) if about.patient else rows["image_id"]
    rows["path"] = (
        str(root / about.stack)
        if about.stack
        else [_path(root, name) for name in table[about.image]]
    )
    if about.stack:
        rows["index"] = np.arange(len(rows))
    for name, column in (("sex", about.sex), ("age", about.age), ("view", about.view)):
        if column:
            cells = _meant(table[column], about.words.get(name, {}))
            _refuse_mute(cells, name, words.READERS[name], path)
            rows[f"{name}_text"] = cells
    if about.split:
        rows["source_split"] = tables.splits(table[about.split], where=str(path), empty=True)
    for name in about.attributes:
        _refuse_mute(table[name], name, lambda cell: (cell, "as written"), path)
        rows[name] = _meant(table[name], about.words.get(name, {})).replace("", UNKNOWN)
    for name in about.labels:
        rows[f"label_{name}"] = tables.labels(table[name], where=str(path))
    if about.anomaly:
        parts = [tables.labels(table[name], where=str(path)) for name in about.anomaly]
        found = pd.concat(parts, axis=1)
        rows["label_anomaly"] = found.max(axis=1, skipna=False).mask((found == 1).any(axis=1), 1.0)
    if about.weight:
        rows["weight"] = _weights(table[about.weight], path)
    nobody = rows["patient_id"] == ""
    aside = [(i, pathlib.PurePath(p).name, f"row without a {about.unit}")
             for i, p in rows.loc[nobody, ["image_id", "path"]].to_numpy()]  # fmt: skip
    return rows[~nobody], aside


def inventory(
    root: pathlib.Path, options: TableOptions
) -> tuple[list[pathlib.Path], list[tuple[str, int]]]:
    """The CSV and the stack; names and sizes of the files that the CSV names."""
    about = options.about
    listed = [root / name for name in (about.file, about.stack) if name]
    if about.image is None or not listed[0].is_file():
        return listed, []
    sizes: list[tuple[str, int]] = []
    for name in sorted(set(read_csv(listed[0], [about.image])[about.image])):
        path = pathlib.Path(_path(root, name))
        if name and os.path.isdir(path):  # False, where a Path raises, for a name that is none
            sizes += sizes_in(path, root)
        elif name and os.path.exists(path):
            sizes.append((name, path.stat().st_size))
    return listed, sizes


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
    ids = table[column]
    twice = ids[ids.duplicated() | (ids == "")]
    if len(twice):
        raise InputError(
            f"{path} names the image {twice.iloc[0]!r} in its column {column} twice, or not at "
            f"all ({len(twice)} rows); every row is one image."
        )
    return ids


def _patients(table: pd.DataFrame, about: TableConfig, path: pathlib.Path) -> "pd.Series[str]":
    """Ids of patients; two that look alike would be two patients in two splits."""
    ids = table[about.patient]
    if about.look_alikes == "merge":
        return ids.map(tables.bare)
    if about.look_alikes == "apart":
        return ids.map(tables.marked)
    pairs = tables.look_alikes(ids)
    if pairs:
        raise InputError(
            f"{path} names the {about.unit}s {pairs[0][0]!r} and {pairs[0][1]!r} in its column "
            f"{about.patient} ({len(pairs)} such), who look like one: write their ids alike, or "
            "say data.table.look_alikes='merge' (they are one) or 'apart' (they are two)."
        )
    return ids


def _no_table(root: pathlib.Path, about: TableConfig) -> InputError:
    """The sentence for a folder without the table; it names those that are there."""
    ends = (".csv", ".tsv", ".txt", ".xlsx", ".parquet", ".gz")
    there = sorted(path.name for path in root.iterdir() if path.name.lower().endswith(ends))
    if there:
        return InputError(
            f"{root} has no file {about.file}; name the table as data.table.file (there are "
            f"{textwrap.shorten(', '.join(there), 200)}) and its columns in data.table."
        )
    return MissingData(f"{root} has no file {about.file}. {HOW_TO_GET}")


def _path(root: pathlib.Path, name: str) -> str:
    """Where an image lies; a backslash parts folders unless such a file is there."""
    path = os.path.join(root, name)
    return path if "\\" not in name or os.path.exists(path) else path.replace("\\", "/")


def _no_image(root: pathlib.Path, about: TableConfig, paths: "pd.Series[str]") -> str:
    """The sentence for a table none of whose images is there."""
    first = pathlib.Path(paths.iloc[0])
    found = next((p for p in sorted(root.rglob(first.name))), None) if first.name else None
    hint = f" A file of that name lies in {found.parent}: correct the paths." if found else ""
    return (
        f"None of the {len(paths)} images that {root / about.file} names is there, as {first}; "
        f"paths in its column {about.image} are relative to {root} (backslashes are read as /)."
        f"{hint}"
    )


def _meant(cells: "pd.Series[str]", meanings: Mapping[str, str]) -> "pd.Series[str]":
    """The cells, where data.table.values has them by what they mean; capitals do not matter."""
    known = {word.casefold(): value for word, value in meanings.items()}
    return cells.map(lambda cell: known.get(cell.casefold(), cell)) if known else cells


def _refuse_mute(cells: "pd.Series[str]", name: str, read: Callable, path: pathlib.Path) -> None:
    """Raises InputError for a column of groups of which not one cell is understood."""
    seen = cells.value_counts()
    if any(read(cell)[1] not in ("missing", *words.UNREAD) for cell in seen.index if cell):
        return
    holds = ", ".join(f"{cell!r} x {n}" for cell, n in seen.head(5).items() if cell) or "nothing"
    raise InputError(
        f"{path}: no cell of its column {cells.name} ({name}) is understood (it holds {holds}); "
        f"say what its words mean, as {meaning_of(name)}, or leave the column out."
    )


def _weights(cells: pd.Series, path: pathlib.Path) -> pd.Series:
    rule = "a weight is a number of 0 or more"
    found = tables.numbers(cells, where=str(path), rule=rule)
    if not (found >= 0).all():
        raise tables.refusal(cells, ~(found >= 0), "is no weight", str(path), rule)
    return found


def _check_stack(path: pathlib.Path, rows: int) -> None:
    if not path.is_file():
        raise MissingData(f"The stack {path} does not exist. {HOW_TO_GET}")
    images = pixels.open_stack(str(path))
    if len(images) != rows:
        raise InputError(
            f"{path} holds {len(images)} images and the table has {rows} rows; image i belongs "
            "to row i."
        )
