"""The clipped sums for those who join the pieces by hand: they read the loss before they sum.

The engine checks a loss once, with probes; here nobody has, so each sum reads the equations of
the loss while it is traced, which costs nothing when it runs.
"""

from typing import Any

import jax

from jaxfair.privacy import isolation
from jaxfair.privacy.sums import clipping, fast

__all__ = ["clipped_sum", "clipped_sum_vmap"]

PyTree = Any


def clipped_sum(
    loss_fn: clipping.LossFn,
    params: PyTree,
    batch: PyTree,
    keys: jax.Array,
    mask: jax.Array,
    *,
    l2_clip_norm: float,
    units: int | None = None,
) -> PyTree:
    """Returns sum_i mask_i min(1, C / |g_i|) g_i over the examples of `batch`, the fast way.

    Arguments and guarantees as of `sums.clipping.clipped_sum`; the result is that of
    `clipped_sum_vmap` to 1e-5 of its size. Without `units` the batch is taken for the whole draw;
    who adds several sums gives `plan.max_draw`, and adds them in float64 or as
    `jaxfair.privacy.sums.twofloat` does.

    Raises InputError for a loss whose equations could carry one example into another's gradient.

    Three examples of one weight each, whose gradients are 3, 4 and (padding) 5, clipped to 1
    (a little less, so that rounding never exceeds it):

    >>> import jax.numpy as jnp
    >>> loss_fn = lambda params, example, key: params["w"] * example["x"]
    >>> params, batch = {"w": jnp.float32(0)}, {"x": jnp.array([3.0, 4.0, 5.0])}
    >>> keys, mask = jax.random.split(jax.random.key(0), 3), jnp.array([True, True, False])
    >>> total = clipped_sum(loss_fn, params, batch, keys, mask, l2_clip_norm=1.0)
    >>> round(float(total["w"]), 2)
    2.0
    >>> plain = clipped_sum_vmap(loss_fn, params, batch, keys, mask, l2_clip_norm=1.0)
    >>> round(float(plain["w"]), 2)
    2.0
    """
    _read(loss_fn, params, batch, keys)
    clip: dict[str, Any] = {"l2_clip_norm": l2_clip_norm, "units": _units(units, mask)}
    return fast.clipped_sum(loss_fn, params, batch, keys, mask, **clip)


def clipped_sum_vmap(
    loss_fn: clipping.LossFn,
    params: PyTree,
    batch: PyTree,
    keys: jax.Array,
    mask: jax.Array,
    *,
    l2_clip_norm: float,
    units: int | None = None,
) -> PyTree:
    """Returns the sum of `clipped_sum` the plain way, which holds each example's gradient."""
    _read(loss_fn, params, batch, keys)
    clip: dict[str, Any] = {"l2_clip_norm": l2_clip_norm, "units": _units(units, mask)}
    return clipping.clipped_sum(loss_fn, params, batch, keys, mask, **clip)


def _units(units: int | None, mask: jax.Array) -> int:
    return mask.shape[0] if units is None else units


def _read(loss_fn: clipping.LossFn, params: PyTree, batch: PyTree, keys: jax.Array) -> None:
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)
    isolation.refuse_unknown_operations(jax.grad(loss_fn), params, example)
