"""The upper tail of an anomaly map: linear quantile, and the mean strictly above it."""

import jax
import jax.numpy as jnp

__all__ = ["mean_above_quantile", "quantile"]


def quantile(values: jax.Array, q: float, region: jax.Array) -> jax.Array:
    """Returns the q-quantile (linear interpolation) of `values` (n,) where `region` (n,) is True.

    NaN where the region is empty. Equal to `torch.quantile(values[region], q)`.
    """
    n = jnp.sum(region)
    ordered = jnp.sort(jnp.where(region, values, jnp.inf))
    position = q * jnp.maximum(n - 1, 0).astype(jnp.float32)
    low = jnp.floor(position).astype(jnp.int32)
    high = jnp.minimum(low + 1, jnp.maximum(n - 1, 0))
    share = position - low
    mixed = ordered[low] * (1 - share) + ordered[high] * share
    return jnp.where(n > 0, jnp.where(share > 0, mixed, ordered[low]), jnp.nan)


def mean_above_quantile(values: jax.Array, q: float, region: jax.Array) -> jax.Array:
    """Returns the mean of `values` (n,) strictly above their q-quantile inside `region` (n,).

    Where nothing lies strictly above (all values equal) it is the quantile itself, and an
    empty region counts as the whole map, so that finite values give a finite score.
    """
    region = region | ~jnp.any(region)
    limit = quantile(values, q, region)
    above = region & (values > limit)
    count = jnp.sum(above)
    mean = jnp.sum(jnp.where(above, values, 0)) / jnp.maximum(count, 1)
    return jnp.where(count > 0, mean, limit)
