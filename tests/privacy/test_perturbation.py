"""The minimum of a convex objective with its noise: against densities, refits and scikit-learn."""

import math

import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import LogisticRegression

from jaxfair.errors import InputError
from jaxfair.methods.base import Linear
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.perturbation import (
    SHARE,
    Perturbation,
    dominating_mu,
    minimum,
    mu_within,
    released_minimum,
)
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.privacy.queries import REST, joint
from jaxfair.privacy.secret import insecure_secret


def asked_for(way="objective", *, labels=1, weight=1.0, ridge=0.02, size=60, clip=1.0):
    return Perturbation(way, labels, weight, ridge, size, clip)


def made_up(n=40, d=3, labels=1, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    label = (rng.random((n, labels)) < 1 / (1 + np.exp(-3 * x[:, :1]))).astype(float)
    label[rng.random(label.shape) < 0.1] = np.nan
    return x, label


def gradient(asked, x, label, theta, weights):
    """Of the objective without b, (d + 1, l), by a loop over units and labels."""
    total = asked.strength * theta
    for row, labels in zip(x, label):
        inputs = np.append(row, 1.0)
        for j, y in enumerate(labels):
            if not np.isnan(y):
                w = weights[j] if y else 1.0
                p = 1 / (1 + math.exp(-inputs @ theta[:, j]))
                total[:, j] += asked.scale / asked.labels * w * (p - y) * inputs
    return total


def gaussian_delta(mu, epsilon):
    cdf = scipy.stats.norm.cdf
    return cdf(-epsilon / mu + mu / 2) - math.exp(epsilon) * cdf(-epsilon / mu - mu / 2)


def densities(asked, x, label, deviation, grid):
    """Of theta* at (points, 2) for one feature and one label: phi(b) det H, with b = -gradient."""
    inputs = np.column_stack([x, np.ones(len(x))])
    p = 1 / (1 + np.exp(-grid @ inputs.T))
    slope = asked.scale * (p - label[:, 0]) @ inputs + asked.strength * grid
    bend = np.einsum("gn,ni,nj->gij", asked.scale * p * (1 - p), inputs, inputs)
    bend += asked.strength * np.eye(2)
    phi = np.exp(-np.square(slope).sum(1) / (2 * deviation**2)) / (2 * math.pi * deviation**2)
    return phi * np.linalg.det(bend)


def exact_profiles(asked, others, label, one, its_label, deviation, epsilons):
    """delta at each epsilon in both directions, by integrating the densities over a grid."""
    reach, points = 14 * deviation / asked.strength + 6, 700
    axis = np.linspace(-reach, reach, points)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    cell = (axis[1] - axis[0]) ** 2
    without = densities(asked, others, label, deviation, grid) * cell
    joined = np.vstack([others, one]), np.vstack([label, its_label])
    having = densities(asked, *joined, deviation, grid) * cell
    assert abs(without.sum() - 1) < 2e-3 and abs(having.sum() - 1) < 2e-3, "the grid holds all"
    above = lambda p, q: [np.maximum(p - math.exp(e) * q, 0).sum() for e in epsilons]
    return above(without, having), above(having, without)


@pytest.mark.parametrize(
    ("ridge", "mu", "y"), [(0.05, 0.5, 0.0), (0.02, 1.0, 1.0), (0.2, 2.0, 0.0)]
)
def test_no_pair_of_neighbours_is_told_apart_better_than_by_the_gaussian_that_is_paid(ridge, mu, y):
    """The densities of the minimum are known, so delta can be integrated and compared."""
    asked = asked_for(ridge=ridge, size=20)
    deviation = asked.l2_clip_norm / mu  # of b, with G = C for one label
    others, label = np.array([[0.9], [-0.4]]), np.array([[1.0], [0.0]])
    one, its = np.array([[1.0]]), np.array([[y]])
    epsilons = np.array([0.0, 0.2, 0.5, 1.0, 2.0, 3.0])
    paid = dominating_mu(mu, asked.curvature)
    for some in (slice(0, 0), slice(0, 2)):  # alone, and among others
        found = exact_profiles(asked, others[some], label[some], one, its, deviation, epsilons)
        for exact in found:
            for epsilon, delta in zip(epsilons, exact):
                assert delta <= gaussian_delta(paid, epsilon) + 2e-3


def test_without_the_curvature_the_price_would_be_too_low():
    """A pair whose delta at 0 lies above that of the noise of b alone."""
    asked = asked_for(ridge=0.011, size=20)
    mu, one, its = 0.2, np.array([[0.0]]), np.array([[0.0]])
    nobody = np.zeros((0, 1))
    found = exact_profiles(asked, nobody, nobody, one, its, asked.l2_clip_norm / mu, [0.0, 0.1])
    of_b = [gaussian_delta(mu / math.sqrt(2), e) for e in (0.0, 0.1)]  # its |x| is 1 of sqrt(2)
    assert max(np.array(found).max(0) - of_b) > 0.01


def test_the_mu_that_is_paid_is_the_least_that_the_proof_gives():
    for mu in (0.1, 1.0, 3.0):
        for c in (1e-3, 0.1):
            paid = dominating_mu(mu, c)
            cdf = scipy.stats.norm.cdf
            assert math.isclose(math.exp(c) * cdf(-paid / 2), cdf(-mu / 2), rel_tol=1e-9)
            assert math.isclose(mu_within(paid, c), mu, rel_tol=1e-8)
            for epsilon in np.linspace(c, 8, 40):
                assert gaussian_delta(paid, epsilon) >= gaussian_delta(mu, epsilon - c) - 1e-12


@pytest.mark.parametrize("labels", [1, 3])
def test_the_minimum_is_found_up_to_the_promised_gradient(labels):
    asked = asked_for(labels=labels, weight=2.0)
    x, label = made_up(labels=labels)
    b = np.random.default_rng(1).normal(size=(4, labels))
    weights = np.full(labels, 2.0)
    theta = minimum(asked, x, label, b, weights)
    assert np.linalg.norm(gradient(asked, x, label, theta, weights) + b) <= asked.tolerance


def test_the_minimum_is_that_of_scikit_learn():
    asked = asked_for()
    x, label = made_up(n=200)
    label = np.nan_to_num(label)
    inputs = np.column_stack([x, np.ones(len(x))])
    theirs = LogisticRegression(
        C=asked.scale / asked.strength, fit_intercept=False, tol=1e-10, max_iter=1000
    ).fit(inputs, label[:, 0])
    ours = minimum(asked, x, label, np.zeros((4, 1)), np.ones(1))
    np.testing.assert_allclose(ours[:, 0], theirs.coef_[0], atol=1e-5)


def strange_units():
    """Units that try to count for more: long, not finite, with labels that are none."""
    yield np.array([0.6, 0.0, 0.8]), 1.0
    yield np.array([-3e6, 1.0, 0.0]), 0.0
    yield np.array([np.nan, 1.0, 0.0]), 1.0
    yield np.array([np.inf, 0.0, 0.0]), 0.0
    yield np.array([1.0, 0.0, 0.0]), 7.0
    yield np.array([1.0, 0.0, 0.0]), -3.0


@pytest.mark.parametrize("labels", [1, 2])
def test_refitting_without_one_unit_moves_the_minimum_by_no_more_than_is_priced(labels):
    asked = asked_for("output", labels=labels, weight=3.0)
    x, label = made_up(labels=labels)
    weights, zeros = np.full(labels, 3.0), np.zeros((4, labels))
    whole = minimum(asked, x, label, zeros, weights)
    moved = []
    for row, y in strange_units():
        more = np.vstack([x, row]), np.vstack([label, np.full(labels, y)])
        moved.append(np.linalg.norm(minimum(asked, *more, zeros, weights) - whole))
    for left_out in range(len(x)):
        less = np.delete(x, left_out, 0), np.delete(label, left_out, 0)
        moved.append(np.linalg.norm(minimum(asked, *less, zeros, weights) - whole))
    assert 0 < max(moved) <= asked.output_sensitivity


def test_nobody_at_all_and_one_unit_alone_come_near_the_bound():
    """With a large ridge the minimum stays near 0, where the slope of the loss is a half."""
    asked = asked_for("output", ridge=30.0, weight=1.0)
    alone = minimum(asked, np.array([[1.0, 0.0]]), np.ones((1, 1)), np.zeros((3, 1)), np.ones(1))
    assert 0.49 < np.linalg.norm(alone) / asked.output_sensitivity < 0.5


@pytest.mark.parametrize("labels", [1, 2])
def test_refitting_without_one_unit_takes_a_linear_term_that_is_near_in_norm_sign_and_volume(
    labels,
):
    """What the proof of objective perturbation uses of a unit: g, its sign in each label, and E."""
    asked = asked_for(labels=labels, weight=2.0)
    x, label = made_up(labels=labels, seed=3)
    weights, rng = np.full(labels, 2.0), np.random.default_rng(4)
    for row, y in [(x[0], 1.0), (x[1], 0.0), (np.array([1.0, 0, 0]), 1.0)]:
        b = rng.normal(size=(4, labels))
        theta = minimum(asked, x, label, b, weights)
        one = row[None], np.full((1, labels), y)
        g = gradient(asked, *one, theta, weights) - asked.strength * theta
        assert np.linalg.norm(g, axis=0).max() <= asked.l2_clip_norm / math.sqrt(labels)
        assert np.all((g[-1] <= 0) == (y > 0)), "the sign is that of the label, whatever b is"
        again = minimum(asked, np.vstack([x, row]), np.vstack([label, one[1]]), b - g, weights)
        np.testing.assert_allclose(again, theta, atol=4 * asked.tolerance / asked.strength)


def test_the_released_minimum_has_the_noise_of_the_plan_inside_and_outside():
    asked = asked_for(size=60, ridge=0.1)
    x, label = made_up()
    ones, inside, outside = np.ones(1), [], []
    for seed in range(150):
        given = {"secret": insecure_secret(seed), "noise_multiplier": 2.0}
        theta = released_minimum(asked, x, label, ones, **given, rest_stddev=0.0)
        inside.append(gradient(asked, x, label, theta, ones).ravel() / 2.0)
        rest = released_minimum(asked, x, label, ones, **given, rest_stddev=3.0) - theta
        outside.append(rest.ravel() / 3.0)
    for values in (np.concatenate(inside), np.concatenate(outside)):
        assert scipy.stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(np.concatenate(inside), np.concatenate(outside))[0, 1]) < 0.15


