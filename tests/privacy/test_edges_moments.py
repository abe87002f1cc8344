"""Edges of second moments: what one example adds, and what counts as noise."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.methods import normal_law


def test_edge_180_whoever_is_far_out_adds_as_much_as_anybody():
    """|z z^T| <= 1 for every x, and the corner that counts patients gets the same from all."""
    x = jnp.asarray([[0.0, 0, 0], [0.1, 0, 0], [3, 4, 0], [1e10, 0, -1e10]])
    z = np.asarray([normal_law.with_one(row, 1.0) for row in x], np.float64)
    assert np.square(z).sum(axis=1).max() <= 1 + 1e-6
    np.testing.assert_allclose(z[:, 0], 2**-0.5, rtol=1e-6)


def test_edge_181_noise_is_what_the_matrix_and_its_transpose_do_not_share():
    rng = np.random.default_rng(0)
    signal = np.outer(np.arange(40.0), np.arange(40.0))
    noisy = jnp.asarray(signal + 2 * rng.normal(size=(40, 40)), jnp.float32)
    assert abs(float(jax.jit(lambda m: normal_law.noise_size(m))(noisy)) - 2**0.5) < 0.1
