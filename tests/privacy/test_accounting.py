"""Known answers, relations between the accountants, and calibration that never overshoots.

The figures are in the published tables of dp_accounting, TF-Privacy, Opacus and JAX-Privacy, or
follow from a closed form; each row below is one of them.
"""

import math

import dp_accounting
import hypothesis
import pytest
from dp_accounting import rdp
from hypothesis import strategies as st
from scipy import optimize, stats

from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import (
    Event,
    epsilon,
    epsilon_rdp,
    group_epsilon,
    joint_noise_multiplier,
    noise_multiplier_from_epsilon,
    one_step_delta,
)

POISSON = [  # q, sigma, steps, delta, epsilon by RDP, epsilon by PLD
    (256 / 60000, 1.1, 14040, 1e-5, 2.594363, 2.379644),
    (0.04, 1.5, 2250, 1e-5, 7.329335, 6.768787),
    (0.0025, 1.3, 6000, 1e-5, 0.724223, 0.640111),
    (0.01, 1.0, 100, 1e-5, 1.214145, 0.718037),
    (0.01, 1.0, 1000, 1e-5, 2.101367, 1.828244),
    (0.01, 4.0, 10000, 1e-5, 1.035490, 0.946999),
    (4096 / 50000, 3.0, 2468, 1e-5, 7.045766, 6.529288),
    (1024 / 50000, 1.0, 1000, 1e-5, 4.436231, 4.002620),
    (1024 / 100000, 0.8, 2000, 1e-6, 5.663160, 5.066127),
    (0.001, 0.7, 10000, 1e-6, 2.473040, 1.636972),
    (0.1, 3.0, 512, 1e-6, 4.050970, 3.769687),
    (1.0, 5.0, 100, 1e-6, 11.688627, 10.997151),
]
NOT_SAMPLED = [  # mu, delta, epsilon of the Gaussian mechanism in closed form
    (1.0, 1e-5, 4.377178),
    (2.0, 1e-5, 9.997256),
    (0.5, 1e-6, 2.254085),
    (2.0, 1e-6, 10.997151),
    (math.sqrt(21), 1e-5, 29.3398),
]
ONE_STEP = [  # q, sigma, epsilon, delta
    (0.1, 1.0, 0.5, 0.002032537),
    (0.01, 1.0, 0.2, 9.9086e-6),
    (0.2, 0.5, 1.0, 0.05784040),
]
OTHERS = [  # price, q, sigma, steps, delta, epsilon as published by other libraries
    (epsilon_rdp, 150 / 60000, 1.3, 6000, 1e-5, 0.7242234026),
    (epsilon_rdp, 0.001, 1.0, 30000, 1e-7, 1.4154988495),
    (epsilon_rdp, 0.01, 0.7, 120, 1e-5, 3.2392676),
    (epsilon, 0.01, 0.7, 120, 1e-5, 2.4612381),
    (epsilon, 0.2, 0.5, 3, 0.15594, 1.0),
    (epsilon, 0.04, 1.5, 2249, 1e-5, 6.767051),
    (epsilon, 0.1, 3.0, 512, 1e-6, 3.77),
]
CALIBRATED = [  # q, steps, epsilon, sigma by PLD, sigma by RDP, at delta 1e-5
    (1024 / 50000, 1000, 8.0, 0.740808, 0.774864),
    (1024 / 50000, 1000, 1.0, 2.566431, 2.772882),
    (0.01, 1000, 3.0, 0.813585, 0.864607),
]
REPLACED = [(0.01, 1000, 2.843446), (1024 / 50000, 1000, 6.413339)]  # q, steps, at sigma 1
RECORDS = [(2, 3.979090), (3, 6.342936), (5, 11.637977), (10, 27.899560)]
JOINT = [(1.0, 1.0, 4.48), (1.0, 2.0, 2.35)]  # two noise levels on one draw, protocol P1


def digits(text):
    """Half a unit of the last digit of a figure as it is printed."""
    return 0.51 * 10.0 ** -len(f"{text!r}".partition(".")[2])


def test_at_least_forty_figures_are_held():
    lists = (POISSON, POISSON, NOT_SAMPLED, ONE_STEP, OTHERS, CALIBRATED, CALIBRATED, REPLACED)
    assert sum(map(len, lists)) + len(JOINT) + len(RECORDS) >= 40


@pytest.mark.parametrize(("q", "sigma", "steps", "delta", "rdp", "pld"), POISSON)
def test_epsilon_of_poisson_sampled_gaussians(q, sigma, steps, delta, rdp, pld):
    event = Event(q, sigma, steps)
    assert epsilon_rdp([event], delta) == pytest.approx(rdp, abs=6e-7)
    assert epsilon([event], delta) == pytest.approx(pld, abs=6e-7)
    assert epsilon_rdp([event], delta) >= epsilon([event], delta)


