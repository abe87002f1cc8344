"""The Gaussian and PCA detectors: one bounded matrix, and what is read out of it, noise or not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.methods import gaussian, normal_law, pca
from jaxfair.methods.gaussian import GaussianConfig
from jaxfair.models import cells
from jaxfair.privacy.sums import clipping

D = 6
FAR = 1e3
"""A radius at which nobody is clipped."""


def drawn(n=4_000, seed=0):
    """Numbers with a mean and a covariance of their own."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(D, D)) * np.array([3, 2, 1, 1, 0.5, 0.5])
    return (rng.normal(size=(n, D)) @ mix.T + rng.normal(size=D)).astype(np.float32)


def moment_of(x, radius):
    z = np.asarray(jax.vmap(normal_law.with_one, (0, None))(x, radius), np.float64)
    return z.T @ z


def covariance_of(law):
    return np.asarray((law.vectors * law.values) @ law.vectors.T)


@pytest.mark.parametrize("size", [0.0, 1e-20, 1.0, 1e3, 1e15])
def test_one_example_adds_a_matrix_of_norm_at_most_one_whatever_its_numbers_are(size):
    x = size * jnp.asarray(drawn(64))
    grads = jax.vmap(jax.grad(normal_law.moment_loss), (None, 0))(
        jnp.ones((D + 1, D + 1)), jax.vmap(normal_law.with_one, (0, None))(x, 2.0)
    )
    norms = np.linalg.norm(np.asarray(grads, np.float64).reshape(64, -1), axis=1)
    assert norms.max() <= 1 + 1e-6 and norms.min() >= 0.5 - 1e-6


def test_one_example_more_moves_the_sum_by_at_most_c():
    x, n = jnp.asarray(drawn(12)), 12
    loss = lambda m, e, key: normal_law.moment_loss(m, normal_law.with_one(e, 1.0))
    total = jax.jit(
        lambda mask: clipping.clipped_sum(
            loss, jnp.zeros((D + 1, D + 1)), x, jax.random.split(jax.random.key(0), n), mask,
            l2_clip_norm=1.0, units=n,
        )
    )  # fmt: skip
    most = [np.asarray(total(jnp.arange(n) < rows), np.float64) for rows in (n - 1, n)]
    assert 0.99 <= np.linalg.norm(most[1] - most[0]) <= 1


def test_without_noise_mean_and_covariance_are_those_of_the_numbers():
    x = drawn()
    law = normal_law.read_normal(jnp.asarray(moment_of(x, FAR), jnp.float32), FAR)
    x = x.astype(np.float64)
    np.testing.assert_allclose(law.mean, x.mean(axis=0), atol=2e-3)
    large = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    kept = large > 2 * normal_law.TINY * FAR**2
    np.testing.assert_allclose(np.asarray(law.values)[kept], large[kept], rtol=2e-2)
    assert int(law.found) == kept.sum() >= 3


def test_its_scale_does_not_matter():
    moment = jnp.asarray(moment_of(drawn(), 10.0), jnp.float32)
    first, again = (normal_law.read_normal(scale * moment, 10.0) for scale in (1.0, 0.01))
    np.testing.assert_allclose(first.values, again.values, rtol=1e-4)
    np.testing.assert_allclose(first.mean, again.mean, rtol=1e-4)


def noisy(n, s, signal=None, seed=0):
    """A moment with noise of deviation s on each entry; `n` patients."""
    size = 65
    base = np.zeros((size, size)) if signal is None else signal
    base[0, 0] = n / 2
    return jnp.asarray(
        base + s * np.random.default_rng(seed).normal(size=(size, size)), jnp.float32
    )


def test_the_noise_is_read_from_the_matrix_itself():
    signal = np.diag(np.linspace(0, 300.0, 65))
    size = float(normal_law.noise_size(noisy(600, 5.0, signal)))
    assert abs(size / (5 / np.sqrt(2)) - 1) < 0.05
    assert normal_law.noise_size(jnp.asarray(signal, jnp.float32)) == 0


def test_noise_alone_is_a_gaussian_without_directions():
    law = normal_law.read_normal(noisy(600, 5.0), 1.0)
    assert int(law.found) <= 2  # the edge is exceeded by little, if at all
    assert np.all(np.asarray(law.values) > 0) and np.isfinite(law.values).all()


def test_a_direction_that_stands_out_is_found_and_its_variance_not_overstated():
    signal = np.zeros((65, 65))
    signal[5, 5] = 150.0
    values, found = [], []
    for seed in range(20):
        law = normal_law.read_normal(noisy(600, 5.0, signal.copy(), seed), 1.0)
        values.append(float(law.values[0]) * 300)
        found.append(abs(float(law.vectors[4, 0])))
    assert abs(np.mean(values) - 150) < 4  # the raw eigenvalue is 155 on average
    assert min(found) > 0.9


