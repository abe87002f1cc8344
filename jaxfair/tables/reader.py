"""One reader of tables: CSV of any kind, Excel and parquet, as stripped text.

What a file is, its first bytes say, not its name.
"""

import csv
import gzip
import io
import itertools
import os
import pathlib
import textwrap
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from jaxfair.errors import InputError, nearest
from jaxfair.tables.values import text_of, texts

__all__ = ["FORMATS", "read_table"]

FORMATS = ".csv, .tsv, .txt (also .gz), .xlsx or .parquet"
_GZIP, _ZIP, _PARQUET, _OLD_EXCEL = b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"\xd0\xcf\x11\xe0"
_LARGEST = 2**32
"""Bytes that a packed file may unpack to."""
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_BETWEEN = ",;\t|"
_FIRST = 50
"""Rows that are looked at to find out what parts the cells."""


def read_table(
    path: str | os.PathLike[str],
    *,
    required: Sequence[str] = (),
    optional: Sequence[str] | None = None,
    remarks: list[str] | None = None,
) -> pd.DataFrame:
    """Reads a table as text: stripped cells, "" where one is missing (`values.MISSING`).

    Nothing is guessed: "007" stays "007". Cells of a CSV are parted by commas, semicolons, tabs or
    bars; its letters are UTF-8 or UTF-16, with a mark or without, and in lines that are neither
    Latin-1. Of an Excel file the first sheet is read. Empty lines, and empty rows at the end, are
    left out.

    Args:
      path: the file; .gz is unpacked.
      required: columns that must be there.
      optional: further columns that are read if they are there; None reads all.
      remarks: gets a sentence about what was taken for granted (Latin-1, one of several sheets).

    Returns:
      Columns of str in the order of the file, rows 0 to n - 1.

    Raises:
      InputError: the file is missing, is no table, is cut off, lacks a column or has one twice.
    """
    path = pathlib.Path(path)
    said: list[str] = [] if remarks is None else remarks
    content = _unpacked(path)
    if content.startswith(_PARQUET):
        return _chosen(_parquet(path, content), path, required, optional)
    if content.startswith(_ZIP):
        rows = _excel(path, content, said)
    else:
        rows = _csv(path, content, required, said)
    return _from_rows(rows, path, required, optional)


def _unpacked(path: pathlib.Path) -> bytes:
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            with gzip.open(io.BytesIO(content)) as stream:
                content = stream.read(_LARGEST + 1)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; give a table as {FORMATS}.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); get it again.") from error
    if len(content) > _LARGEST:
        raise InputError(f"{path} unpacks to more than {_LARGEST:,} bytes; split it.")
    if content.startswith(_OLD_EXCEL):
        raise InputError(f"{path} is an old Excel file; save it as .xlsx or CSV.")
    if not content.strip():
        raise InputError(f"{path} cannot be read as a table (it is empty); get it again.")
    return content


def _text(path: pathlib.Path, content: bytes, said: list[str]) -> str:
    name = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    if name == "utf-8":
        name = _without_mark(content[:4096])
    try:
        return content.decode(name)
    except UnicodeDecodeError as error:
        if name != "utf-8":
            raise InputError(f"{path} is broken {name} text ({error}); save it as UTF-8.") from None
    said.append(f"{path} is not UTF-8 and was read as Latin-1; look whether its letters are right.")
    return "".join(map(_line, content.splitlines(keepends=True)))


def _line(content: bytes) -> str:
    """Each line by itself: one patient's letters do not change how another's id is read (P15)."""
    for name in ("utf-8", "cp1252"):
        try:
            return content.decode(name)
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1")


def _without_mark(start: bytes) -> str:
    """UTF-16 shows by its zeros: at least a tenth of the even places, or of the odd ones."""
    even, odd = (start[i::2].count(0) for i in (0, 1))
    if max(even, odd) * 20 < len(start) or min(even, odd) * 10 > max(even, odd):
        return "utf-8"
    return "utf-16-le" if odd > even else "utf-16-be"


def _csv(
    path: pathlib.Path, content: bytes, required: Sequence[str], said: list[str]
) -> Iterator[Sequence[str]]:
    """Rows of texts, the header first; every row as long as the header."""
    text = _text(path, content, said)
    between = _BETWEEN
    if text[:4].lower() == "sep=":  # Excel's own first line
        first, _, text = text.partition("\n")
        between = first[4:5]
    try:
        yield from _even(_parsed(text, _delimiter(text, between, required)), text, path)
    except csv.Error as error:
        raise InputError(
            f"{path} cannot be read as a table ({error}); quotes must come in pairs."
        ) from error


