"""Which cases a line of inputs names: files, folders, DICOM series and tables."""

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxfair import tables
from jaxfair.data import containers
from jaxfair.data.series import COMPANIONS
from jaxfair.data.sources.base import read_csv
from jaxfair.errors import InputError

__all__ = ["COLUMNS", "Case", "cases_of", "shown"]

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "path", "file", "filename", "image_path", "file_path"),
    "id": ("image_id", "id"),
    "patient": ("patient_id", "patient", "patientid"),
    "sex": ("sex", "patient_sex", "gender"),
    "age": ("age", "patient_age"),
    "view": ("view", "view_position", "viewposition"),
}
"""What a table is asked for, and the names of a column, in small letters, by which it is found."""

_TABLES = (".csv", ".tsv", ".xlsx", ".parquet", ".csv.gz", ".tsv.gz")
_VOLUMES = ("NIfTI", "npy", "npz")


class Case(NamedTuple):
    """One image or volume, before it is read.

    Attributes:
      name: by which it is called in what is written; each case has another.
      path: its file, or the folder of its DICOM slices.
      texts: what a table says of it: `sex`, `age`, `view`, `patient` and attributes of the model;
        what is not there is asked of the file's header.
    """

    name: str
    path: str
    texts: Mapping[str, str] = {}


def shown(text: str) -> str:
    """Returns the name of a file as text that any table can hold, whatever bytes it is made of.

    >>> shown("film\\udcff.png")
    'film\\\\xff.png'
    """
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def cases_of(
    inputs: Sequence[str],
    kind: str,
    attributes: Iterable[str],
    columns: Mapping[str, str] | None = None,
) -> list[Case]:
    """Returns the cases in a stable order, each once.

    A folder is looked through with all folders in it, but not where a link leads; what is hidden
    or left by a desktop is passed over. For volumes a folder that holds DICOM files is one series.
    Paths in a table are relative to the table.

    Args:
      inputs: paths of files, folders and tables.
      kind: "picture" or "volume".
      attributes: of the model; columns of these names are taken along.
      columns: a name of COLUMNS, or an attribute -> the column of the tables that has it.

    Raises InputError where an input is not there, a table has no column of paths, or nothing is
    named at all.
    """
    found: dict[str, Case] = {}
    for given in inputs:
        path = pathlib.Path(given)
        if not path.exists():
            raise InputError(f"There is no {given}; name files, folders or tables.")
        for case in _of_input(path, kind, tuple(attributes), columns or {}):
            known = found.setdefault(case.name, case)
            if known.path != case.path:
                found[case.path] = case._replace(name=shown(case.path))
    if not found:
        raise InputError(f"{', '.join(inputs)}: no file in it; name files, folders or tables.")
    return list(found.values())


def _of_input(
    path: pathlib.Path, kind: str, attributes: tuple[str, ...], columns: Mapping[str, str]
) -> Iterator[Case]:
    if path.is_file() and path.name.lower().endswith(_TABLES):
        yield from _of_table(path, attributes, columns)
    elif path.is_file():
        yield Case(shown(path.name), str(path))
    elif kind == "volume":
        yield from _volumes(path)
    else:
        yield from (Case(_below(file, path), str(file)) for file in _files(path))


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield from filter(_is_wanted, (pathlib.Path(place, name) for name in sorted(names)))


def _is_wanted(path: pathlib.Path) -> bool:
    """Pipes and devices are no files, and to open one may take for ever; a dead link is a fault."""
    odd = path.exists() and not path.is_file()
    return not odd and not path.name.startswith(".") and path.name.lower() not in COMPANIONS


def _volumes(folder: pathlib.Path) -> Iterator[Case]:
    """A case for each folder of DICOM files, and one for each other volume or unknown file."""
    series: dict[pathlib.Path, list[pathlib.Path]] = {}
    for file in _files(folder):
        series.setdefault(file.parent, []).append(file)
    for place, files in series.items():
        kinds = [_kind(file) for file in files]
        if "DICOM" in kinds:
            yield Case(_below(place, folder), str(place))
        for file, kind in zip(files, kinds):
            if kind in _VOLUMES or "DICOM" not in kinds:
                yield Case(_below(file, folder), str(file))


def _kind(file: pathlib.Path) -> str:
    try:
        return containers.kind_of(file)
    except InputError:
        return ""


def _below(path: pathlib.Path, folder: pathlib.Path) -> str:
    inside = path.relative_to(folder).as_posix()
    return shown(folder.resolve().name if inside == "." else inside)


def _of_table(
    path: pathlib.Path, attributes: tuple[str, ...], columns: Mapping[str, str]
) -> Iterator[Case]:
    header = {str(name).strip(): None for name in tables.read_table(path).columns}
    named = {what: _column(what, header, columns, path) for what in (*COLUMNS, *attributes)}
    if named["image"] is None:
        raise InputError(
            f"{path} has no column of paths (it has {', '.join(header)}); name it as --columns "
            "image=COLUMN."
        )
    there = {what: column for what, column in named.items() if column is not None}
    rows: Any = read_csv(path, list(dict.fromkeys(there.values())))
    for row in rows.to_dict("records"):
        texts = {what: str(row[column]) for what, column in there.items()}
        cell = texts.pop("image").replace("\\", "/")
        yield Case(texts.pop("id", "") or cell, str(path.parent / cell), texts)


def _column(
    what: str, header: Mapping[str, Any], columns: Mapping[str, str], path: pathlib.Path
) -> str | None:
    if what in columns:
        if columns[what] not in header:
            raise InputError(f"{path} has no column {columns[what]!r}; it has {', '.join(header)}.")
        return columns[what]
    names = COLUMNS.get(what, (what.lower(),))
    return next((name for name in header if name.lower() in names), None)
