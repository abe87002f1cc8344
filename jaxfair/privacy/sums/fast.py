"""The sum of `clipping.clipped_sum` without holding the per-example gradients of large leaves.

The gradient of one example is written down once as equations (`graph.py`). For each leaf
the last contraction is cut off, so that one backward pass over the batch returns its two
operands instead of a (b, leaf) gradient. Norms come from the operands, one example at a
time; the sum is one contraction over the whole batch with one operand scaled (book-keeping,
Bu et al. 2023). Norm and sum share their operands. A leaf that is not recognised is
materialised as in `clipping.py`; no leaf is ever dropped.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxfair.privacy.sums import clipping, contractions, graph, producers, products, rounding, ways

__all__ = [
    "clipped_sum",
    "clipped_sum_by",
    "example_leaf",
    "explain",
    "joint",
    "lengths",
    "operands_of",
    "whole_norm",
]

PyTree = Any
Array = jax.Array

SLACK = clipping.CLIP_MARGIN * 15 / 16
"""How much of the clip's margin the rounding of a norm may use before the norm is rounded up."""

NORM_FLOOR = 1e-24
"""Added to a squared norm of operands scaled to 1: covers what underflows when squared."""

EXAMPLES_AT_ONCE = {"cpu": None}
"""Norms of how many examples at once, by backend (else 16); None is a loop over single ones.

On CPU one example's product fills the cores and stays in the cache; a GPU needs several.
"""

LIGHT_AT_ONCE = 32
"""Norms of how many examples at once where an example has one position: one loop over few rows."""

ENTRIES_AT_ONCE = 2**18
"""Above so many entries (1 MiB) in one example's operand its product is summed one by one."""


def clipped_sum(
    loss_fn: clipping.LossFn,
    params: PyTree,
    batch: PyTree,
    keys: Array,
    mask: Array,
    *,
    l2_clip_norm: float,
    units: int = 0,
) -> PyTree:
    """Returns sum_i mask_i min(1, C / |g_i|) g_i over the examples of `batch`, in float32.

    Arguments and guarantees are those of `clipping.clipped_sum`, and so is the result, to
    1e-5 of its size in float32; but the rounding of a sum over examples and positions at once is
    not bounded by the margin for `units`, see `rounding`. Inside `shard_map` use `check_vma=False`.

    Where float32 cannot tell the norm of an example (its positions cancel in a Gram matrix), the
    norm is rounded up by the bounds of `products`, never down.

    Source: Bu et al. 2023 (book-keeping), Li et al. 2021 (Gram matrices).
    """
    clip = rounding.bound(l2_clip_norm, units)
    scales_of = lambda norms, mask: clipping.scales_from_norms(norms, mask, clip)
    return clipped_sum_by(loss_fn, params, batch, keys, mask, scales_of=scales_of)[0]


