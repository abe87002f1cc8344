"""Short forms of the study's scenarios of contrasts: 400 repeats, 2.0 to 8.5 % at 5 %.

The quick one, to the edge of the scale, is in test_exchange.py.
"""

import pathlib
import sys

import pytest

EXPERIMENT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "e02_fairness_study"

pytestmark = pytest.mark.slow


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENT)
    before = set(sys.modules)
    import study

    yield study
    for name in set(sys.modules) - before:
        if name.startswith("study"):
            sys.modules.pop(name)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("edge_60_250_1000", "either called worse"),
        ("edge_90_10_50", "either called worse"),
        ("edge_99_25_100", "either called worse"),
        ("edge_spread", "either called worse"),
        ("edge_images", "either called worse"),
        ("rates_alike", "anything called worse"),
        ("rates_alike_5_images", "anything called worse"),
        ("unequal_views", "anything called worse"),
        ("fourteen_labels", "anything called worse"),
    ],
)
def test_nothing_is_called_worse_in_2_to_8_5_percent_where_nothing_is(study, name, outcome):
    shares = study.run(400, [name]).set_index("outcome")["share"]
    assert 0.02 <= shares[outcome] <= 0.085


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("rates_missed", "group 1 missed more often"),
        ("rates_shifted", "group 1 missed more often"),
        ("risks_too_low", "group 1's risk is called off"),
    ],
)
def test_a_planted_harm_is_found_in_four_of_five(study, name, outcome):
    shares = study.run(400, [name]).set_index("outcome")["share"]
    assert shares[outcome] >= 0.7