def _parsed(text: str, between: str) -> Any:
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, delimiter=between, strict=True, skipinitialspace=True)


def _delimiter(text: str, choices: str, required: Sequence[str]) -> str:
    """The one that finds the columns, or else parts the first rows alike, or else the header."""

    def worth(between: str) -> tuple[bool, int, int]:
        try:
            rows = list(itertools.islice(filter(any, _parsed(text, between)), _FIRST))
        except csv.Error:
            return False, 0, 0
        header = [text_of(cell) for cell in rows[0]] if rows else []
        alike = sum(len(row) == len(header) > 1 for row in rows)
        return set(required) <= set(header), alike, len(header)

    return max(choices, key=worth)


def _even(reader: Any, text: str, path: pathlib.Path) -> Iterator[Sequence[str]]:
    width, row = 0, []
    for row in reader:
        if len(row) < 2 and not "".join(row).strip():
            continue  # an empty line
        width = width or len(row)
        if len(row) > width and any(map(str.strip, row[width:])):
            raise InputError(
                f"{path}, line {reader.line_num}, has {len(row)} cells, its header {width}; put"
                " quotes around a cell with a comma in it, or semicolons between cells."
            )
        yield row if len(row) >= width else row + [""] * (width - len(row))
    if 0 < len(row) < width and not text.endswith(("\n", "\r")):
        raise InputError(f"{path} is cut off within its last line; get it again.")


def _excel(path: pathlib.Path, content: bytes, said: list[str]) -> Iterator[Sequence[Any]]:
    import openpyxl  # which takes a while, and few tables need it

    try:
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # what the file says of its size may be wrong
        rows = list(sheet.iter_rows(values_only=True))
    except Exception as error:  # whatever another's file makes another's library raise
        raise InputError(
            f"{path} cannot be read as an Excel file ({type(error).__name__}); save it as CSV."
        ) from error
    if len(book.worksheets) > 1:
        said.append(
            f"{path} has {len(book.worksheets)} sheets; the first, {sheet.title!r}, was read."
        )
    width = max(map(len, rows), default=0)
    yield from (list(row) + [None] * (width - len(row)) for row in rows)


def _parquet(path: pathlib.Path, content: bytes) -> pd.DataFrame:
    try:
        table = pd.read_parquet(io.BytesIO(content))
    except Exception as error:  # as above
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be read as parquet ({reason}); write it again.") from error
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    table.columns = pd.Index([text_of(name) for name in table.columns])
    return table.reset_index(drop=True)


def _from_rows(
    rows: Iterable[Sequence[Any]],
    path: pathlib.Path,
    required: Sequence[str],
    optional: Sequence[str] | None,
) -> pd.DataFrame:
    filled = iter(rows)
    header = next(filter(any, ([text_of(cell) for cell in row] for row in filled)), [])
    places = _places(header, path, required, optional)
    columns: list[list[str]] = [[] for _ in places]
    last = 0
    for n, row in enumerate(filled, start=1):
        for cells, place in zip(columns, places, strict=True):
            cells.append(text_of(row[place]))
        last = n if any(map(text_of, row)) else last
    found = {header[place]: cells[:last] for place, cells in zip(places, columns, strict=True)}
    return pd.DataFrame(found, dtype=str)


def _chosen(
    table: pd.DataFrame,
    path: pathlib.Path,
    required: Sequence[str],
    optional: Sequence[str] | None,
) -> pd.DataFrame:
    places = _places(list(table.columns), path, required, optional)
    found = {table.columns[place]: texts(table.iloc[:, place]) for place in places}
    return pd.DataFrame(found, index=table.index, dtype=str)


def _places(
    header: Sequence[str],
    path: pathlib.Path,
    required: Sequence[str],
    optional: Sequence[str] | None,
) -> list[int]:
    """Where the columns stand that are wanted; one without a name is nobody's."""
    for name in required:
        if name not in header:
            known = textwrap.shorten(", ".join(filter(None, header)) or "none", 400)
            raise InputError(
                f"{path} lacks the column {name}; it has {known}.{nearest(name, header)}"
            )
    wanted = set(header) if optional is None else {*required, *optional}
    places = [i for i, name in enumerate(header) if name and name in wanted]
    for one, other in itertools.combinations(places, 2):
        if header[one] == header[other]:
            raise InputError(f"{path} has the column {header[one]} twice; rename one of them.")
    return places