def clipped_sum_by(
    loss_fn: clipping.LossFn,
    params: PyTree,
    batch: PyTree,
    keys: Array,
    mask: Array,
    *,
    scales_of: clipping.Scales,
) -> tuple[PyTree, Array]:
    """Returns what `clipping.clipped_sum_by` does, the fast way; a norm may be rounded up."""
    if mask.shape[0] == 0:
        return jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params), jnp.zeros(0)
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (batch, keys))
    plan = ways.choose_ways(loss_fn, params, *example)
    values = dict(zip(plan.graph.params, jax.tree.leaves(params), strict=True))
    operands = operands_of(plan, values, jax.tree.leaves((batch, keys)))
    coefficients = [
        graph.evaluate(plan.graph, values, x.producer.coefficients) for x in plan.leaves
    ]
    norms, kept = _norms(plan, operands, coefficients)
    scales = scales_of(norms, mask)
    sums = [
        _weighted_product(leaf, scales, pairs, c)
        if full is None
        else rounding.weighted_sum(scales, full)
        for leaf, pairs, full, c in zip(plan.leaves, operands, kept, coefficients, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(params), sums), norms


def explain(
    loss_fn: clipping.LossFn,
    params: PyTree,
    example: PyTree,
    key: Any,
    rule: ways.Rule | None = None,
) -> list[tuple[str, str, str]]:
    """Returns (leaf path, way, reason) for each leaf of `params`; nothing is computed.

    Args:
      loss_fn: `(params, example, key) -> scalar` for one example.
      params, example, key: arrays or `jax.ShapeDtypeStruct`s, without a batch axis.
      rule: the cost rule of the batched way (`batched.rule_of`); None for that of this file.

    The way is "ghost", "product", "kept" or "vmap" (materialised per example).
    """
    plan = ways.choose_ways(loss_fn, params, example, key, rule)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return [
        (path, leaf.way, ways.reason(leaf)) for path, leaf in zip(paths, plan.leaves, strict=True)
    ]


def operands_of(plan: ways.Ways, values: dict[Any, Array], inputs: list[Array]) -> list[Any]:
    """Returns per leaf its sites' operand pairs, or the leaf itself, with the leading axis b.

    Args:
      values: of the parameters, by variable.
      inputs: the leaves of (batch, keys).
    """
    cuts = [[v for pair in leaf.cuts for v in pair] or [leaf.var] for leaf in plan.leaves]
    wanted = [v for vs in cuts for v in vs]

    def cut(*inputs: Array) -> list[list[Array]]:
        given = {**values, **dict(zip(plan.graph.inputs, inputs, strict=True))}
        flat = iter(graph.evaluate(plan.graph, given, wanted))
        return [[jnp.asarray(next(flat)) for _ in vs] for vs in cuts]

    # Without the barrier XLA may keep bfloat16 operands unrounded for the norm and round them
    # for the sum (excess precision): contributions were seen 0.2 % above C.
    alone = graph.mixes_rows(plan.graph, [*values, *plan.graph.inputs], wanted)
    rows = lax.map(lambda xs: cut(*xs), inputs) if alone else jax.vmap(cut)(*inputs)
    out = lax.optimization_barrier(rows)
    return [
        vs[0].astype(jnp.float32) if leaf.way == "vmap" else list(zip(vs[::2], vs[1::2]))
        for leaf, vs in zip(plan.leaves, out, strict=True)
    ]


def _norms(
    plan: ways.Ways, operands: list[Any], coefficients: list[Any]
) -> tuple[Array, list[Array | None]]:
    """Returns the (b,) joint norms, and per leaf the (b, leaf) gradients where they are held."""
    cut = [i for i, leaf in enumerate(plan.leaves) if leaf.way != "vmap"]
    light = [i for i in cut if _is_light(plan.leaves[i])]

    def of(chosen: list[int], at_once: int | None) -> dict[int, tuple[Array, Array | None]]:
        def one(pairs: list[Any]) -> list[tuple[Array, Array | None]]:
            each = zip(chosen, pairs, strict=True)
            return [_example_norm(plan.leaves[i], x, coefficients[i]) for i, x in each]

        given = [operands[i] for i in chosen]
        made = lax.map(one, given, batch_size=at_once) if chosen else []
        return dict(zip(chosen, made, strict=True))

    at_once = EXAMPLES_AT_ONCE.get(jax.default_backend(), 16)
    heavy = [i for i in cut if i not in light]
    found = of(light, LIGHT_AT_ONCE) | of(heavy, at_once)
    norms, held = [], []
    for i, x in enumerate(operands):
        norm, full = found[i] if i in found else whole_norm(x)
        norms.append(norm)
        held.append(full)
    return joint(norms), held


def _is_light(leaf: ways.Leaf) -> bool:
    """Whether the norms of many examples at once take little room: one position, nothing kept."""
    return leaf.way != "kept" and len(leaf.sites) == 1 and leaf.sites[0].positions == 1


def whole_norm(full: Array) -> tuple[Array, Array]:
    """Returns the (b,) norms of (b, leaf) gradients, and these with zeros where not finite."""
    norms = clipping.per_example_norms([full])
    finite = jnp.isfinite(norms).reshape(-1, *[1] * (full.ndim - 1))
    return norms, jnp.where(finite, full, 0)


def _example_norm(
    leaf: ways.Leaf, pairs: list[tuple[Array, Array]], coefficients: list[Array]
) -> tuple[Array, Array | None]:
    """The norm of one leaf of one example, and for the way "kept" the leaf, zero if not finite."""
    if leaf.way == "kept":
        norm, full = whole_norm(example_leaf(leaf, pairs, coefficients)[None])
        return norm[0], full[0]
    norms, errors = zip(
        *[_site_norm(leaf, s, *x) for s, x in zip(leaf.sites, pairs, strict=True)], strict=True
    )
    if len(leaf.sites) == 1:
        return _rounded_up(norms[0], errors[0]), None
    full = example_leaf(leaf, pairs, coefficients, products.blocked_product)
    return _rounded_up(clipping.per_example_norms([full[None]])[0], sum(errors)), None


def _rounded_up(norm: Array, error: Array) -> Array:
    """Returns a norm that is not below the true one by more than SLACK, if `norm` is by `error`."""
    return jnp.maximum(norm, (norm + error) * (1 - SLACK))


def _site_norm(
    leaf: ways.Leaf, site: contractions.Contraction, a: Array, b: Array
) -> tuple[Array, Array]:
    """Returns |A^T B| (0 where the leaf has several sites), and by how much it may be too small."""
    (a, a_size), (b, b_size) = _normalised(a), _normalised(b)
    a, b = site.matrices(a, b)
    size, g, t = a_size * b_size, site.groups, site.positions
    bound = 1.01 * jnp.linalg.norm(jnp.sum(lengths(a) * lengths(b), axis=1))
    if leaf.way == "ghost":
        norm = jnp.sqrt(jnp.maximum(products.gram_squares(a, b), 0))
        off = products.gram_error(g, t, site.rows, site.cols) * jnp.square(bound)
        error = jnp.sqrt(jnp.square(norm) + off + NORM_FLOOR) - norm
    else:
        one = len(leaf.sites) == 1
        norm = jnp.linalg.norm(products.blocked_product(a, b)) if one else jnp.zeros(())
        error = products.product_error(t) * bound + NORM_FLOOR**0.5
    return size * norm, size * error


def example_leaf(
    leaf: ways.Leaf,
    pairs: list[tuple[Array, Array]],
    coefficients: list[Array],
    product: Callable[[Array, Array], Array] = products.product,
) -> Array:
    """Returns the gradient of one example in one leaf, in float32, from its sites' operands."""
    made = []
    for site, (a, b) in zip(leaf.sites, pairs, strict=True):
        matrices = site.matrices(a.astype(jnp.float32), b.astype(jnp.float32))
        made.append(site.assemble(product(*matrices)))
    return producers.apply_tail(leaf.producer, made, coefficients, leaf.var)


def _weighted_product(
    leaf: ways.Leaf, scales: Array, pairs: list[tuple[Array, Array]], coefficients: list[Array]
) -> Array:
    """sum_i scales_i g_i as one contraction over batch and positions."""
    made = []
    for site, (a, b) in zip(leaf.sites, pairs, strict=True):
        kept = (scales > 0).reshape(-1, *[1] * (a.ndim - 1))
        a = jnp.where(kept, a.astype(jnp.float32), 0)
        kept = (scales > 0).reshape(-1, *[1] * (b.ndim - 1))
        b = jnp.where(kept, b.astype(jnp.float32) * scales.reshape(kept.shape), 0)
        made.append(site.assemble(_summed_products(site, a, b)))
    return producers.apply_tail(leaf.producer, made, coefficients, leaf.var)


def _summed_products(site: contractions.Contraction, a: Array, b: Array) -> Array:
    """Returns sum_i A_i^T B_i, (g, p, q); one by one on CPU where one is large, for the cache."""
    alone = EXAMPLES_AT_ONCE.get(jax.default_backend(), 16) is None
    if alone and site.positions * max(site.rows, site.cols) > ENTRIES_AT_ONCE:
        shape = (site.groups, site.rows, site.cols)
        add = lambda total, xs: (total + products.product(*site.matrices(*xs)), None)
        return lax.scan(add, jnp.zeros(shape, jnp.float32), (a, b))[0]
    a, b = jax.vmap(site.matrices)(a, b)
    if site.positions == 1:
        return rounding.summed("kbgtp,kbgtq->kgpq", a, b)
    return jnp.einsum("bgtp,bgtq->gpq", a, b, precision=lax.Precision.HIGHEST)


def _normalised(x: Array) -> tuple[Array, Array]:
    """Returns x / m in float32 and m, its largest absolute entry (1 if that is 0 or not finite)."""
    x = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x))
    safe = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return x / safe, safe


def lengths(x: Array) -> Array:
    """Returns the (g, t) l2 norms of (g, t, p) rows, in float32."""
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1))


def joint(norms: list[Array]) -> Array:
    """sqrt of the sum of squares, scaled so that norms up to 1e38 do not overflow.

    Stacked, since XLA on CPU made a sum over many arrays anew for every entry that it scales.
    """
    return clipping.per_example_norms([jnp.stack(norms, axis=1)])
