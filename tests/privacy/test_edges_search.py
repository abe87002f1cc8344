"""Sharp edges of a search that is paid for, and of the minimum of a convex objective."""

import math

import numpy as np
import scipy.integrate
import scipy.stats

from jaxfair.engine.minimum import _everybody
from jaxfair.engine.population import population_from_ids
from jaxfair.methods.base import Linear
from jaxfair.privacy import accounting, perturbation, score
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.config import PrivacyConfig
from jaxfair.privacy.perturbation import Perturbation
from jaxfair.privacy.plan import make_plan
from jaxfair.privacy.search import Search, probabilities, stopping_number
from jaxfair.privacy.secret import insecure_secret

SEARCH = Search(10.0)


def plan_of(tmp_path, **fields):
    config = PrivacyConfig(epsilon=4.0, **fields)
    plan = make_plan(config, steps=4, expected_batch_size=50, public_size=50)
    ledger = plan.open_ledger(tmp_path / "ledger.jsonl")
    about = {"stage": "train", "population": "made up", "draws": "aa"}
    plan.charge(ledger, **about, first_step=0, steps=4)
    return plan, ledger


def test_edge_260_the_best_of_many_runs_costs_more_than_one():
    """The law of the best of K Gaussian scores is known; no price may lie below it."""
    at = np.linspace(-14, 15, 4_001)
    chance, k = probabilities(SEARCH, 300), np.arange(300)

    def density(shift):
        below = scipy.stats.norm.cdf(at - shift)
        slope = sum(chance[n] * n * below ** (n - 1) for n in k[1:] if chance[n] > 1e-12)
        return slope * scipy.stats.norm.pdf(at - shift)

    p, q = density(1.0), density(0.0)
    for one, other in ((p, q), (q, p)):
        exact = scipy.integrate.trapezoid(np.maximum(one - math.e * other, 0), at)
        assert exact <= accounting.privacy_profile([Event(1.0, 1.0, 1)], [1.0], search=SEARCH)[0]


def test_edge_261_the_number_of_runs_is_that_of_its_law_and_never_cut():
    found = [stopping_number(SEARCH, insecure_secret(seed)) for seed in range(2_000)]
    assert abs(np.mean(found) - 10) < 1 and max(found) > 40


def test_edge_262_the_number_of_runs_and_their_settings_are_secret():
    draws = {stopping_number(SEARCH, insecure_secret(seed)) for seed in range(30)}
    assert len(draws) > 5


def test_edge_263_every_score_of_a_search_has_noise_of_its_own():
    secret, ones = insecure_secret(1), np.ones(4)
    found = [score.noisy_score(ones, 1.0, secret, number) for number in range(20)]
    assert len(set(found)) == 20


def test_edge_264_a_patient_with_many_images_moves_a_score_by_one_at_most():
    unit = np.repeat([0, 1], [2, 50])
    found = score.unit_scores(unit, np.ones(52), np.ones(52)).sum()
    assert found - score.unit_scores(unit[:2], np.ones(2), np.ones(2)).sum() <= 1


def test_edge_265_what_a_run_of_a_search_claims_is_the_search(tmp_path):
    plan, ledger = plan_of(tmp_path, search_mean=10.0)
    told = plan.statement(ledger, steps=4)
    alone = accounting.epsilon([plan.event(4)], plan.delta)
    assert told["epsilon"] > 1.5 * alone and 3.9 < told["epsilon"] <= 4.0


def asked_for(**changes):
    given = {"way": "objective", "labels": 1, "weight": 1.0, "ridge": 0.02, "public_size": 60}
    return Perturbation(**(given | {"l2_clip_norm": 1.0} | changes))


def test_edge_266_the_curvature_of_the_objective_is_paid():
    """One unit and a small ridge: the density of the minimum is known for one number and one label.

    The unit's features are zeros, so that only the constant is learned.
    """
    asked, mu, e = asked_for(ridge=0.011, public_size=20), 0.2, 0.3
    deviation, at = 1 / mu, np.linspace(-3_000, 3_000, 300_001)
    p = 1 / (1 + np.exp(-np.clip(at, -700, 700)))
    bend = asked.scale * p * (1 - p) + asked.strength
    with_unit = scipy.stats.norm.pdf((asked.scale * p + asked.strength * at) / deviation) * bend
    without = scipy.stats.norm.pdf(asked.strength * at / deviation) * asked.strength
    cdf = scipy.stats.norm.cdf
    paid = perturbation.dominating_mu(mu / math.sqrt(2), asked.curvature / 2)  # its |x| is 1
    bound = cdf(-e / paid + paid / 2) - math.exp(e) * cdf(-e / paid - paid / 2)
    for one, other in ((with_unit, without), (without, with_unit)):
        exact = scipy.integrate.trapezoid(np.maximum(one - math.exp(e) * other, 0), at) / deviation
        assert exact <= bound + 1e-4


