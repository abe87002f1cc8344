"""Mean and covariance from one noisy matrix: the second moment of [1, x] as a gradient.

Let z (d + 1,) be [1, x] for an x clipped to length 1, over sqrt 2, so that |z| <= 1. The loss of
one example in the matrix M is -z^T M z, whose gradient is -z z^T whatever M is: gradient descent
adds z z^T of everybody drawn to M, noise included. The corner of M counts, its edge is the mean,
its inside the second moment, all in one release (protocol P10). Everything read from M is
post-processing.

Guarantee: |gradient| = |z|^2 <= 1 before the clip of the step, so at a clip norm C >= 1 nobody is
clipped but by the step's margins for rounding, and one unit, of whom a draw takes one image, moves
the sum by at most C: the step's own clip bounds it whatever happens here. Choose C = 1: above it
the noise grows for the same sum.

Noise tells itself: the entries (i, j) and (j, i) get noise of their own and z z^T is symmetric, so
half the difference M - M^T is noise alone, of the same size as in the symmetric part. Nothing here
has to be told what the plan is, and without noise it is zero.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Normal", "moment_loss", "noise_size", "read_normal", "with_one"]

TINY = 1e-6
"""The smallest variance that is divided by, in units of the radius' square."""


class Normal(NamedTuple):
    """A Gaussian, by the eigenvectors of its covariance.

    Attributes:
      mean: (d,).
      values: (d,) variances, falling, all above 0.
      vectors: (d, d), the directions as columns.
      found: () int32, how many variances stand above the noise; the others share one value.
      edge: () the largest eigenvalue that noise alone would give, in the units of `values`.
    """

    mean: jax.Array
    values: jax.Array
    vectors: jax.Array
    found: jax.Array
    edge: jax.Array


def with_one(x: jax.Array, radius: float) -> jax.Array:
    """Returns z (d + 1,): [1, x / radius] over sqrt 2, with x / radius (d,) clipped to length 1.

    >>> z = with_one(jnp.array([30.0, 40.0]), radius=5.0)
    >>> [round(float(v), 3) for v in z * 2**0.5]
    [1.0, 0.6, 0.8]
    """
    x = x / radius
    x = x / jnp.maximum(1.0, jnp.sqrt(jnp.sum(jnp.square(x)) + 1e-12))
    return jnp.concatenate([jnp.ones(1), x]) * jnp.float32(2**-0.5)


def moment_loss(moment: jax.Array, z: jax.Array) -> jax.Array:
    """Returns -z^T M z of a `moment` (d + 1, d + 1), whose gradient in it is -z z^T."""
    return -jnp.einsum("de,d,e->", moment, z, z)


def noise_size(moment: jax.Array) -> jax.Array:
    """Returns the deviation () of the noise on an entry off the diagonal of (M + M^T) / 2."""
    n = moment.shape[0]
    apart = (moment - moment.T) / 2
    return jnp.sqrt(jnp.sum(jnp.square(apart)) / (n * (n - 1)))


def read_normal(moment: jax.Array, radius: float) -> Normal:
    """Returns the Gaussian that a noisy moment (d + 1, d + 1) of `with_one` tells of.

    Its scale does not matter, so a rate or a momentum of the descent does not either.

    An eigenvalue l of the noisy covariance above the edge 2 s sqrt d stands for a true one of
    (l + sqrt(l^2 - edge^2)) / 2, since noise pushes what stands out further out; those at or below
    it say nothing one by one, and get their mean, at least s: a Gaussian with a few directions and
    the same variance in all others.

    Source: the edge and the push: Benaych-Georges and Nadakuditi 2011 (arXiv 0910.2120); the form:
    Tipping and Bishop 1999, probabilistic PCA.
    """
    both = (moment + moment.T) / 2
    count = jnp.maximum(both[0, 0], noise_size(moment) + jnp.finfo(jnp.float32).tiny)
    mean, second = both[0, 1:] / count, both[1:, 1:] / count
    noise = noise_size(moment) / count
    values, vectors = jnp.linalg.eigh(second - jnp.outer(mean, mean))
    values, vectors = values[::-1], vectors[:, ::-1]
    edge = 2 * noise * jnp.sqrt(jnp.float32(values.shape[0]))
    clear = values > jnp.maximum(edge, TINY)
    true = (values + jnp.sqrt(jnp.maximum(jnp.square(values) - jnp.square(edge), 0))) / 2
    hidden = jnp.sum(jnp.where(clear, 0, values)) / jnp.maximum(jnp.sum(~clear), 1)
    rest = jnp.maximum(hidden, jnp.maximum(noise, TINY))
    values = jnp.where(clear, jnp.maximum(true, rest), rest)
    found = jnp.sum(clear).astype(jnp.int32)
    return Normal(mean * radius, values * radius**2, vectors, found, edge * radius**2)
