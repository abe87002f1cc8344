"""Per-example gradients, clipped and summed: the plain way, which is the truth.

`fast.clipped_sum` computes the same sum without holding per-example gradients; it is
tested against this file, and this file is tested against a loop over single examples.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.privacy.sums import graph, rounding

__all__ = [
    "CLIP_MARGIN",
    "clipped_sum",
    "clipped_sum_by",
    "kept_scales",
    "largest_scales",
    "per_example_losses",
    "per_example_norms",
    "scales_from_norms",
    "strict_bound",
    "summed_grads",
]

PyTree = Any
LossFn = Callable[[PyTree, PyTree, jax.Array], jax.Array]
Scales = Callable[[jax.Array, jax.Array], jax.Array]

CLIP_MARGIN = 2.0**-12
"""Gradients are clipped to C (1 - CLIP_MARGIN), so that float32 rounding never exceeds C."""


def clipped_sum(
    loss_fn: LossFn,
    params: PyTree,
    batch: PyTree,
    keys: jax.Array,
    mask: jax.Array,
    *,
    l2_clip_norm: float,
    units: int = 0,
) -> PyTree:
    """Returns sum_i mask_i min(1, C / |g_i|) g_i over the examples of `batch`, in float32.

    Guarantees, each held by tests/privacy/test_clipping.py and test_rounding.py:
      * adding or removing one example moves the sum by at most C = `l2_clip_norm` in the
        joint l2 norm over all leaves, whatever that example holds: the rounded sum of a draw
        of at most `units` units, if microbatches are added as `twofloat` does; with `units` 0
        the exact sum of the contributions;
      * the contribution of one example, recomputed in float64, is at most C;
      * an example whose gradient is not finite contributes exactly zero;
      * a row with mask False contributes exactly zero, NaN in it included.

    Args:
      loss_fn: `(params, example, key) -> scalar` for one example without a batch axis.
      params: pytree of floating-point leaves.
      batch: pytree whose leaves have the leading axis b.
      keys: (b,) typed PRNG keys, one per example (dropout, augmentation).
      mask: (b,) bool, False for padding.
      l2_clip_norm: C > 0, the bound on one example's contribution.
      units: a public bound on the units of the whole draw, see `rounding`.

    Source: Abadi et al. 2016, algorithm 1 (the sum; noise and normalisation come later).
    """
    clip = rounding.bound(l2_clip_norm, units)
    scales_of = lambda norms, mask: scales_from_norms(norms, mask, clip)
    return clipped_sum_by(loss_fn, params, batch, keys, mask, scales_of=scales_of)[0]


def clipped_sum_by(
    loss_fn: LossFn,
    params: PyTree,
    batch: PyTree,
    keys: jax.Array,
    mask: jax.Array,
    *,
    scales_of: Scales,
) -> tuple[PyTree, jax.Array]:
    """Returns sum_i s_i g_i in float32, and the (b,) norms |g_i|, which are private.

    Args:
      scales_of: `(norms, mask) -> (b,)` factors, 0 for rows that are padding or not finite; its
        maker holds the bound, as `scales_from_norms` does.
    """
    per_example_grads = _per_example_grads(loss_fn, params, batch, keys)
    per_example_grads = jax.tree.map(lambda g: g.astype(jnp.float32), per_example_grads)
    per_example_grads = jax.lax.optimization_barrier(per_example_grads)  # one rounding for both
    norms = per_example_norms(per_example_grads)
    scales = scales_of(norms, mask)
    return jax.tree.map(lambda g: _weighted_sum(scales, g), per_example_grads), norms


def per_example_norms(per_example_grads: PyTree) -> jax.Array:
    """Returns the (b,) joint l2 norms over all leaves; inf or NaN where a gradient is not finite.

    Each example is divided by its largest absolute entry before it is squared, so that
    entries from 1e-30 to 1e30 neither underflow nor overflow in float32.
    """
    leaves = [g.reshape(g.shape[0], -1) for g in jax.tree.leaves(per_example_grads)]
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(g), axis=1, initial=0) for g in leaves]), axis=0)
    safe = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    squares = sum(jnp.sum(jnp.square(g / safe[:, None]), axis=1) for g in leaves)
    return safe * jnp.sqrt(squares)


def scales_from_norms(
    norms: jax.Array, mask: jax.Array, l2_clip_norm: float, margin: float | None = None
) -> jax.Array:
    """Returns the (b,) factors min(1, C' / norm), zero for padding and non-finite norms."""
    scales = jnp.minimum(1.0, largest_scales(norms, strict_bound(l2_clip_norm, margin)))
    return kept_scales(scales, mask & jnp.isfinite(norms))


def strict_bound(l2_clip_norm: float, margin: float | None = None) -> jax.Array:
    """Returns C', what a norm is clipped to so that rounding never exceeds C.

    Args:
      margin: that of the format in which the sum is made (`formats`); None for CLIP_MARGIN.
    """
    return jnp.float32(l2_clip_norm * (1 - (CLIP_MARGIN if margin is None else margin)))


def largest_scales(norms: jax.Array, bound: jax.Array) -> jax.Array:
    """Returns the (b,) factors bound / norm, by which a norm becomes `bound`."""
    return bound / jnp.maximum(norms, jnp.finfo(jnp.float32).tiny)


def kept_scales(scales: jax.Array, counted: jax.Array) -> jax.Array:
    """Returns the (b,) factors, 0 where a row does not count or the factor is no normal number."""
    # Below tiny a factor has few bits and would round above C, or to 0, as the device pleases.
    normal = jnp.isfinite(scales) & (scales >= jnp.finfo(jnp.float32).tiny)
    return jnp.where(counted & normal, scales, 0.0)


def per_example_losses(
    loss_fn: LossFn, params: PyTree, batch: PyTree, keys: jax.Array
) -> jax.Array:
    """Returns the (b,) losses in float32; each is a function of its own row, NaN included."""
    one = lambda xk: jnp.asarray(loss_fn(params, *xk), jnp.float32)
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (batch, keys))
    if graph.has_grouped(one, example):
        return jax.lax.map(one, (batch, keys))
    return jax.vmap(one)((batch, keys))


