"""Does fast clipping give on this model what a loop over single examples gives, leaf by leaf?"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.methods.base import PyTree, method_from_loss
from jaxfair.privacy import isolation
from jaxfair.privacy.sums import clipping, fast

__all__ = ["LeafCheck", "SelfCheck", "selfcheck"]

_FACTORS = (1.0, 0.5, -2.0, 0.0)
"""What the floats of the example are multiplied by, to make a small batch of it."""


class LeafCheck(NamedTuple):
    """One leaf of the parameters.

    Attributes:
      leaf: its path.
      way: "ghost", "product" or "kept", or "vmap" where its gradient is held per example.
      reason: why it goes that way.
      difference: largest difference between the fast sum and the loop's, over the largest
        entry of the loop's sum in any leaf.
    """

    leaf: str
    way: str
    reason: str
    difference: float


class SelfCheck(NamedTuple):
    """What `selfcheck` found; printed, it is a table.

    Attributes:
      leaves: one entry for each leaf of the parameters.
      norms: (n,) gradient norms of the examples tried, by the loop, before clipping.
    """

    leaves: list[LeafCheck]
    norms: np.ndarray

    @property
    def difference(self) -> float:
        """The largest difference of any leaf."""
        return max((leaf.difference for leaf in self.leaves), default=0.0)

    def __str__(self) -> str:
        width = max(len(leaf.leaf) for leaf in self.leaves)
        lines = [f"{'leaf':{width}}  way      difference"]
        lines += [f"{x.leaf:{width}}  {x.way:8} {x.difference:.1e}" for x in self.leaves]
        return "\n".join(lines)


def selfcheck(
    loss_fn: Callable[[PyTree, Any, Any], Any],
    params: PyTree,
    example: Mapping[str, Any],
    *,
    l2_clip_norm: float = 1.0,
) -> SelfCheck:
    """Compares fast clipping with a loop over single examples, on a model of one's own.

    The example and three variations of it are clipped and added both ways. Nothing private
    should be given: a made-up example will do.

    Args:
      loss_fn: `(params, example, key) -> scalar` of one example without a batch axis.
      params: pytree of floating-point arrays.
      example: arrays of one example, by name.
      l2_clip_norm: C.

    Raises InputError if the loss couples the examples of a batch.

    >>> loss = lambda p, example, key: jnp.tanh(example["x"] @ p["w"] + p["b"]).sum()
    >>> params = {"b": jnp.zeros(2), "w": jnp.ones((3, 2))}
    >>> found = selfcheck(loss, params, {"x": np.array([1.0, 2.0, 3.0], np.float32)})
    >>> [(leaf.leaf, leaf.way) for leaf in found.leaves]
    [("['b']", 'vmap'), ("['w']", 'product')]
    >>> found.difference < 1e-6
    True
    """
    example = {name: jnp.asarray(values) for name, values in example.items()}
    spec = {name: jax.ShapeDtypeStruct(v.shape, v.dtype) for name, v in example.items()}
    isolation.check(
        "loss", method_from_loss(loss_fn, params).loss, None, params, {}, spec, probe=True
    )
    batch = {name: jnp.stack([_varied(v, f) for f in _FACTORS]) for name, v in example.items()}
    keys, mask = jax.random.split(jax.random.key(0), len(_FACTORS)), jnp.ones(len(_FACTORS), bool)
    summed = jax.jit(
        lambda p: fast.clipped_sum(loss_fn, p, batch, keys, mask, l2_clip_norm=l2_clip_norm)
    )(params)
    truth, norms = _loop(loss_fn, params, batch, keys, l2_clip_norm)
    scale = max((float(np.max(np.abs(leaf), initial=0)) for leaf in truth), default=0.0) or 1.0
    ours = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(summed)]
    off = [float(np.max(np.abs(a - b), initial=0)) / scale for a, b in zip(ours, truth)]
    ways = fast.explain(loss_fn, params, example, jax.random.key(0))
    return SelfCheck([LeafCheck(*way, d) for way, d in zip(ways, off, strict=True)], norms)


def _varied(values: jax.Array, factor: float) -> jax.Array:
    floating = jnp.issubdtype(values.dtype, jnp.floating)
    return (values * factor).astype(values.dtype) if floating else values


def _loop(
    loss_fn: Callable[..., Any], params: PyTree, batch: PyTree, keys: jax.Array, bound: float
) -> tuple[list[np.ndarray], np.ndarray]:
    """The slow truth: one gradient after the other, clipped and added in float64."""
    grad = jax.jit(jax.grad(loss_fn))
    total, norms = [np.zeros(np.shape(p)) for p in jax.tree.leaves(params)], []
    for i, key in enumerate(keys):
        grads = jax.tree.leaves(grad(params, {n: v[i] for n, v in batch.items()}, key))
        exact = [np.asarray(g.astype(jnp.float32), np.float64) for g in grads]
        norms.append(np.sqrt(sum(np.sum(g**2) for g in exact)))
        factor = min(1.0, bound * (1 - clipping.CLIP_MARGIN) / max(norms[-1], 1e-300))
        total = [t + factor * g for t, g in zip(total, exact)]
    return total, np.asarray(norms)
