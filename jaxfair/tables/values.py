"""What a cell means: its text, whether it is missing, its name, its number.

A table may come from a CSV, from Excel, from parquet or from memory. A guess by the reader (is
this column of whole numbers or of text?) would differ between them, and between two halves of one
file. So every cell is text first, and becomes a number only where one is asked for.
"""

import datetime
import hashlib
import re
import unicodedata
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.errors import InputError

__all__ = [
    "MISSING",
    "bare",
    "look_alikes",
    "marked",
    "names",
    "numbers",
    "refusal",
    "text_of",
    "texts",
]

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "none", "null", "<na>", "nat"})
"""What stands for nothing, in small or capital letters, wherever a cell is read."""

_LONGEST = max(map(len, MISSING))
_EXACT = 2**53
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


def text_of(value: Any) -> str:
    """Returns a cell as the text that a CSV would hold, stripped; "" where it is missing.

    A whole number has no point (2.0 is "2"), since a blank beside it makes it one or takes it
    away. Line breaks and control characters are a space; letters are composed (NFC).

    >>> [text_of(value) for value in (" 007 ", 2.0, 0.5, None, float("nan"), "N/A")]
    ['007', '2', '0.5', '', '', '']
    """
    if isinstance(value, str):
        text = value.strip()
    elif value is None or value is pd.NA or value is pd.NaT:
        return ""
    elif isinstance(value, float | np.floating):
        number = float(value)
        whole = number.is_integer() and abs(number) < _EXACT
        text = str(int(number)) if whole else repr(number)
    elif isinstance(value, datetime.datetime) and value.time() == datetime.time():
        text = value.date().isoformat()
    else:
        text = str(value).strip()
    if not (text.isascii() and text.isprintable()):
        text = _composed(text)
    return "" if len(text) <= _LONGEST and text.lower() in MISSING else text


def texts(column: pd.Series) -> pd.Series:
    """Returns every cell as `text_of` says; the index stays."""
    cells = column.tolist()
    if not _are_texts(cells):
        cells = list(map(text_of, cells))
    return pd.Series(cells, column.index, dtype=str, name=column.name)


_ODD = re.compile(
    rf"\s\0|\0\s|\0(?:{'|'.join(map(re.escape, sorted(MISSING, reverse=True)))})(?=\0)",
    re.IGNORECASE,
)


def _are_texts(cells: list[Any]) -> bool:
    """True if every cell is as `text_of` leaves it; seen all at once, since most tables are."""
    try:
        whole = "".join(cells)
    except TypeError:
        return False
    found = whole.isascii() and whole.isprintable()
    return found and _ODD.search("\0" + "\0".join(cells) + "\0") is None


def names(column: pd.Series) -> pd.Series:
    """Returns the cells as names of people, images or groups: as `texts`, and "1.0" is "1".

    A column of whole numbers is written "1.0" as soon as one cell of it is blank, so the two
    cannot be told apart; see `look_alikes` for a column that has both.

    >>> names(pd.Series(["007", "1.0", "a.0", " b "])).tolist()
    ['007', '1', 'a.0', 'b']
    """
    cells = texts(column).replace("-0", "0").replace("-0.0", "0")
    pointed = cells.str.contains(".", regex=False)
    if pointed.any():
        cells = cells.mask(pointed, cells.str.replace(_WHOLE_ALL, r"\1", regex=True))
    return cells


_WHOLE_ALL = re.compile(rf"^{_WHOLE.pattern}$")


def bare(text: str) -> str:
    """Returns what texts that look alike have in common (see `look_alikes`).

    >>> bare("P 1"), bare("001"), bare("1.0")
    ('p1', '1', '1')
    """
    return _likeness([text])[0]


def marked(text: str) -> str:
    """Returns a text that looks like no other: with a mark, unless it is as `bare` leaves it.

    The mark is a digest of the text alone, so that nobody's name depends on who else is there.

    >>> marked("1"), marked("001"), marked("")
    ('1', '001 #7a3e6b16', '')
    """
    if not text or text == bare(text):
        return text
    return f"{text} #{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def look_alikes(column: pd.Series) -> list[tuple[str, str]]:
    """Returns pairs of different texts that may name one thing, sorted: they should be refused.

    Alike are "1", "1.0" and "001", "00012/12" and "12/12", and texts that differ only in capital
    letters, spaces, the kind of a dash, or characters that are not seen.

    >>> look_alikes(pd.Series(["1", "1.0", "p 1", "P1", "2", None]))
    [('1', '1.0'), ('P1', 'p 1')]
    """
    found = sorted(set(texts(column).unique().tolist()) - {""})
    keys = _likeness(found)
    if len(set(keys)) == len(found):
        return []
    first: dict[str, str] = {}
    pairs = [(first.setdefault(key, text), text) for key, text in zip(keys, found, strict=True)]
    return [pair for pair in pairs if pair[0] != pair[1]]