def summed_grads(
    loss_fn: LossFn, params: PyTree, batch: PyTree, keys: jax.Array, mask: jax.Array
) -> PyTree:
    """Returns sum_i mask_i g_i in float32 without clipping: the non-private counterpart.

    Padding rows contribute zero; a NaN in a real row spreads, as it does in plain training.
    """

    def total(params: PyTree) -> jax.Array:
        losses = jax.vmap(loss_fn, in_axes=(None, 0, 0))(params, batch, keys)
        return jnp.sum(jnp.where(mask, losses, 0.0), dtype=jnp.float32)

    return jax.tree.map(lambda g: g.astype(jnp.float32), jax.grad(total)(params))


def _per_example_grads(loss_fn: LossFn, params: PyTree, batch: PyTree, keys: jax.Array) -> PyTree:
    """By vmap, or one after the other where vmap would carry a NaN into other rows."""
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (batch, keys))
    equations = graph.gradient_graph(loss_fn, params, *example)
    grad = jax.grad(loss_fn)
    if graph.mixes_rows(equations, [*equations.params, *equations.inputs], equations.leaves):
        return jax.lax.map(lambda xk: grad(params, *xk), (batch, keys))
    return jax.vmap(grad, in_axes=(None, 0, 0))(params, batch, keys)


def _weighted_sum(scales: jax.Array, grads: jax.Array) -> jax.Array:
    kept = jnp.where((scales > 0).reshape(-1, *[1] * (grads.ndim - 1)), grads, 0)
    return rounding.weighted_sum(scales, kept)