def made_up(n=12):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2))
    return x / np.linalg.norm(x, axis=1, keepdims=True), (rng.random((n, 1)) < 0.5).astype(float)


def test_edge_267_no_unit_moves_the_minimum_further_than_is_priced():
    asked, (x, label) = asked_for(way="output", ridge=30.0), made_up()
    zeros, ones = np.zeros((3, 1)), np.ones(1)
    whole = perturbation.minimum(asked, x, label, zeros, ones)
    for row in ([0.0, 1.0], [1e4, 0.0], [-50.0, 50.0]):
        more = np.vstack([x, row]), np.vstack([label, [[1.0]]])
        moved = perturbation.minimum(asked, *more, zeros, ones) - whole
        assert np.linalg.norm(moved) <= asked.output_sensitivity


def released(asked, **named):
    x, label = made_up()
    found = [
        perturbation.released_minimum(
            asked, x, label, np.ones(1), secret=insecure_secret(seed), **named
        ).ravel()
        for seed in range(60)
    ]
    exact = perturbation.minimum(asked, x, label, np.zeros((3, 1)), np.ones(1)).ravel()
    return np.array(found) - exact


def test_edge_268_the_linear_term_is_as_wide_as_is_priced():
    """With a large ridge the minimum moves by b / Lambda."""
    asked = asked_for(ridge=50.0)
    spread = released(asked, noise_multiplier=2.0, rest_stddev=0.0).std() * asked.strength
    assert 1.7 < spread < 2.3


def test_edge_269_an_approximate_minimum_is_released_with_noise_of_its_own():
    asked = asked_for()
    theirs = {"noise_multiplier": 1.0}
    apart = released(asked, **theirs, rest_stddev=5.0) - released(asked, **theirs, rest_stddev=0.0)
    assert 4.3 < apart.std() < 5.7


def test_edge_270_the_output_has_noise_in_proportion_to_what_a_unit_moves():
    asked = asked_for(way="output", ridge=0.2)
    spread = released(asked, noise_multiplier=1.5).std() / asked.output_sensitivity
    assert 1.3 < spread < 1.7


def test_edge_271_the_solver_ends_where_it_promised():
    asked, (x, label) = asked_for(ridge=1e-3), made_up()
    theta = perturbation.minimum(asked, x, label, np.full((3, 1), 0.3), np.ones(1))
    inputs = np.column_stack([x, np.ones(len(x))])
    p = 1 / (1 + np.exp(-inputs @ theta))
    left = asked.scale * inputs.T @ (p - label) + asked.strength * theta + 0.3
    assert np.linalg.norm(left) <= asked.tolerance


def test_edge_272_a_unit_of_many_images_is_in_the_objective_once():
    config = PrivacyConfig(mechanism="output", ridge=0.1)
    linear = lambda: Linear((1.0,))
    plan = make_plan(config, steps=1, expected_batch_size=3, public_size=3, linear=linear)
    rows = np.arange(8)
    fields = {
        "features": lambda rows: np.eye(8)[np.maximum(rows, 0)],
        "label": lambda rows: np.ones((len(rows), 1)),
    }
    people = population_from_ids(["a", "a", "a", "a", "b", "b", "c", "c"], unit="patient")

    class Feed:
        secret, population = insecure_secret(0), people

        def draw(self, number):
            return self.plan.draw(self.secret, number, people.groups)

    feed = Feed()
    feed.plan, feed.fields = plan, fields
    features, label = _everybody(feed, linear(), 0)
    counted = features[np.isfinite(label[:, 0])].sum(0)
    assert [counted[:4].sum(), counted[4:6].sum(), counted[6:].sum()] == [1, 1, 1]
    assert len(rows) == features.shape[1] and len(features) == 3
