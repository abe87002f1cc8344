"""Before and after: paired changes of gaps, FATE by both terms, the front of several runs."""

import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.fairness import parity
from jaxfair.fairness.areas import auroc_levels
from jaxfair.fairness.change import changes, check_paired, fate_of, overall_change
from jaxfair.fairness.delong import auroc_estimate, logit_interval
from jaxfair.fairness.levels import Levels, overall_interval, spreads
from jaxfair.fairness.odds import decisions
from jaxfair.fairness.resamples import Resamples
from jaxfair.fairness.selection import front, pareto, trade_off
from tests.fairness.conftest import make_predictions

WORST = "delta-EO, worst case"


@pytest.fixture(scope="module")
def pair():
    """The same patients before, with a gap, and after, without."""
    return [Resamples(make_predictions(3000, gap=gap), n_draws=200) for gap in (0.6, 0.0)]


@pytest.fixture(scope="module")
def odds(pair):
    return [decisions(resamples, "sex").levels for resamples in pair]


def test_a_gap_that_is_gone_has_a_change_below_zero(pair, odds):
    check_paired(*pair)
    before, after = (spreads(levels)[WORST] for levels in odds)
    change = changes(*odds)[WORST]
    assert change.value == pytest.approx(after.value - before.value)
    assert change.ci_low < change.value < change.ci_high < 0
    assert before.p_value <= 0.05 < after.p_value and after.ci_low == 0
    gained = overall_change(*odds)
    assert 0 < gained.ci_low < gained.value < gained.ci_high


def test_one_model_beside_itself_has_no_change_and_no_interval(odds):
    change = changes(odds[0], odds[0])[WORST]
    assert change.value == 0 and np.isnan([change.ci_low, change.ci_high]).all()


def test_the_same_patients_are_paired(pair, odds):
    """Drawn apart, the two models' accuracies would differ much more."""
    other = Resamples(make_predictions(3000, gap=0.0), seed=1, n_draws=200)
    apart = overall_change(odds[0], decisions(other, "sex", n_permutations=0).levels)
    together = overall_change(*odds)
    assert together.value == apart.value
    assert together.ci_high - together.ci_low < 0.7 * (apart.ci_high - apart.ci_low)
    with pytest.raises(InputError, match="same seed and number of draws"):
        check_paired(pair[0], other)


def test_other_test_images_are_refused_by_name(pair):
    fewer = Resamples(make_predictions(2900), n_draws=200)
    with pytest.raises(InputError, match="not tested on the same images"):
        check_paired(pair[0], fewer)


@pytest.mark.parametrize("shift", [0.0, 2.2])
def test_the_interval_of_an_auroc_is_the_same_on_every_page_and_never_beyond_1(shift):
    rows = make_predictions(240, images_per_patient=1)
    rows["y_score"] += shift * rows["y_true"]  # an AUROC of .8, and of .99
    levels = auroc_levels(Resamples(rows, n_draws=400), "sex", ["F", "M"])
    test = rows[rows["split"] == "test"]
    headline = logit_interval(auroc_estimate(test["y_true"], test["y_score"]))
    ends = overall_interval(levels)
    assert headline[0] < levels.overall < headline[1] < 1
    assert ends == pytest.approx(headline)
    pair = {"one": levels, "other": levels}
    odds = decisions(Resamples(rows, n_draws=100), "sex", groups=["F", "M"]).levels
    table = trade_off(pair, {"one": odds, "other": odds}, WORST)
    assert table.loc["one", ["utility_low", "utility_high"]].tolist() == list(ends)


def _levels(values, draws):
    k, one = values.shape[1], np.zeros(1)
    return Levels("auroc", tuple("abcdefgh"[:k]), values, draws, np.zeros((1, k)), 0.5, one, one,
                  np.empty((0, 1)), np.empty((0, 1)), "undefined", 500)  # fmt: skip


_ONE, _STEPS = np.array([0, 0, 0, 0, 0, 0, 0, 1.0]), np.arange(8) / 7
CHANGES = {  # values before and after in standard errors, correlation of the two models
    "two groups, gone": (2 * _ONE[-2:], 0 * _ONE[-2:], 0.9),
    "two groups, about halved": (5 * _ONE[-2:], 2 * _ONE[-2:], 0.5),
    "eight groups, none and none": (0 * _ONE, 0 * _ONE, 0.3),
    "eight groups, one is helped": (2 * _ONE, 0 * _ONE, 0.8),
    "eight groups, all are helped": (3 * _STEPS, 0 * _ONE, 0.9),
    "eight groups, one is harmed": (0 * _ONE, 5 * _ONE, 0.3),
}


