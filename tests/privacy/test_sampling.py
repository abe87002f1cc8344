"""Poisson draws: their law, their keys, and that chunks lose nobody."""

import fractions
import math

import numpy as np
import pytest
from scipy import stats

from jaxfair.privacy.sampling import (
    OVERFLOW,
    PADDING,
    chunks_from_draw,
    draw_bound,
    draw_images,
    poisson_draw,
)
from jaxfair.privacy.secret import insecure_secret

SECRET = insecure_secret(3)
UNITS, PROB, STEPS = 40, 0.3, 4000


@pytest.fixture(scope="module")
def inclusion():
    """(STEPS, UNITS) bool: who was in which draw."""
    table = np.zeros((STEPS, UNITS), bool)
    for step in range(STEPS):
        table[step, poisson_draw(SECRET, step, num_units=UNITS, sampling_prob=PROB)] = True
    return table


def test_every_unit_is_drawn_at_the_rate_q(inclusion):
    p_values = [stats.binomtest(int(n), STEPS, PROB).pvalue for n in inclusion.sum(axis=0)]
    assert min(p_values) > 0.001 / UNITS


def test_pairs_are_drawn_independently(inclusion):
    pairs = inclusion.T.astype(int) @ inclusion
    together = pairs[np.triu_indices(UNITS, 1)]
    z = (together - STEPS * PROB**2) / np.sqrt(STEPS * PROB**2 * (1 - PROB**2))
    assert np.abs(z).max() < 5
    assert stats.kstest(z, "norm").pvalue > 1e-4


def test_batch_sizes_are_binomial(inclusion):
    sizes = np.bincount(inclusion.sum(axis=1), minlength=UNITS + 1)
    expected = STEPS * stats.binom.pmf(np.arange(UNITS + 1), UNITS, PROB)
    common = expected > 5
    observed = np.append(sizes[common], sizes[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    assert stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-4


def test_steps_are_drawn_independently(inclusion):
    both = (inclusion[1:] & inclusion[:-1]).sum()
    count = (STEPS - 1) * UNITS
    assert stats.binomtest(int(both), count, PROB**2).pvalue > 1e-4


def test_a_draw_is_a_function_of_secret_and_step():
    again = [poisson_draw(SECRET, 5, num_units=100, sampling_prob=0.5) for _ in range(2)]
    np.testing.assert_array_equal(*again)
    other = poisson_draw(insecure_secret(4), 5, num_units=100, sampling_prob=0.5)
    assert not np.array_equal(again[0], other)


def test_no_hidden_source_of_randomness():
    np.random.seed(0)  # noqa: NPY002
    first = poisson_draw(SECRET, 1, num_units=50, sampling_prob=0.5)
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(first, poisson_draw(SECRET, 1, num_units=50, sampling_prob=0.5))


@pytest.mark.parametrize(("prob", "size"), [(0.0, 0), (1.0, 7)])
def test_the_extreme_rates_draw_nobody_and_everybody(prob, size):
    assert len(poisson_draw(SECRET, 0, num_units=7, sampling_prob=prob)) == size


@pytest.mark.parametrize("prob", [-0.1, 1.1])
def test_a_rate_outside_zero_and_one_is_refused(prob):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        poisson_draw(SECRET, 0, num_units=7, sampling_prob=prob)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100])
def test_chunks_hold_the_whole_draw_in_one_shape(size):
    chunks = chunks_from_draw(np.arange(size), 8)
    assert {len(chunk) for chunk in chunks} == {8}
    together = np.concatenate(chunks)
    np.testing.assert_array_equal(together[together != PADDING], np.arange(size))
    assert len(chunks) == max(1, -(-size // 8))


def test_a_unit_gives_one_of_its_images_whoever_else_is_drawn():
    rows = [np.array([10, 11, 12]), np.array([20]), np.array([30, 31])]
    ids = np.array([7, 8, 9], np.uint32)
    for step in range(20):
        all_three = draw_images(SECRET, step, np.array([0, 1, 2]), rows, ids)
        without_first = draw_images(SECRET, step, np.array([1, 2]), rows, ids)
        np.testing.assert_array_equal(all_three[1:], without_first)
        assert [row in own for row, own in zip(all_three, rows, strict=True)] == [True] * 3


def test_images_of_a_unit_are_chosen_evenly():
    rows, ids = [np.arange(3)], np.array([5], np.uint32)
    chosen = [draw_images(SECRET, s, np.array([0]), rows, ids)[0] for s in range(3000)]
    assert stats.chisquare(np.bincount(chosen, minlength=3)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("units", "prob"), [(40, 0.25), (200, 0.5), (200, 0.0533), (60, 0.9), (30, 1.0), (7, 0.001)]
)
def test_a_draw_exceeds_its_bound_by_a_chance_below_two_to_the_minus_forty(units, prob):
    """In exact arithmetic, and one less would not do."""
    q = fractions.Fraction(prob)
    mass = [math.comb(units, n) * q**n * (1 - q) ** (units - n) for n in range(units + 1)]
    bound = draw_bound(units, prob)
    assert sum(mass[bound + 1 :]) < OVERFLOW
    assert bound == 0 or sum(mass[bound:]) >= OVERFLOW


def test_fewer_units_and_rarer_draws_need_no_more_room():
    most = draw_bound(500, 0.1)
    assert all(draw_bound(n, q) <= most for n in (1, 499, 500) for q in (0.01, 0.1))
