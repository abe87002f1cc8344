"""What epsilon means to an attacker: known answers, both directions, and rounding up only."""

import math

import numpy as np
import pytest
import scipy.stats

from jaxfair.privacy.accounting import Event, epsilon, privacy_profile
from jaxfair.privacy.meaning import risk_words
from jaxfair.privacy.risk import (
    FALSE_POSITIVES,
    gaussian_mu,
    group_guarantee,
    risk,
    true_positive_rate,
)

N = scipy.stats.norm
SAMPLED = [Event(0.02, 1.0, 300)]


def gaussian_truth(rate: float, mu: float) -> float:
    """1 - f(rate) with f(a) = Phi(Phi^-1(1 - a) - mu)."""
    return float(1 - N.cdf(N.ppf(1 - rate) - mu))


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("rate", [0.1, 0.01, 0.001])
def test_the_gaussian_mechanism_has_its_known_trade_off_from_above(mu, rate):
    found, truth = true_positive_rate([Event(1.0, 1 / mu, 1)], rate), gaussian_truth(rate, mu)
    assert truth <= found <= truth * 1.005 + 1e-5


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.5])
def test_mu_of_a_gaussian_mechanism_is_its_own_and_never_less(mu):
    found = gaussian_mu([Event(1.0, 1 / mu, 1)], 1e-5)
    assert mu <= found <= 1.006 * mu


def test_composed_gaussians_are_one_of_the_root_of_their_number():
    found = true_positive_rate([Event(1.0, 4.0, 9)], 0.01)
    assert gaussian_truth(0.01, 0.75) <= found <= 1.01 * gaussian_truth(0.01, 0.75)


def sampled_power(rate: float, q: float, sigma: float, *, removed: bool) -> float:
    """The exact power of the likelihood-ratio test of one sampled step, in either direction.

    Between N(0, s^2) and (1 - q) N(0, s^2) + q N(1, s^2) the ratio rises with the outcome.
    """
    if removed:  # accuse high outcomes, which the mixture has more often
        border = sigma * N.isf(rate)
        return float((1 - q) * N.sf(border / sigma) + q * N.sf((border - 1) / sigma))
    outcomes = np.linspace(-12 * sigma, 12 * sigma + 1, 200_001)
    mixed = (1 - q) * N.cdf(outcomes / sigma) + q * N.cdf((outcomes - 1) / sigma)
    return float(N.cdf(outcomes[np.searchsorted(mixed, rate)] / sigma))


@pytest.mark.parametrize("removed", [True, False])
@pytest.mark.parametrize(("q", "sigma"), [(0.1, 1.0), (0.5, 0.7)])
def test_no_attacker_in_either_direction_finds_more_than_is_said(q, sigma, removed):
    for rate in (*FALSE_POSITIVES, 0.2):
        found = true_positive_rate([Event(q, sigma, 1)], rate)
        assert sampled_power(rate, q, sigma, removed=removed) <= found + 1e-9


def test_what_is_said_is_the_truth_of_the_direction_that_leaks_more():
    found = true_positive_rate([Event(0.1, 1.0, 1)], 0.01)
    assert found == pytest.approx(sampled_power(0.01, 0.1, 1.0, removed=True), rel=0.02)


def test_no_delta_between_two_epsilons_is_above_that_of_the_mu():
    mu = gaussian_mu(SAMPLED, 1e-5)
    points = np.linspace(0, epsilon(SAMPLED, 1e-5), 137)
    truth = N.cdf(-points / mu + mu / 2) - np.exp(points) * N.cdf(-points / mu - mu / 2)
    assert (np.array(privacy_profile(SAMPLED, list(points))) <= truth + 1e-12).all()


def test_figures_round_up_only():
    told = risk(SAMPLED, 1e-5)
    for rate in FALSE_POSITIVES:
        exact = true_positive_rate(SAMPLED, rate)
        assert exact <= told["true_positive_rates"][f"{rate:g}"] < exact + 1e-4
    assert gaussian_mu(SAMPLED, 1e-5) <= told["gaussian_mu"] < gaussian_mu(SAMPLED, 1e-5) + 1e-4


def test_nothing_released_leaves_the_attacker_to_chance():
    assert risk([], 1e-5) == {
        "gaussian_mu": 0.0, "true_positive_rates": {"0.01": 0.01, "0.001": 0.001}
    }  # fmt: skip


def test_no_privacy_lets_him_find_everybody():
    assert true_positive_rate([Event(1.0, 0.15, 1)], 0.01) > 0.999
    with pytest.raises(ValueError, match="lies in"):
        true_positive_rate(SAMPLED, 1.5)


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"0.01": 0.0901, "0.001": 0.0111}, ("at most 10 in 100", "at most 12 in 1,000")),
        ({"0.01": 0.09, "0.001": 0.011}, ("at most 9 in 100", "at most 11 in 1,000")),
        ({"0.01": 1.0, "0.001": 1.0}, ("at most 100 in 100", "at most 1,000 in 1,000")),
    ],
)
def test_words_round_up_to_whole_people(rates, words):
    assert all(word in risk_words(rates, "patient") for word in words)


def test_group_privacy_of_a_gaussian_holds_and_is_loose():
    """k images in a Gaussian sum are one of mu k; its delta at k epsilon is below the bound's."""
    for size in (2, 5):
        claimed = epsilon([Event(1.0, 4.0, 1)], 1e-6)
        total, delta = group_guarantee(claimed, 1e-6, size)
        mu = size / 4
        exact = N.cdf(-total / mu + mu / 2) - math.exp(total) * N.cdf(-total / mu - mu / 2)
        assert total == size * claimed and exact <= delta
    assert group_guarantee(3.0, 1e-5, 1) == (3.0, pytest.approx(1e-5))
    assert group_guarantee(8.0, 1e-5, 5)[1] == 1.0
    assert group_guarantee(8.0, 1e-5, 500) == (4000.0, 1.0)
