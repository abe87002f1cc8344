"""How far two embeddings are from orthogonal: of one example, and over the rows of a batch."""

import jax
import jax.numpy as jnp

__all__ = ["cosine_loss", "covariance_loss"]


def cosine_loss(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the (b,) squared cosine of each row's two embeddings (b, d): 0 to 1.

    Of one row alone, about the fixed origin: two embeddings that depend on each other over the
    rows may still be orthogonal in each.
    """
    product = jnp.sum(_unit(first) * _unit(second), axis=-1)
    return jnp.square(product)


def covariance_loss(first: jax.Array, second: jax.Array, cells: jax.Array) -> jax.Array:
    """Returns the squared Frobenius norm of the covariance within each cell, a mean over cells.

    Rows are scaled to length 1 first, so that it lies in 0 to 1. FCRO's row loss is this times
    n^2 / d^2 for n rows of a cell (it does not divide by n, and does by d^2).

    Args:
      first, second: (b, d).
      cells: (b, c) bool, who belongs to each cell; one of fewer than two rows does not count.

    Source: Deng et al. 2023 (FCRO, eq. 6). It couples the rows.
    """
    first, second = _unit(first), _unit(second)

    def of_cell(rows: jax.Array) -> jax.Array:
        weight = rows.astype(jnp.float32)[:, None] / jnp.maximum(jnp.sum(rows), 1)
        centred = [x - jnp.sum(weight * x, axis=0) for x in (first, second)]
        return jnp.sum(jnp.square((weight * centred[0]).T @ centred[1]))

    counts = jnp.sum(cells, axis=0) >= 2
    found = jnp.where(counts, jax.vmap(of_cell, in_axes=1)(cells), 0)
    return jnp.sum(found) / jnp.maximum(jnp.sum(counts), 1)


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)