@pytest.mark.parametrize(("mu", "delta", "expected"), NOT_SAMPLED)
def test_epsilon_without_sampling_is_the_exact_gaussian_rounded_up(mu, delta, expected):
    exact = exact_gaussian(mu, delta)
    assert exact == pytest.approx(expected, abs=5e-5)
    claimed = epsilon([Event(1.0, 1 / mu, 1)], delta)
    assert exact - 1e-9 <= claimed <= exact + accounting.GRID
    assert epsilon_rdp([Event(1.0, 1 / mu, 1)], delta) >= exact


@pytest.mark.parametrize(("q", "sigma", "at", "delta"), ONE_STEP)
def test_delta_of_one_step_in_closed_form(q, sigma, at, delta):
    assert one_step_delta(q, sigma, at) == pytest.approx(delta, rel=3e-7 if delta > 1e-4 else 5e-6)


@pytest.mark.parametrize(("price", "q", "sigma", "steps", "delta", "expected"), OTHERS)
def test_epsilon_as_other_libraries_publish_it(price, q, sigma, steps, delta, expected):
    tolerance = max(digits(expected), 1e-4 if price is epsilon else 1e-7)
    assert price([Event(q, sigma, steps)], delta) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("q", "steps", "target", "pld", "rdp"), CALIBRATED)
def test_published_noise_multipliers_cost_what_they_promise(q, steps, target, pld, rdp):
    assert epsilon([Event(q, pld, steps)], 1e-5) == pytest.approx(target, rel=2e-5)
    assert epsilon_rdp([Event(q, rdp, steps)], 1e-5) == pytest.approx(target, rel=1e-5)


@pytest.mark.parametrize(("q", "steps", "expected"), REPLACED)
def test_replacing_one_costs_more_than_adding_one(q, steps, expected):
    replaced = epsilon([Event(q, 1.0, steps)], 1e-5, "replace_one")
    assert replaced == pytest.approx(expected, abs=6e-7)
    assert replaced > epsilon([Event(q, 1.0, steps)], 1e-5)


@pytest.mark.parametrize(("first", "second", "expected"), JOINT)
def test_two_queries_on_one_draw_are_one_noisier_event(first, second, expected):
    sigma = joint_noise_multiplier([(1.0, first), (1.0, second)])
    together = epsilon([Event(0.01, sigma, 1000)], 1e-5)
    apart = epsilon([Event(0.01, first, 1000), Event(0.01, second, 1000)], 1e-5)
    assert together == pytest.approx(expected, abs=6e-3)
    assert together > apart


@pytest.mark.slow
@pytest.mark.parametrize(("records", "expected"), RECORDS)
def test_a_person_with_many_records_pays_for_all_of_them(records, expected):
    assert group_epsilon(Event(0.01, 1.0, 1000), 1e-5, records) == pytest.approx(expected, abs=6e-7)


@pytest.mark.slow
def test_a_person_with_two_records_pays_more_than_once():
    event = Event(0.1, 2.0, 5)
    single, double = (group_epsilon(event, 1e-5, k) for k in (1, 2))
    assert single == pytest.approx(epsilon([event], 1e-5), abs=1e-6)
    assert double > 1.5 * single


@pytest.mark.parametrize(("steps", "epsilon_wanted"), [(512, 1.0)])
def test_calibration_reaches_its_target_from_below(steps, epsilon_wanted):
    sigma = noise_multiplier_from_epsilon(epsilon_wanted, 1e-6, 0.1, steps)
    assert sigma == pytest.approx(9.66, abs=0.005)
    assert 0.999 * epsilon_wanted <= epsilon([Event(0.1, sigma, steps)], 1e-6) <= epsilon_wanted


SLOW = pytest.mark.slow
TARGETS = [(0.1, 0.3), (1.0, 2.0), *(pytest.param(q, 20.0, marks=SLOW) for q in (0.05, 0.5, 1.0))]


@pytest.mark.parametrize(("q", "target"), TARGETS)
def test_calibration_never_overshoots(q, target):
    sigma = noise_multiplier_from_epsilon(target, 1e-5, q, 10)
    assert 0.998 * target <= epsilon([Event(q, sigma, 10)], 1e-5) <= target


def test_the_last_affordable_step_is_the_published_one():
    price = lambda steps: epsilon([Event(0.1, 3.0, steps)], 1e-6)
    assert price(155) <= 2.0 < price(156)


MECHANISMS = st.tuples(
    st.floats(0.001, 0.9), st.floats(1.5, 8.0), st.integers(1, 40), st.floats(1e-8, 1e-3)
)
HARSH = st.tuples(
    st.floats(0.001, 0.9), st.floats(0.6, 8.0), st.integers(1, 300), st.floats(1e-8, 1e-3)
)
DRAWN = {"deadline": None, "derandomize": True, "database": None}


def drawn(strategy, count, *more):
    """`count` cases drawn by hypothesis, the same ones every time."""
    settings = hypothesis.settings(max_examples=count, **DRAWN)
    return lambda test: settings(hypothesis.given(strategy, *more)(test))