@functools.cache
def after(passes, noise=0.0, radius=1.0):
    """The last stage of a detector that was given all of `drawn`, and what it was left with."""
    x = drawn() / 4
    config = GaussianConfig(grid=1, dims=D, passes=passes, radius=radius)
    frozen = {"turn": jnp.eye(D), "shift": jnp.zeros(D)}
    rng = np.random.default_rng(3)
    for number in range(passes):
        here = np.asarray(x @ frozen["turn"] + frozen["shift"])
        moment = moment_of(here, config.reach) + noise * rng.normal(size=(D + 1, D + 1))
        moment = jnp.asarray(moment, jnp.float32)
        if number < passes - 1:
            _, frozen = gaussian._next_pass(config, {"moment": moment}, frozen, None, None)
    return config, {"moment": moment}, frozen, x


def test_the_score_is_the_squared_mahalanobis_distance():
    config, params, frozen, x = after(1, radius=4.0)
    scores = gaussian.make_gaussian(config).score(params, frozen, {"numbers": x})["anomaly"]
    apart = x - x.mean(axis=0)
    truth = np.einsum("nd,de,ne->n", apart, np.linalg.inv(np.cov(x.T)), apart)
    assert np.corrcoef(scores, truth)[0, 1] > 0.98


def test_further_passes_whiten_and_are_turned_back_into_the_first_units():
    config, last, frozen, x = after(3, radius=4.0)
    here = np.asarray(x @ frozen["turn"] + frozen["shift"])
    law = normal_law.read_normal(last["moment"], config.reach)
    np.testing.assert_allclose(np.cov(here.T), np.eye(D), atol=0.1)
    np.testing.assert_allclose(np.asarray(law.values), 1, atol=0.1)
    _, covariance = gaussian.in_first_units(frozen, law)
    ratio = np.linalg.eigvalsh(np.asarray(covariance)) / np.linalg.eigvalsh(np.cov(x.T))
    assert ratio.min() > 0.9 and ratio.max() < 1.1


def test_what_leading_directions_leave_is_that_of_a_pca():
    x = drawn()
    ours = pca.residual(jnp.asarray(x.mean(axis=0)), jnp.asarray(np.cov(x.T)), x, 2)
    _, _, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    truth = (np.square((x - x.mean(axis=0)) @ axes[2:].T)).sum(axis=1)
    np.testing.assert_allclose(ours, truth, rtol=1e-2, atol=1e-3)


def test_drawn_images_have_numbers_of_mean_0_and_variance_1():
    maps_of = lambda shift, part: (part + shift).repeat(2, axis=-1)
    units = cells.public_cells(maps_of, jnp.ones(3), (16, 8), grid=2, dims=4, seed=0)
    drawn = cells.synthetic_textures(cells.DRAWN, 16, seed=0)[:, :16, :8]
    numbers = cells.cell_numbers(units, maps_of(jnp.ones(3), drawn), 2)
    np.testing.assert_allclose(np.std(numbers, axis=0), 1, rtol=1e-3)
    np.testing.assert_allclose(np.mean(numbers, axis=0), 0, atol=0.1)


def test_the_report_says_how_many_variances_stand_out():
    config, params, frozen, _ = after(1)
    said = gaussian.make_gaussian(config).learned(params, frozen)
    found = int(normal_law.read_normal(params["moment"], config.reach).found)
    assert said.startswith(f"{found} of the 6 variances")


@pytest.mark.parametrize(
    "fields, word",
    [
        ({"dims": 1}, "dims"),
        ({"passes": 0}, "passes"),
        ({"grid": 0}, "grid"),
        ({"radius": 0}, "rad"),
    ],
)
def test_a_field_outside_its_range_is_refused(fields, word):
    with pytest.raises(InputError, match=word):
        GaussianConfig(**fields)


def test_directions_that_leave_nothing_are_refused():
    with pytest.raises(InputError, match="directions = 4 must lie in 1 to below"):
        pca.PCAConfig(dims=4, directions=4)


def test_images_that_the_grid_does_not_divide_are_refused():
    spec = {"image": jax.ShapeDtypeStruct((20, 16, 1), jnp.float32)}
    with pytest.raises(InputError, match="multiples of 8"):
        gaussian.make_gaussian(GaussianConfig(grid=2, dims=4)).init(jax.random.key(0), spec)
