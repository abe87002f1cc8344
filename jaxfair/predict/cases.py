"""Which cases a line of inputs names: files, folders, DICOM series and tables."""

import itertools
import os
import pathlib
import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxfair import tables
from jaxfair.data import containers, words
from jaxfair.data.series import COMPANIONS
from jaxfair.data.sources.base import read_csv
from jaxfair.errors import InputError

__all__ = ["COLUMNS", "Case", "cases_of", "named_apart", "shown"]

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
      where: the row of a table that names it; "" for a file that was found.
      wrong: why it is not to be scored, a sentence; "" for nothing.
      said: what is told of it all the same, a sentence; "" for nothing.
    """

    name: str
    path: str
    texts: Mapping[str, str] = {}
    where: str = ""
    wrong: str = ""
    said: str = ""


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
    *,
    none_yet: bool = False,
) -> list[Case]:
    """Returns the cases in a stable order, each file once, or once for each name in a table.

    A folder is looked through with all folders in it, but not where a link leads; what is hidden
    or left by a desktop is passed over. For volumes a folder that holds DICOM files is one series.
    Paths in a table are relative to the table. A row without a path, and a file of which two rows
    say different things, are cases with a `wrong`.

    Args:
      inputs: paths of files, folders and tables.
      kind: "picture" or "volume".
      attributes: of the model; columns of these names are taken along.
      columns: a name of COLUMNS, or an attribute -> the column of the tables that has it.
      none_yet: folders may be empty.

    Raises InputError where an input is not there, a table has no column of paths, or nothing is
    named at all.
    """
    found: list[Case] = []
    for given in inputs:
        path = pathlib.Path(given)
        if not path.exists():
            raise InputError(f"There is no {given}; name files, folders or tables.")
        found += _of_input(path, kind, tuple(attributes), columns or {})
    if not found and not none_yet:
        raise InputError(f"{', '.join(inputs)}: no file in it; name files, folders or tables.")
    return named_apart(_joined(found), ())


def named_apart(cases: Iterable[Case], taken: Collection[str]) -> list[Case]:
    """Returns the cases, each under a name of its own: the second is called by its path.

    One that a table calls otherwise has that `said`.

    Args:
      taken: names that others have.

    >>> two = [Case("a.png", "x/a.png"), Case("a.png", "y/a.png")]
    >>> [case.name for case in named_apart(two, ["y/a.png"])]
    ['a.png', 'y/a.png (2)']
    """
    used, found = set(taken), []
    for case in cases:
        path = shown(case.path)
        further = (f"{path} ({i})" for i in itertools.count(2))
        name = next(n for n in itertools.chain((case.name, path), further) if n not in used)
        used.add(name)
        if name != case.name and case.where:
            told = f"It is called {case.name!r} in {case.where}, and so is another case."
            case = case._replace(said=told)
        found.append(case._replace(name=name))
    return found


def _joined(cases: Iterable[Case]) -> Iterator[Case]:
    """One case for each file, or for each name that tables have for it, with all that they say."""
    files: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        files.setdefault((os.path.abspath(case.path), case.wrong), []).append(case)
    for found in files.values():
        texts, wrong = _together(found)
        listed = {case.name: case for case in found if case.where} or {"": found[0]}
        yield from (c._replace(texts=texts, wrong=c.wrong or wrong) for c in listed.values())


def _together(cases: Sequence[Case]) -> tuple[dict[str, str], str]:
    """What rows say of one file; and why it is not to be scored, where one gainsays another."""
    texts: dict[str, str] = {}
    said: dict[str, Case] = {}
    for case in cases:
        for what, text in case.texts.items():
            if not text:
                continue
            first = said.setdefault(what, case)
            if _meant(what, text) != _meant(what, texts.setdefault(what, text)):
                return texts, (
                    f"{pathlib.PurePath(case.path).name}: {what} is {texts[what]!r} in "
                    f"{first.where} and {text!r} in {case.where}; correct the table."
                )
    return texts, ""


def _meant(what: str, text: str) -> str:
    return str(words.READERS[what](text)[0]) if what in words.READERS else text


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
    for number, row in enumerate(rows.to_dict("records"), start=2):
        texts = {what: str(row[column]) for what, column in there.items()}
        cell, where = texts.pop("image").replace("\\", "/"), f"row {number} of {path.name}"
        name = texts.pop("id", "") or (posixpath.normpath(cell) if cell else "")
        if cell:
            yield Case(name, str(path.parent / cell), texts, where)
        else:
            wrong = f"{where} has no path in the column {there['image']!r}; fill it in."
            yield Case(name or where, str(path), texts, where, wrong)


def _column(
    what: str, header: Mapping[str, Any], columns: Mapping[str, str], path: pathlib.Path
) -> str | None:
    if what in columns:
        if columns[what] not in header:
            raise InputError(f"{path} has no column {columns[what]!r}; it has {', '.join(header)}.")
        return columns[what]
    names = COLUMNS.get(what, (what.lower(),))
    return next((name for name in header if name.lower() in names), None)