def _likeness(cells: list[str]) -> list[str]:
    """What is left of texts without spaces, capitals, leading zeros and ".0"; all at once."""
    whole = "\0".join(["", *cells, ""])
    if not whole.isascii():
        whole = "".join(map(_plain_letter, unicodedata.normalize("NFKC", whole)))
    whole = re.sub(r"\s+", "", whole).casefold()
    whole = re.sub(r"(?<=\d)[.,]0*(?=\0)", "", whole)
    return re.sub(r"(?<![\d.])0+(?=\d)", "", whole).split("\0")[1:-1]


def _plain_letter(letter: str) -> str:
    """A dash of any kind is "-", and what is not seen (zero width, soft hyphen) is nothing."""
    if letter.isascii():
        return letter
    category = unicodedata.category(letter)
    return "-" if category == "Pd" or letter == "\u2212" else "" if category == "Cf" else letter


def numbers(column: pd.Series, *, where: str = "", rule: str = "write a number") -> pd.Series:
    """Returns the cells as float64, NaN where missing; what cannot be understood is refused.

    Understood are 0.43, 1e-3, a decimal comma ("45,5") and percent ("43.2%" is .432). A column
    is read in one way: points and commas together, or percent in some cells only, are refused,
    and so is a comma that may part thousands ("1,234") unless other cells show that it does not.

    Args:
      column: cells of any type; its name is told in a refusal.
      where: the file, for a refusal; rows then count as a spreadsheet does (the header is 1).
      rule: what was expected, for a refusal.

    Raises:
      InputError: with file, column, row and value of the first cell that is none.

    >>> numbers(pd.Series(["43.2%", "5%", ""], name="score")).tolist()
    [0.432, 0.05, nan]
    """
    if pd.api.types.is_numeric_dtype(column):
        found = pd.Series(column.to_numpy(dtype=float, na_value=np.nan), column.index)
        if np.isinf(found).any():
            raise refusal(column, found.abs() == np.inf, "is no finite number", where, rule)
        return found
    cells = texts(column)
    found = pd.to_numeric(cells.where(cells != "", None), errors="coerce").astype(float)
    odd = (found.isna() | (found.abs() == np.inf)) & (cells != "")
    return found if not odd.any() else _in_one_way(cells[cells != ""], where, rule, column.index)


def _in_one_way(cells: pd.Series, where: str, rule: str, index: pd.Index) -> pd.Series:
    """Known cells with a decimal comma or a percent sign; all of them in the same manner."""
    percent = cells.str.endswith("%")
    if percent.any() and not percent.all():
        raise refusal(cells, ~percent, "has no %, as other cells have", where, rule)
    bare = cells.str.rstrip("%").str.strip().str.replace("\u2212", "-")
    comma = bare.str.fullmatch(_COMMA).astype(bool)
    thousands = bare.str.fullmatch(_THOUSANDS).astype(bool)
    pointed = bare.str.contains(".", regex=False)
    if comma.any() and pointed.any():
        raise refusal(cells, comma, "has a comma where other cells have a point", where, rule)
    if thousands.any() and not (comma & ~thousands).any():
        raise refusal(cells, thousands, "may be thousands or a decimal comma", where, rule)
    plain = bare.mask(comma, bare.str.replace(",", ".")) + ("e-2" if percent.all() else "")
    found = pd.to_numeric(plain, errors="coerce").astype(float)
    wrong = found.isna() | (found.abs() == np.inf)
    if wrong.any():
        raise refusal(cells, wrong, "is no finite number", where, rule)
    return found.reindex(index)


def refusal(column: pd.Series, wrong: pd.Series, what: str, where: str, rule: str) -> InputError:
    """Returns the sentence for the first wrong cell: file, column, row, value and the rule.

    Args:
      column: the cells; its index are the places of the rows, from 0.
      wrong: True where a cell is refused, with the same index.
      what: the verdict, such as "is no number".
      where: the file, "" for a table in memory, whose rows count from 0.
      rule: what was expected or is to be done.
    """
    row, value = column.index[wrong.to_numpy()][0], column[wrong].iloc[0]
    file = f"{where}, c" if where else "C"
    more = f" ({int(wrong.sum())} such cells)" if wrong.sum() > 1 else ""
    return InputError(
        f"{file}olumn {column.name}, row {_row(row, where)}: {str(value)!r} {what}{more}; {rule}."
    )


def _row(place: Hashable, where: str) -> Hashable:
    return place + 2 if where and isinstance(place, int | np.integer) else place


def _composed(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()  # half a character cannot be written
    text = unicodedata.normalize("NFC", text)
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text).strip(
        " \t\u00a0\ufeff\u200b"
    )
