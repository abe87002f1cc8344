"""What the words of a table or a header mean: sex, age and view, in the ways people write them."""

import math
import re
from collections.abc import Callable, Mapping

from jaxfair.schema import AGE_EDGES, UNKNOWN
from jaxfair.tables.ages import years_of
from jaxfair.tables.values import text_of

__all__ = ["READERS", "UNREAD", "age_from_text", "sex_from_text", "view_from_text"]

_OLDEST = AGE_EDGES[-1] - 1
_PLAIN = re.compile(r"\d{1,4}(?:[.,]\d+)?")
_YEARS = re.compile(r"(\d{1,4})(?:[.,]\d+)?\s*y?", re.IGNORECASE)

_WORDS = {
    "F": "F FEMALE FEM WOMAN W WEIBLICH FRAU FEMME FÉMININ FEMININ FEMENINO MUJER FEMMINA "
    "FEMMINILE VROUW VROUWELIJK FEMININO KVINNA KVINDE",
    "M": "M MALE MAN MANN MÄNNLICH MAENNLICH HOMME MASCULIN MASCULINO HOMBRE MASCHIO MASCHILE "
    "MANNELIJK",
}
_SEXES = {word: sex for sex, words in _WORDS.items() for word in words.split()}
_VIEWS = {
    "AP": "AP",
    "ANTEROPOSTERIOR": "AP",
    "PA": "PA",
    "POSTEROANTERIOR": "PA",
    "LATERAL": "lateral",
    "LAT": "lateral",
    "LL": "lateral",
    "RL": "lateral",
}
UNREAD = ("other", "unreadable", f"above {_OLDEST}")
"""How a text was read that is there and not understood."""


def age_from_text(text: str) -> tuple[float, str]:
    """An age to years and how it was read; what is no age becomes NaN.

    Returns:
      (years or NaN, one of "plain number", "age string", "missing", "above 110",
      "unreadable"). "043Y", "22Y", "006M", "010W" and "003D" (DICOM PS3.5, value representation
      AS) and what else `tables.years` understands, such as "90+", are age strings; "43", "43.0"
      and "43,5" plain numbers.

    >>> age_from_text("043Y"), age_from_text("43"), age_from_text("148")
    ((43.0, 'age string'), (43.0, 'plain number'), (nan, 'above 110'))
    """
    written = text_of(text)
    if not written:
        return math.nan, "missing"
    years = years_of(written)
    if not math.isnan(years):
        return years, "plain number" if _PLAIN.fullmatch(written) else "age string"
    old = _YEARS.fullmatch(written)
    return math.nan, f"above {_OLDEST}" if old and int(old[1]) > _OLDEST else "unreadable"


def sex_from_text(text: str) -> tuple[str, str]:
    """A sex to "F", "M" or "unknown", and how it was read.

    Words of some European languages are understood. Numbers are not: 1 is a man to one registry
    and a woman to another (`data.table.values` says which).

    >>> sex_from_text("F"), sex_from_text("weiblich"), sex_from_text("O"), sex_from_text("")
    (('F', 'as written'), ('F', 'normalised'), ('unknown', 'other'), ('unknown', 'missing'))
    """
    return _found(text, _SEXES.get(text_of(text).upper()))


def view_from_text(text: str) -> tuple[str, str]:
    """A view to one of `schema.VIEWS` or "unknown", and how it was read.

    Further words do not matter, but only one view may be named.

    >>> view_from_text("AP Supine"), view_from_text("p.a."), view_from_text("PA/LAT")
    (('AP', 'normalised'), ('PA', 'normalised'), ('unknown', 'other'))
    """
    joined = re.sub(r"(ANTERO|POSTERO)\W+", r"\1", text_of(text).upper())
    joined = re.sub(r"\b([AP])\s*\.\s*([AP])\b", r"\1\2", joined)  # "p.a.", as Germans write
    named = {_VIEWS[word] for word in re.split(r"[^A-Z]+", joined) if word in _VIEWS}
    return _found(text, named.pop() if len(named) == 1 else None)


READERS: Mapping[str, Callable[[str], tuple[float | str, str]]] = {
    "sex": sex_from_text,
    "age": age_from_text,
    "view": view_from_text,
}
"""By the column of a manifest."""


def _found(text: str, value: str | None) -> tuple[str, str]:
    written = text_of(text)
    if not written:
        return UNKNOWN, "missing"
    if value is None:
        return UNKNOWN, "other"
    return value, "as written" if value == written else "normalised"
