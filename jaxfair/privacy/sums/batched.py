"""The clipped sum as a GPU wants it: the same operands as `fast`, rounded once, many at a time.

`fast` goes through the examples one after the other, which is what a CPU's cache wants. Here

  * the operands are rounded once to the format of `dp.precision` (`formats`), before the norm and
    before the sum, so that units that multiply this format exactly may be used for both;
  * norms are taken leaf by leaf: the Gram matrices of a leaf of all examples in one product,
    other products in rounds that fit the cache (`costs.at_once`);
  * the sum of a leaf is one convolution where the leaf is one (`merged`).

Guarantees, each held by tests/privacy/test_batched.py and test_formats.py:
  * the contribution of one example, recomputed in float64 from the rounded operands as they are
    summed, is at most C, whatever the example holds;
  * what is not finite, or padding, contributes exactly zero;
  * the result is that of `fast` but for the rounding of operands.

The factor of an example multiplies one operand, which is then rounded again: by at most e of each
entry, which moves the contribution by at most e sum_t |a_t| |b_t| and not by e of itself, for
positions may cancel. `costs.passes` sums that operand's rest in a second pass where e is too much;
what is left is added to what the norm may be wrong by, and so is paid by the clip.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfair.privacy.sums import (
    clipping,
    contractions,
    costs,
    fast,
    formats,
    graph,
    machines,
    merged,
    producers,
    products,
    rounding,
    ways,
)
from jaxfair.privacy.sums.formats import Format
from jaxfair.privacy.sums.machines import Machine

__all__ = ["Prepared", "clipped_sum_by", "leaf_norms", "leaf_sum", "prepare", "rule_of", "scaled"]

PyTree = Any
Array = jax.Array
Pairs = list[tuple[Array, Array]]


class Prepared(NamedTuple):
    """One batch after its backward pass.

    Attributes:
      plan: which way each leaf goes.
      operands: for each leaf its sites' operand pairs, (rows, ...) in the format; the (rows, leaf)
        gradients in float32 where the way is "vmap".
      coefficients: for each leaf what its tail reads.
      form: the format.
      machine: whose cache and room the rounds fit.
    """

    plan: ways.Ways
    operands: list[Any]
    coefficients: list[list[Array]]
    form: Format
    machine: Machine


def rule_of(form: Format) -> ways.Rule:
    """Returns the cost rule of the batched way: that of a GPU, wherever it runs.

    So a CPU takes the ways that a GPU takes, and what is tested here is what runs there.
    """
    return ways.cost_rule(form, machines.MACHINES["gpu"])


def clipped_sum_by(
    loss_fn: clipping.LossFn,
    params: PyTree,
    batch: PyTree,
    keys: Array,
    mask: Array,
    *,
    scales_of: clipping.Scales,
    form: Format = formats.FLOAT32,
) -> tuple[PyTree, Array]:
    """Returns what `clipping.clipped_sum_by` does, of operands in the format.

    A norm may be rounded up; `scales_of` must clip to C (1 - form.margin) or less.
    """
    if mask.shape[0] == 0:
        return jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params), jnp.zeros(0)
    made = prepare(loss_fn, params, batch, keys, form=form)
    found = [leaf_norms(made, i) for i in range(len(made.plan.leaves))]
    norms = fast.joint([norm for norm, _ in found])
    scales = scales_of(norms, mask)
    sums = [leaf_sum(made, i, scales, held) for i, (_, held) in enumerate(found)]
    return jax.tree.unflatten(jax.tree.structure(params), sums), norms


def prepare(
    loss_fn: clipping.LossFn,
    params: PyTree,
    batch: PyTree,
    keys: Array,
    *,
    form: Format = formats.FLOAT32,
) -> Prepared:
    """Returns the operands of a batch, rounded once to the format."""
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (batch, keys))
    plan = ways.choose_ways(loss_fn, params, example[0], example[1], rule_of(form))
    values = dict(zip(plan.graph.params, jax.tree.leaves(params), strict=True))
    found = fast.operands_of(plan, values, jax.tree.leaves((batch, keys)))
    operands = [
        x if leaf.way == "vmap" else [_rounded_pair(pair, form) for pair in x]
        for leaf, x in zip(plan.leaves, found, strict=True)
    ]
    coefficients = [
        graph.evaluate(plan.graph, values, x.producer.coefficients) for x in plan.leaves
    ]
    return Prepared(plan, operands, coefficients, form, machines.machine_of())


def _rounded_pair(pair: tuple[Array, Array], form: Format) -> tuple[Array, Array]:
    return formats.rounded(pair[0], form), formats.rounded(pair[1], form)


def leaf_norms(made: Prepared, number: int) -> tuple[Array, Array | None]:
    """Returns the (rows,) norms of one leaf, and its (rows, leaf) gradients where they are held."""
    leaf, operands = made.plan.leaves[number], made.operands[number]
    if leaf.way == "vmap":
        return fast.whole_norm(operands)
    one = lambda pairs: _example_norm(leaf, pairs, made.coefficients[number], made.form)
    rows = operands[0][0].shape[0]
    count = costs.at_once(leaf.way, leaf.sites, rows, made.form, made.machine)
    if count == rows:
        return jax.vmap(one)(operands)
    return jax.lax.map(one, operands, batch_size=count)


def _example_norm(
    leaf: ways.Leaf, pairs: Pairs, coefficients: list[Array], form: Format
) -> tuple[Array, Array | None]:
    """The norm of one leaf of one example, and for the way "kept" the leaf, zero if not finite."""
    whole = lambda a, b: products.product(a, b, form)
    if leaf.way == "kept":
        norm, full = fast.whole_norm(fast.example_leaf(leaf, pairs, coefficients, whole)[None])
        return norm[0], full[0]
    sites = zip(leaf.sites, pairs, strict=True)
    found = [_site_norm(leaf, site, *pair, form) for site, pair in sites]
    norm, error = found[0][0], sum((off for _, off in found), jnp.zeros(()))
    if len(leaf.sites) > 1:
        blocked = lambda a, b: products.blocked_product(a, b, form)
        full = fast.example_leaf(leaf, pairs, coefficients, blocked)
        norm = clipping.per_example_norms([full[None]])[0]
    return jnp.maximum(norm, (norm + error) * (1 - form.slack)), None


def _site_norm(
    leaf: ways.Leaf, site: contractions.Contraction, a: Array, b: Array, form: Format
) -> tuple[Array, Array]:
    """Returns |A^T B| (0 where the leaf has several sites), and what a contribution may have more.

    That is what the norm itself is off by, and what rounding the scaled operand adds.
    """
    (a, a_size), (b, b_size) = _normalised(a), _normalised(b)
    a, b = site.matrices(a, b)
    a, b = a.astype(form.dtype), b.astype(form.dtype)
    g, t = site.groups, site.positions
    bound = 1.01 * jnp.linalg.norm(jnp.sum(fast.lengths(a) * fast.lengths(b), axis=1))
    norm, floor = jnp.zeros(()), fast.NORM_FLOOR
    if leaf.way == "ghost":
        norm = jnp.sqrt(jnp.maximum(products.gram_squares(a, b, form), 0))
        off = products.gram_error(g, t, site.rows, site.cols, form) * jnp.square(bound)
        error = jnp.sqrt(jnp.square(norm) + off + floor) - norm
    else:
        if len(leaf.sites) == 1:
            norm = jnp.linalg.norm(products.blocked_product(a, b, form))
        error = products.product_error(t, form) * bound + floor**0.5
    error += costs.sum_error(t, form) * bound
    return a_size * b_size * norm, a_size * b_size * error


def _normalised(x: Array) -> tuple[Array, Array]:
    """Returns x / m and m, the power of two below its largest absolute entry: no bit is lost."""
    largest = jnp.max(jnp.abs(x.astype(jnp.float32)))
    bits = jax.lax.bitcast_convert_type(largest, jnp.uint32) & jnp.uint32(0x7F800000)
    power = jax.lax.bitcast_convert_type(bits, jnp.float32)
    power = jnp.clip(power, 2.0**-126, 2.0**126)  # so that its inverse is no subnormal either
    safe = jnp.where((largest > 0) & jnp.isfinite(largest), power, 1)
    return x / safe.astype(x.dtype), safe


def leaf_sum(made: Prepared, number: int, scales: Array, held: Array | None) -> Array:
    """Returns sum_i scales_i g_i of one leaf, in float32; `held` as `leaf_norms` gave it."""
    leaf, form = made.plan.leaves[number], made.form
    if held is not None:
        return rounding.weighted_sum(scales, held)
    sums = []
    for i, (a, b) in enumerate(made.operands[number]):
        a, parts = _zeroed(a, scales), scaled(b, scales, leaf.sites[i].positions, form)
        sums.append(sum(merged.summed_site(leaf, i, a, part, form) for part in parts))
    return producers.apply_tail(leaf.producer, sums, made.coefficients[number], leaf.var)


def scaled(b: Array, scales: Array, positions: int, form: Format) -> list[Array]:
    """Returns what one operand is summed as: scaled and rounded, and its rest, if that is summed.

    A site of one position is summed in float32, and not rounded again.
    """
    shape = (-1, *[1] * (b.ndim - 1))
    whole = _zeroed(b, scales).astype(jnp.float32) * scales.reshape(shape)
    if positions == 1:
        return [whole]
    first = formats.rounded(whole, form)
    if costs.passes(positions, form) == 1:
        return [first]
    return [first, formats.rounded(whole - first.astype(jnp.float32), form)]


def _zeroed(x: Array, scales: Array) -> Array:
    """Zeros where a row contributes nothing, whatever it holds."""
    return jnp.where((scales > 0).reshape(-1, *[1] * (x.ndim - 1)), x, 0)