def test_output_perturbation_adds_noise_in_proportion_to_its_sensitivity():
    asked = asked_for("output")
    x, label = made_up()
    exact = minimum(asked, x, label, np.zeros((4, 1)), np.ones(1))
    found = [
        released_minimum(
            asked, x, label, np.ones(1), secret=insecure_secret(seed), noise_multiplier=1.5
        )
        - exact
        for seed in range(150)
    ]
    values = np.concatenate(found).ravel() / (1.5 * asked.output_sensitivity)
    assert scipy.stats.kstest(values, "norm").pvalue > 1e-3


@pytest.mark.parametrize("labels", [1, 14])
@pytest.mark.parametrize("wanted", [0.6, 4.0])
def test_all_that_objective_perturbation_pays_is_the_event_of_the_ledger(labels, wanted):
    asked = asked_for(labels=labels, size=4_000, ridge=0.01)
    sigma, beside = asked.multipliers(wanted)
    own = accounting.joint_noise_multiplier([(1.0, sigma)])
    together = (own**-2 + joint(beside) ** -2) ** -0.5
    assert math.isclose(together, wanted, rel_tol=1e-9)
    mu = 1 / (sigma * math.sqrt(labels))
    each = dominating_mu(mu, asked.curvature)
    assert math.isclose(labels * each**2, (1 - SHARE) / wanted**2, rel_tol=1e-9)
    assert beside[-1].name == REST and len(beside) == labels + 1


