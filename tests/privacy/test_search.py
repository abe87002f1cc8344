"""The price of a search: against exact laws of the best of K, and the paper's closed forms."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from jaxfair.errors import InputError
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.config import PrivacyConfig
from jaxfair.privacy.ledger import Ledger, LedgerError
from jaxfair.privacy.plan import make_plan
from jaxfair.privacy.risk import risk
from jaxfair.privacy.score import noisy_score, unit_scores
from jaxfair.privacy.search import (
    LAWS,
    ORDERS,
    Search,
    gamma_from_mean,
    mean_from_gamma,
    priced,
    probabilities,
    stopping_number,
)
from jaxfair.privacy.secret import insecure_secret

SEARCHES = [Search(mean, law) for law in LAWS for mean in (2.0, 10.0)]
NAMES = [f"{search.law} {search.mean:g}" for search in SEARCHES]


@pytest.mark.parametrize("search", SEARCHES, ids=NAMES)
def test_a_law_adds_up_to_one_and_has_its_mean(search):
    found = probabilities(search, 2_000)
    assert math.isclose(found.sum(), 1, abs_tol=1e-9)
    assert math.isclose(found @ np.arange(2_000), search.mean, rel_tol=1e-6)
    assert (found[0] > 0) == (search.law == "poisson")


def test_the_geometric_law_is_the_known_one():
    found = probabilities(Search(4.0), 30)
    np.testing.assert_allclose(found, scipy.stats.geom.pmf(np.arange(30), 0.25), rtol=1e-9)
    poisson = probabilities(Search(4.0, "poisson"), 30)
    np.testing.assert_allclose(poisson, scipy.stats.poisson.pmf(np.arange(30), 4.0), rtol=1e-9)
    logarithmic = probabilities(Search(4.0, "logarithmic"), 30)
    gone = 1 - gamma_from_mean(4.0, 0.0)
    np.testing.assert_allclose(logarithmic, scipy.stats.logser.pmf(np.arange(30), gone), rtol=1e-9)


def test_gamma_and_mean_belong_together():
    for shape in (0.0, 0.5, 1.0, 2.0):
        for gamma in (0.3, 0.01):
            assert math.isclose(
                gamma_from_mean(mean_from_gamma(gamma, shape), shape), gamma, rel_tol=1e-9
            )


@pytest.mark.parametrize("law", LAWS)
def test_the_number_of_runs_has_its_law_and_follows_the_secret(law):
    search = Search(3.0, law)
    found = np.array([stopping_number(search, insecure_secret(seed)) for seed in range(3_000)])
    expected = probabilities(search, 9) * len(found)
    seen = np.bincount(found, minlength=9)[:9]
    rest = len(found) - seen.sum(), len(found) - expected.sum()
    kept = expected > 0
    chi2 = (
        np.sum((seen - expected)[kept] ** 2 / expected[kept]) + (rest[0] - rest[1]) ** 2 / rest[1]
    )
    assert scipy.stats.chi2.sf(chi2, kept.sum()) > 1e-3
    assert np.all(seen[~kept] == 0)
    assert stopping_number(search, insecure_secret(5)) == found[5]


def best_of(search, shift, sigma, at):
    """Density of the highest of K Gaussian scores N(shift, sigma^2), exactly, at points `at`."""
    below, density = (f((at - shift) / sigma) for f in (scipy.stats.norm.cdf, scipy.stats.norm.pdf))
    chance = probabilities(search, 600)
    k = np.arange(600)
    slope = sum(chance[n] * n * below ** (n - 1) for n in k[1:] if chance[n] > 1e-14)
    return slope * density / sigma


@pytest.mark.parametrize("sigma", [1.0, 4.0])
@pytest.mark.parametrize("search", SEARCHES, ids=NAMES)
def test_the_best_of_k_is_never_told_apart_better_than_it_is_priced(search, sigma):
    """A run whose score is a Gaussian answer: the law of the best one is known exactly."""
    at = np.linspace(-14 * sigma, 1 + 14 * sigma, 6_001)
    pair = [best_of(search, shift, sigma, at) for shift in (0.0, 1.0)]
    epsilons = np.array([0.25, 0.5, 1.0, 2.0, 4.0])
    claimed = accounting.privacy_profile([Event(1.0, sigma, 1)], epsilons, search=search)
    for p, q in (pair, pair[::-1]):
        for epsilon, delta in zip(epsilons, claimed):
            exact = scipy.integrate.trapezoid(np.maximum(p - math.exp(epsilon) * q, 0), at)
            assert exact <= delta + 1e-9


def test_choosing_the_best_costs_more_than_one_run():
    """So the price of a run alone would be wrong, and that is seen in the exact law."""
    sigma, search = 1.0, Search(10.0)
    at = np.linspace(-14, 15, 6_001)
    p, q = best_of(search, 1.0, sigma, at), best_of(search, 0.0, sigma, at)
    exact = scipy.integrate.trapezoid(np.maximum(p - math.exp(1.0) * q, 0), at)
    exact_back = scipy.integrate.trapezoid(np.maximum(q - math.exp(1.0) * p, 0), at)
    alone = accounting.privacy_profile([Event(1.0, sigma, 1)], [1.0])[0]
    assert max(exact, exact_back) > 1.15 * alone


@pytest.mark.parametrize("law", ["logarithmic", "geometric"])
def test_the_price_is_that_of_the_papers_closed_form(law):
    """Corollary 4: rho-zCDP and the truncated negative binomial, at the orders up to its knee."""
    search, rho = Search(20.0, law), 0.05
    gamma, shape = gamma_from_mean(search.mean, search.shape), search.shape
    book = priced(search, accounting._dp_event(Event(1.0, (2 * rho) ** -0.5, 1)), _RELATION)
    knee = 1 + math.sqrt(math.log(search.mean) / rho)
    own = -math.log(gamma)
    flat = 2 * math.sqrt(rho * math.log(search.mean)) + 2 * (1 + shape) * math.sqrt(rho * own)
    flat -= shape * rho
    for order, value in zip(ORDERS, book.rdp):
        late = rho * (order - 1) + math.log(search.mean) / (order - 1) if order > knee else None
        known = flat if late is None else flat - 2 * math.sqrt(rho * math.log(search.mean)) + late
        assert known - 1e-9 <= value <= 1.02 * known


_RELATION = accounting.RELATIONS["add_or_remove_one"]


def test_the_figures_of_a_search_at_epsilon_eight():
    """Ten runs on average, full batch, 60 steps: what one run has left of a budget of 8."""
    sigma = accounting.noise_multiplier_from_epsilon(8.0, 1e-5, 1.0, 60, search=Search(10.0))
    event = Event(1.0, sigma, 60)
    assert 7.99 < accounting.epsilon([event], 1e-5, search=Search(10.0)) <= 8.0
    assert math.isclose(accounting.epsilon([event], 1e-5), 4.063, abs_tol=0.01)


def plan_of(**fields):
    config = PrivacyConfig(epsilon=4.0, search_mean=5.0, **fields)
    return make_plan(config, steps=20, expected_batch_size=50, public_size=500)


def test_a_plan_of_a_search_keeps_the_budget_of_all_its_runs(tmp_path):
    plan = plan_of()
    assert 3.98 < plan.epsilon <= 4.0
    event = plan.event(plan.steps)
    assert accounting.epsilon([event], plan.delta) < 3.0
    ledger = plan.open_ledger(tmp_path / "ledger.jsonl")
    about = {"stage": "train", "population": "made up", "draws": "aa"}
    plan.charge(ledger, **about, first_step=0, steps=20)
    told = plan.statement(ledger, steps=20)
    assert told["epsilon"] == plan.epsilon and told["accountant"]["name"] == "rdp"
    assert told["tuning"]["search"]["mean"] == 5.0 and told["tuning"]["epsilon"] is None
    assert any("every other run of the search" in line for line in told["not_covered"])
    assert told["gaussian_mu"] > risk([event], plan.delta)["gaussian_mu"]


def test_the_ledger_of_a_run_by_itself_is_none_of_a_search(tmp_path):
    plan = plan_of()
    ledger = Ledger(tmp_path / "ledger.jsonl", budget=plan.budget, delta=plan.delta)
    with pytest.raises(LedgerError, match="opened for the search None"):
        plan.charge(ledger, stage="train", population="made up", draws="aa", first_step=0, steps=1)


def test_a_search_is_neither_also_counted_nor_of_one_run():
    for wrong in ({"tuning_runs": 2}, {"search_law": "uniform"}):
        with pytest.raises(InputError):
            plan_of(**wrong)
    with pytest.raises(InputError, match="search_mean"):
        PrivacyConfig(search_mean=1.0)
    for mean, law in ((1.0, "geometric"), (math.inf, "geometric"), (3.0, "uniform")):
        with pytest.raises(ValueError):
            Search(mean, law)


def test_a_unit_moves_the_sum_of_scores_by_at_most_one_whatever_its_rows_hold():
    rng = np.random.default_rng(0)
    unit, y = rng.integers(0, 20, 100), rng.integers(0, 2, 100).astype(float)
    score = rng.random(100)
    score[:4] = np.nan, np.inf, -5.0, 7.0
    whole = unit_scores(unit, y, score)
    assert np.all((whole >= 0) & (whole <= 1))
    for left_out in np.unique(unit):
        kept = unit != left_out
        less = unit_scores(unit[kept], y[kept], score[kept])
        assert 0 <= whole.sum() - less.sum() <= 1
    assert len(unit_scores(unit[:0], y[:0], score[:0])) == 0


def test_a_noisy_score_has_its_noise_anew_for_each_run():
    values = np.array(
        [[noisy_score(np.ones(3), 2.0, insecure_secret(s), n) for n in (0, 1)] for s in range(200)]
    )
    assert scipy.stats.kstest((values.ravel() - 3) / 2, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.25