def check_order_and_monotonicity(mechanism, more):
    q, sigma, steps, delta = mechanism
    cost = epsilon([Event(q, sigma, steps)], delta)
    assert epsilon_rdp([Event(q, sigma, steps)], delta) >= cost - 1e-9
    assert epsilon([Event(q, sigma * more, steps)], delta) <= cost
    assert epsilon([Event(q, sigma, steps)], delta * more) <= cost
    assert epsilon([Event(min(1.0, q * more), sigma, steps)], delta) >= cost
    assert epsilon([Event(q, sigma, steps + 10)], delta) >= cost


@drawn(MECHANISMS, 4, st.floats(1.05, 2.0))
def test_epsilon_falls_with_noise_and_delta_rises_with_rate_and_steps_and_is_below_rdp(
    mechanism, more
):
    check_order_and_monotonicity(mechanism, more)


@pytest.mark.slow
@drawn(HARSH, 25, st.floats(1.05, 2.0))
def test_order_and_monotonicity_over_harsh_mechanisms(mechanism, more):
    check_order_and_monotonicity(mechanism, more)


@drawn(MECHANISMS, 10)
def test_pld_of_one_step_is_above_the_closed_form(mechanism):
    q, sigma, _, delta = mechanism
    claimed = epsilon([Event(q, sigma, 1)], delta)
    assert one_step_delta(q, sigma, claimed) <= delta * (1 + 1e-9)
    if claimed > 0.01:
        assert one_step_delta(q, sigma, claimed - 2 * accounting.GRID) > delta * (1 - 1e-6)


def test_asking_twice_changes_nothing():
    events = [Event(0.01, 1.0, 500), Event(0.02, 1.5, 100)]
    assert epsilon(events, 1e-5) == epsilon(events, 1e-5) == epsilon(events[::-1], 1e-5)


def test_equal_events_are_priced_as_one():
    split = [Event(0.01, 1.0, 10)] * 100
    assert epsilon(split, 1e-5) == epsilon([Event(0.01, 1.0, 1000)], 1e-5)


def test_unequal_events_all_count():
    first, second = Event(0.05, 1.0, 100), Event(0.1, 2.0, 100)
    both = epsilon([first, second], 1e-5)
    assert both > max(epsilon([first], 1e-5), epsilon([second], 1e-5))
    assert both < epsilon([first], 1e-5) + epsilon([second], 1e-5)


def test_nothing_costs_nothing():
    assert epsilon([], 1e-5) == epsilon([Event(0.1, 1.0, 0)], 1e-5) == 0.0


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ((0.0, 1.0, 1), "sampling_prob"),
        ((1.5, 1.0, 1), "sampling_prob"),
        ((math.nan, 1.0, 1), "sampling_prob"),
        ((0.1, 0.0, 1), "noise_multiplier"),
        ((0.1, math.nan, 1), "noise_multiplier"),
        ((0.1, 1.0, -1), "steps"),
    ],
)
def test_an_event_outside_its_ranges_is_refused(fields, rule):
    with pytest.raises(ValueError, match=rule):
        Event(*fields)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_outside_zero_and_one_is_refused(delta):
    with pytest.raises(ValueError, match="delta"):
        epsilon([Event(0.1, 1.0, 1)], delta)


def test_the_top_epsilon_of_dp_cxr_follows_from_its_settings():
    """ "Private, fair and accurate": 11 planned over 150 epochs, 93 of them reported at 7.89."""
    per_epoch = 150_188 // 128
    events = lambda sigma, epochs: [Event(1 / per_epoch, sigma, epochs * per_epoch)]
    assert epsilon(events(0.5495, 150), 1e-6) == pytest.approx(11, abs=0.002)
    assert epsilon(events(0.5495, 93), 6e-6) == pytest.approx(7.89, abs=0.005)


def test_dp_cxr_by_renyi_divergences_of_whole_orders_reports_8_19():
    per_epoch, sigma = 150_188 // 128, 0.5624  # what reaches 11 by RDP
    event = Event(1 / per_epoch, sigma, 93 * per_epoch)
    draw = dp_accounting.PoissonSampledDpEvent(
        event.sampling_prob, dp_accounting.GaussianDpEvent(sigma)
    )
    whole = rdp.RdpAccountant([*range(2, 64), 80, 128, 256, 512]).compose(draw, event.steps)
    assert epsilon_rdp([Event(1 / per_epoch, sigma, 150 * per_epoch)], 1e-6) <= 11.01
    assert whole.get_epsilon(6e-6) == pytest.approx(8.19, abs=0.005)
    assert epsilon_rdp([event], 6e-6) == pytest.approx(8.089, abs=0.001)  # finer orders


def exact_gaussian(mu, delta):
    """Epsilon of the Gaussian mechanism (Balle and Wang 2018)."""

    def excess(eps):
        lost = math.exp(eps + stats.norm.logcdf(-eps / mu - mu / 2))
        return stats.norm.cdf(-eps / mu + mu / 2) - lost - delta

    return optimize.brentq(excess, 0, 100, xtol=1e-12)