def plan_of(mechanism, **fields):
    config = PrivacyConfig(epsilon=2.0, mechanism=mechanism, ridge=0.01, **fields)
    linear = lambda: Linear((1.0, 1.0))
    return make_plan(config, steps=60, expected_batch_size=500, public_size=500, linear=linear)


@pytest.mark.parametrize("mechanism", ["objective", "output"])
def test_a_plan_takes_one_step_within_its_budget(mechanism):
    plan = plan_of(mechanism)
    assert plan.steps == 1 and plan.sampling_prob == 1.0
    assert 1.99 < plan.epsilon <= 2.0
    assert plan.epsilon == accounting.epsilon(
        [Event(1.0, plan.joint_noise_multiplier, 1)], plan.delta
    )


def test_what_the_proof_does_not_cover_is_refused_in_one_sentence():
    config = PrivacyConfig(mechanism="objective")
    sizes = {"steps": 1, "expected_batch_size": 50, "public_size": 50}
    with pytest.raises(InputError, match="linear head"):
        make_plan(config, **sizes)
    with pytest.raises(InputError, match="linear head"):
        make_plan(config, **sizes, linear=lambda: None)
    with pytest.raises(InputError, match="takes everybody once"):
        make_plan(config, **(sizes | {"public_size": 51}), linear=lambda: Linear((1.0,)))
    with pytest.raises(InputError, match="nothing goes beside it"):
        make_plan(config, **sizes, linear=lambda: Linear((1.0,)), group_probs=(0.5,))
    with pytest.raises(InputError, match=r"raise it above 0.77"):
        make_plan(
            PrivacyConfig(mechanism="objective", epsilon=0.1, ridge=1e-3),
            **sizes,
            linear=lambda: Linear((1.0,)),
        )


def test_a_ridge_just_above_the_least_one_makes_a_plan():
    sizes = {"steps": 1, "expected_batch_size": 50, "public_size": 50}
    linear = lambda: Linear((1.0,))
    with pytest.raises(InputError, match=r"dp\.ridge") as caught:
        make_plan(PrivacyConfig(mechanism="objective", epsilon=1.0), **sizes, linear=linear)
    least = float(str(caught.value).partition("above ")[2].split(",")[0])
    config = PrivacyConfig(mechanism="objective", epsilon=1.0, ridge=1.02 * least)
    assert make_plan(config, **sizes, linear=linear).epsilon <= 1.0
