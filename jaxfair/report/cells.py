"""Cells of tables as values, and how numbers, names and p values are written for people.

Nothing is rounded in favour of a claim: the ends of an interval go outwards, epsilon and what an
attacker finds up (`privacy.meaning`), patients found down, missed ones and false alarms up. Values
themselves go to the nearest.
"""

import dataclasses
import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.fairness.groups import OVERALL

__all__ = [
    "Cell",
    "Heat",
    "Interval",
    "Link",
    "Number",
    "Quiet",
    "Word",
    "as_cell",
    "at_least",
    "at_most",
    "cells",
    "listed",
    "name",
    "number",
    "p_text",
    "short",
    "with_interval",
]

_LONGEST = 32


class Cell:
    """A value in a table, in the parts in which it is shown; `str` is all of them in one line."""

    detail = ""
    """What stands below the main part, smaller."""
    kind = ""
    """'quiet' for what is missing, 'worse' for what must be seen, or a shade of a heat map."""

    @property
    def main(self) -> str:
        """What is read first."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.main} {self.detail}".strip()


@dataclasses.dataclass(frozen=True)
class Word(Cell):
    """Words that are no number; `worse` marks the row."""

    text: str
    worse: bool = False

    @property
    def main(self) -> str:
        """The words."""
        return self.text

    @property
    def kind(self) -> str:  # type: ignore[override]
        """'worse' where it is marked."""
        return "worse" if self.worse else ""


@dataclasses.dataclass(frozen=True)
class Quiet(Cell):
    """Why there is no value."""

    text: str
    kind = "quiet"

    @property
    def main(self) -> str:
        """The reason."""
        return self.text


@dataclasses.dataclass(frozen=True)
class Number(Cell):
    """A number; NaN is undefined."""

    value: float
    digits: int = 3

    @property
    def main(self) -> str:
        """'0.912', or 'undefined'."""
        return number(self.value, self.digits)

    @property
    def kind(self) -> str:  # type: ignore[override]
        """'quiet' for NaN."""
        return "quiet" if pd.isna(self.value) else ""


@dataclasses.dataclass(frozen=True)
class Interval(Cell):
    """A number with its interval, whose ends are rounded outwards.

    >>> str(Interval(0.91249, 0.8709, 0.9401)), str(Interval(0.9, float("nan"), 1.0))
    ('0.912 [0.870, 0.941]', '0.900 [no interval]')
    """

    value: float
    low: float
    high: float
    digits: int = 3

    @property
    def main(self) -> str:
        """'0.912'."""
        return number(self.value, self.digits)

    @property
    def detail(self) -> str:  # type: ignore[override]
        """'[0.870, 0.941]', or '[no interval]'."""
        if not np.isfinite([self.low, self.high]).all() or not self.low < self.high:
            return "[no interval]"
        return f"[{at_least(self.low, self.digits)}, {at_most(self.high, self.digits)}]"


@dataclasses.dataclass(frozen=True)
class Link(Cell):
    """Words that lead to the section of a title."""

    text: str
    section: str

    @property
    def main(self) -> str:
        """The words."""
        return self.text


@dataclasses.dataclass(frozen=True)
class Heat(Cell):
    """A cell of a heat map: `harm` from -1 (better) to 1 (worse), NaN for none; flagged or not."""

    text: str
    harm: float
    flagged: bool = False

    @property
    def main(self) -> str:
        """The number, and a mark that needs no colour."""
        return f"{self.text} worse" if self.flagged else self.text

    @property
    def kind(self) -> str:  # type: ignore[override]
        """'w0' to 'w4' for worse, 'b0' to 'b4' for better."""
        if pd.isna(self.harm):
            return "quiet"
        shade = min(4, math.floor(abs(self.harm) * 5))
        return f"{'w' if self.harm > 0 else 'b'}{shade}{' flagged' if self.flagged else ''}"


def as_cell(value: Any) -> Cell:
    """Returns a cell as it is, and anything else as words."""
    return value if isinstance(value, Cell) else Word(str(value))


def name(attribute: str, group: str) -> str:
    """'sex: F', or 'all'."""
    return "all" if attribute == OVERALL else f"{attribute}: {group}"


def short(text: str, longest: int = _LONGEST) -> str:
    """Returns a name that somebody chose, its middle left out where it is long.

    >>> short("a" * 40, 11)
    'aaaaa…aaaaa'
    """
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def listed(names: list[str], most: int = 3) -> str:
    """'a, b, c and 4 more'.

    >>> listed(["a", "b"]), listed(["a", "b", "c"], 1)
    ('a, b', 'a and 2 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def number(value: float, digits: int = 3) -> str:
    """A number for people; 'undefined' for NaN."""
    return "undefined" if pd.isna(value) else f"{value:.{digits}f}"


def at_least(value: float, digits: int = 0) -> str:
    """A number rounded down.

    >>> at_least(0.29, 2), at_least(-0.0001, 3), at_least(72.9)
    ('0.29', '-0.001', '72')
    """
    return _rounded(value, digits, ROUND_FLOOR)


def at_most(value: float, digits: int = 0) -> str:
    """A number rounded up.

    >>> at_most(0.29, 2), at_most(-0.0001, 3), at_most(41.1)
    ('0.29', '0.000', '42')
    """
    return _rounded(value, digits, ROUND_CEILING)


def _rounded(value: float, digits: int, way: str) -> str:
    """By the shortest decimal that is this float, so that 0.29 is no 0.28999."""
    exact = Decimal(repr(round(float(value), 12)))
    return f"{exact.quantize(Decimal(1).scaleb(-digits), rounding=way) + 0:f}"


def p_text(p: float) -> str:
    """A p value for people; empty for NaN."""
    return "" if pd.isna(p) else "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0")


def cells(
    table: pd.DataFrame,
    metric: str,
    *,
    interval: bool = False,
    digits: int = 3,
    missing: str = "undefined",
) -> list[Cell]:
    """A column as cells, with [low, high] from `<metric>_ci_low` or `<metric>_low` if asked.

    A value whose interval is asked for and undefined says so.
    """
    found: list[Cell] = []
    for row in table.to_dict("records"):
        value = row.get(metric, np.nan)
        low = row.get(f"{metric}_low", row.get(f"{metric}_ci_low", np.nan))
        high = row.get(f"{metric}_high", row.get(f"{metric}_ci_high", np.nan))
        if np.isnan(value):
            found.append(Quiet("too few" if row["too_few"] else missing))
        else:
            found.append(Interval(value, low, high, digits) if interval else Number(value, digits))
    return found


def with_interval(value: float, low: float, high: float, digits: int = 3) -> Cell:
    """'0.912 [0.870, 0.942]', '0.912 [no interval]', or 'undefined' for NaN."""
    return Interval(value, low, high, digits) if np.isfinite(value) else Quiet("undefined")
