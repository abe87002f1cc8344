"""Cells: what is missing, which names are alike, which numbers and ages are understood."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxfair.errors import InputError
from jaxfair.schema import THESIS_AGE_EDGES, age_groups
from jaxfair.tables import MISSING, look_alikes, names, numbers, texts, years
from jaxfair.tables.ages import years_of


def column(*cells, name="score"):
    written = any(isinstance(cell, str) for cell in cells)
    return pd.Series(list(cells), name=name, dtype=object if written else None)


@pytest.mark.parametrize("spelled", sorted(MISSING))
def test_every_spelling_of_missing_is_missing_in_any_letters_and_nothing_longer_is(spelled):
    found = texts(column(spelled.upper(), f" {spelled.title()} ", f"{spelled}x"))
    assert found.tolist() == ["", "", f"{spelled}x"]


def test_every_missing_value_in_memory_is_missing():
    found = texts(column(None, math.nan, pd.NA, pd.NaT, np.float32("nan"), 0, False))
    assert found.tolist() == ["", "", "", "", "", "0", "False"]


def test_int_and_str_and_float_of_one_number_are_one_name():
    assert names(column(1, "1", 1.0, "1.0", np.int64(1), " 1", "1.")).nunique() == 1
    assert names(column("01", "1", "1.5", "v1.0")).tolist() == ["01", "1", "1.5", "v1.0"]


def test_dates_are_dates_in_memory_as_in_a_file():
    dates = pd.Series(pd.to_datetime(["2020-01-02", "2020-01-02 03:04:05"], format="mixed"))
    assert texts(dates).tolist() == ["2020-01-02", "2020-01-02 03:04:05"]


@given(st.text(st.characters()))
def test_a_text_has_no_control_characters_no_blanks_around_and_can_be_written(text):
    (found,) = texts(column(text))
    assert found == found.strip()
    assert not set(found) & set("\n\r\t\0\u2028")
    assert texts(column(found.encode().decode())).tolist() == [found]


@pytest.mark.parametrize(
    ("cells", "pairs"),
    [
        (["1", "1.0"], [("1", "1.0")]),
        (["00000001", "1", "2"], [("00000001", "1")]),
        (["P1", "p1"], [("P1", "p1")]),
        (["p 1", "p1"], [("p 1", "p1")]),
        (["a", " a", "a "], []),
        ([1, "1", "1"], []),
        (["0", "00", "10", "100"], [("0", "00")]),
        (["00012/12", "12/12", "12/120"], [("00012/12", "12/12")]),
        (["P001", "P1", "P100"], [("P001", "P1")]),
        (["A-1", "A\u20131", "A\u22121"], [("A-1", "A\u20131"), ("A-1", "A\u22121")]),
        (["p1", "p\u200b1"], [("p1", "p\u200b1")]),
        (["p1", "p\u00ad1"], [("p1", "p\u00ad1")]),
        (["1", "1,0"], [("1", "1,0")]),
        (["1.05", "1.5", "0.5", "5"], []),
        (["1.5", "15", "", None], []),
    ],
)
def test_texts_that_may_name_one_thing_are_found(cells, pairs):
    assert look_alikes(column(*cells)) == pairs


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["1", " 2.5 ", "", "NA", "1e-3", "-0", "+4"], [1, 2.5, None, None, 0.001, 0, 4]),
        (["43.2%", "5 %", ""], [0.432, 0.05, None]),
        (["43,2%", "5%"], [0.432, 0.05]),
        (["45,5", "46", "-0,25"], [45.5, 46, -0.25]),
        (["0,123", "0,456"], [0.123, 0.456]),
        (["1,234", "0,5"], [1.234, 0.5]),
        (["1,5e-3", "2"], [0.0015, 2]),
        (["\u22121", "2,0"], [-1, 2]),
        ([1, 2.5, None], [1, 2.5, None]),
        ([True, False], [1, 0]),
    ],
)
def test_numbers_are_read_as_people_write_them(cells, found):
    values = numbers(column(*cells))
    expected = [math.nan if value is None else value for value in found]
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize(
    ("cells", "value", "reason"),
    [
        (["0.5", "abc"], "'abc'", "is no finite number"),
        (["1,234", "2"], "'1,234'", "may be thousands or a decimal comma"),
        (["0,5", "0.5"], "'0,5'", "has a comma where other cells have a point"),
        (["43%", "0.5"], "'0.5'", "has no %, as other cells have"),
        (["1.234,5"], "'1.234,5'", "is no finite number"),
        (["1,234,567"], "'1,234,567'", "is no finite number"),
        (["1_000"], "'1_000'", "is no finite number"),
        (["0x1"], "'0x1'", "is no finite number"),
        (["inf"], "'inf'", "is no finite number"),
        ([1.0, math.inf], "'inf'", "is no finite number"),
        (["1 000"], "'1 000'", "is no finite number"),
    ],
)
def test_what_is_no_number_is_refused_with_file_column_row_and_value(cells, value, reason):
    with pytest.raises(InputError) as caught:
        numbers(column("", *cells) if isinstance(cells[0], str) else column(None, *cells),
                where="a.csv", rule="write it again")  # fmt: skip
    sentence = str(caught.value)
    assert sentence.startswith("a.csv, column score, row ") and sentence.endswith("write it again.")
    assert f": {value} {reason}" in sentence


def test_the_row_of_a_file_is_a_spreadsheets_and_of_memory_its_place():
    cells = pd.Series(["1", "x", "y"], name="a")
    with pytest.raises(InputError, match=r"f, column a, row 3: 'x' .*\(2 such cells\); w"):
        numbers(cells, where="f")
    with pytest.raises(InputError, match=r"^Column a, row 1: 'x'"):
        numbers(cells)


@given(st.lists(st.floats(allow_infinity=False)))
def test_a_number_that_is_written_out_is_read_back_to_the_last_bit(values):
    written = pd.Series(map(repr, values), dtype=str)
    np.testing.assert_array_equal(numbers(written), np.array(values))
    np.testing.assert_array_equal(numbers(pd.Series(values, dtype=object)), np.array(values))


@pytest.mark.parametrize(
    ("cell", "age"),
    [
        ("045Y", 45), ("45", 45), (45, 45), (45.5, 45.5), ("45,5", 45.5), ("45.0", 45), ("0", 0),
        ("006M", 0.5), ("6 months", 0.5), ("010W", 70 / 365.25), ("12D", 12 / 365.25),
        ("45 yrs", 45), ("89+", 89), ("90 +", 90), (">89", 90), (">=90", 90), ("≥ 76", 76),
        ("<1", 0), ("<18", 17), (" 7 ", 7),
        ("60+", None), ("75+", None), (">60", None), ("<19", None), ("111", None), ("200", None),
        ("110+", 110), (">110", None), ("-1", None), ("", None), (None, None), ("n/a", None),
        ("045X", None), ("40-44", None), ("inf", None), ("adult", None),
    ],
)  # fmt: skip
def test_ages_are_read_where_the_age_group_is_certain(cell, age):
    found = years_of(cell)
    assert found == pytest.approx(age) if age is not None else math.isnan(found)


@pytest.mark.parametrize("text", ["61+", ">60", "<32"])
def test_an_open_age_is_understood_where_all_its_ages_are_in_one_group(text):
    assert math.isnan(years_of(text)) and np.isfinite(years_of(text, THESIS_AGE_EDGES))


@given(st.integers(0, 130))
def test_whoever_is_at_least_so_old_is_in_the_group_of_the_bound_or_unknown(bound):
    (group,) = age_groups(years(column(f"{bound}+")))
    possible = set(age_groups(np.arange(bound, 111)))
    assert group in possible if len(possible) == 1 else group == "unknown"
