"""How an interval, or a missing one, is written."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxfair.fairness.table import NOMINAL, REALISED
from jaxfair.report.cells import cells, with_interval
from jaxfair.report.coverage import coverage_words


def shown(table, **options):
    return [str(cell) for cell in cells(table, "x", **options)]


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(1e-9, 0.5), st.integers(0, 3))
def test_an_interval_goes_outwards_and_its_ends_never_read_the_same(low, width, digits):
    text = str(with_interval(low + width / 2, low, low + width, digits))
    a, b = map(float, re.search(r"\[(.*), (.*)\]", text).groups())
    assert a < b and a <= low + 1e-9 and low + width <= b + 1e-9


@pytest.mark.parametrize(("low", "high"), [(np.nan, np.nan), (1.0, 1.0), (np.nan, 1.0)])
def test_a_value_without_an_interval_says_so_and_never_stands_bare(low, high):
    table = pd.DataFrame({"x": [1.0], "x_low": [low], "x_high": [high], "too_few": [False]})
    assert shown(table, interval=True) == ["1.000 [no interval]"]
    assert shown(table) == ["1.000"]


def test_too_few_and_undefined_take_the_place_of_the_value():
    table = pd.DataFrame({"x": [np.nan, np.nan], "too_few": [True, False]})
    assert shown(table, interval=True) == ["too few", "undefined"]
    assert shown(table, interval=True, missing="") == ["too few", ""]
    assert {cell.kind for cell in cells(table, "x")} == {"quiet"}


def test_the_page_says_realised_or_nominal():
    nominal, realised = (
        coverage_words(pd.DataFrame({"covers": [covers, "", np.nan]}))
        for covers in (NOMINAL, REALISED)
    )
    assert "cover the nominal rate" in nominal and "cover the realised rate" not in nominal
    assert "cover the realised rate" in realised and "nominal" not in realised
    assert "bound" in nominal and "bound" in coverage_words(pd.DataFrame({"value": [1.0]}))