def _covered(design, repeats):
    """Share of repeats in which the interval of a change held it."""
    before, after, together = CHANGES[design]
    rng, held, k = np.random.default_rng(0), 0, len(before)
    for _ in range(repeats):
        one, other = 0.04 * rng.normal(size=(2, 101, 1, k))
        moved = (one, together * one + np.sqrt(1 - together**2) * other)
        pair = [_levels(0.04 * v + m[0], 0.04 * v + m[0] + m[1:])
                for v, m in zip((before, after), moved, strict=True)]  # fmt: skip
        change = changes(*pair)["delta-AUC"]
        held += change.ci_low <= 0.04 * (np.ptp(after) - np.ptp(before)) <= change.ci_high
    return held / repeats


@pytest.mark.parametrize("design", CHANGES)
def test_the_interval_of_a_change_covers_it_in_short_form(design):
    """400 repeats; with one bias taken out of both ends .69 to .99, least where models agree."""
    assert _covered(design, 400) >= 0.915


@pytest.mark.slow
@pytest.mark.parametrize("design", CHANGES)
def test_the_interval_of_a_change_covers_it(design):
    assert _covered(design, 2000) >= 0.93


def test_a_rate_of_1_in_all_draws_adds_to_the_interval_of_a_change():
    """15 of 15 were right in both groups before: the draws alone say that this was certain."""
    rng = np.random.default_rng(0)
    after = _levels(
        np.array([[0.8, 0.6]]), np.array([0.8, 0.6]) + 0.1 * rng.normal(size=(200, 1, 2))
    )
    sure = _levels(np.ones((1, 2)), np.ones((200, 1, 2)))
    told, open_ = (changes(part, after)["delta-AUC"] for part in
                   (sure, sure._replace(floor=np.full((1, 2), 0.06**2))))  # fmt: skip
    assert open_.ci_low < told.ci_low - 0.02 and open_.ci_high > told.ci_high + 0.02


def test_the_published_values_of_fate_are_met():
    """FairREAD, Cardiomegaly: table 4 (MIMIC-CXR), and table 2 from its rounded columns."""
    assert parity.fate(0.722, 0.378, 0.656, 0.471) == pytest.approx(0.298, abs=5e-4)
    assert parity.fate(0.781, 0.113, 0.815, 0.176) == pytest.approx(0.316, abs=5e-4)


def test_fate_is_the_gain_minus_the_change_of_the_gap(odds):
    found = fate_of(*odds, WORST)
    gaps = [spreads(levels)[WORST].value for levels in odds]
    right = [levels.overall for levels in odds]
    assert found.value == pytest.approx(parity.fate(right[1], gaps[1], right[0], gaps[0]))
    assert found.value == pytest.approx(found.gain - found.gap_change)
    assert found.stable and found.ci_low < found.value < found.ci_high


def test_fate_over_a_gap_that_chance_explains_is_unstable(odds):
    found = fate_of(odds[1], odds[0], WORST)
    assert not found.stable and np.isnan([found.ci_low, found.ci_high]).all()
    assert np.isfinite([found.value, found.gain, found.gap_change]).all()


def test_the_front_holds_what_no_other_beats_for_free():
    points = [[0.8, -0.1], [0.9, -0.2], [0.8, -0.3], [0.9, -0.2]]
    assert front(points).tolist() == [True, True, False, True]  # equals do not beat each other


def test_a_run_with_more_auroc_and_a_smaller_gap_is_alone_on_the_front(pair, odds):
    levels = dict(zip(("before", "after"), odds, strict=True))
    area = {name: auroc_levels(r, "sex") for name, r in zip(levels, pair, strict=True)}
    table = trade_off(area, levels, WORST)
    assert table["on_front"].to_dict() == {"before": False, "after": True}
    assert (table["utility_low"] < table["utility"]).all()
    assert (table["gap_low"] <= table["gap"]).all() and (table["gap"] < table["gap_high"]).all()
    assert table.loc["after", "gap"] == spreads(odds[1])[WORST].value
    worse = table.assign(overall=table["utility"], worst=-table["gap"], epsilon=np.inf)
    assert pareto(worse) == ["after"]
