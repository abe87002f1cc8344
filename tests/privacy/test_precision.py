"""Every product between a unit's gradient and the clipped sum is of float32 at full precision.

Read from the equations of the assembled step, whatever the loss computes in. A barrier stands in
both ways between the gradients (or their operands) and what norm and sum make of them, so what is
computed from a barrier's results is the clip's.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.engine.chunk import abstract_chunk, abstract_randomness
from tests.privacy.toy import Bench, method_of, plan_of

PRODUCTS = ("dot_general", "conv_general_dilated")
EXACT = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)


def many_loss(params, frozen, example, key):
    """Leaves that go each way: ghost, product, kept, and held per example."""
    numbers = ("NHWC", "HWIO", "NHWC")
    x = example["x"].reshape(1, 6, 6, 1)
    maps = jnp.tanh(jax.lax.conv_general_dilated(
        x, params["conv"], (1, 1), "SAME", dimension_numbers=numbers))[0]  # fmt: skip
    tokens = maps.reshape(9, 4 * maps.shape[-1])
    hidden = jnp.tanh(tokens @ params["some"]) * params["gain"]
    wide = jnp.tanh(hidden.reshape(3, -1) @ params["wide"])
    return example["scale"] * jnp.sum(jnp.tanh(wide.reshape(-1) @ params["one"])), {}


def many_params():
    shapes = {"conv": (3, 3, 1, 3), "some": (12, 8), "gain": (8,), "wide": (24, 30), "one": (90, 7)}
    rng = np.random.default_rng(0)
    return {n: jnp.asarray(rng.normal(size=s) / 4, jnp.float32) for n, s in shapes.items()}


def products_of_the_clip(clipping, **how):
    """The products behind a barrier, in the step of a training with several microbatches."""
    bench = Bench(
        method_of(many_loss, many_params), plan_of(1.0, clipping=clipping, **how), chunk=8
    )
    made = bench.assembly
    chunk = abstract_chunk(made.example, 8)
    keys = abstract_randomness(made.num_leaves)
    state = jax.eval_shape(bench.start)
    traced = jax.make_jaxpr(bench.step.update)(state, bench.frozen, chunk, keys, True)
    return list(behind(traced.jaxpr, set()))


def behind(jaxpr, tainted):
    """Yields the products of a jaxpr that read a tainted variable or what a barrier returned."""
    for eqn in jaxpr.eqns:
        reads = any(v in tainted for v in eqn.invars if not hasattr(v, "val"))
        if eqn.primitive.name in PRODUCTS and reads:
            yield eqn
        for inner in inner_of(eqn):
            yield from behind(inner, set(inner.invars) if reads else set())
        if reads or eqn.primitive.name == "optimization_barrier":
            tainted.update(eqn.outvars)


def inner_of(eqn):
    """The jaxprs that an equation calls."""
    for value in eqn.params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            jaxpr = getattr(one, "jaxpr", one)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr


def faults_of(eqns):
    return [
        eqn.params["precision"]
        for eqn in eqns
        if eqn.params["precision"] != EXACT
        or any(v.aval.dtype != jnp.float32 for v in (*eqn.invars, *eqn.outvars))
    ]


def test_edge_66_the_products_of_norm_and_sum_are_of_full_precision():
    for way in ("vmap", "fast"):
        assert not faults_of(products_of_the_clip(way))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_a_unit_for_them_rounded_operands_are_multiplied_in_float32(precision):
    found = products_of_the_clip("fast", way="accelerator", precision=precision)
    assert len(found) >= 8
    assert not faults_of(found)


@pytest.mark.parametrize(("way", "kinds"), [("vmap", 1), ("fast", 6)])
def test_lowering_any_kind_of_product_is_seen(way, kinds, monkeypatch):
    einsum, calls = jnp.einsum, set()

    def lowered(equation, *operands, precision, lower):
        calls.add(equation)
        given = None if equation == lower else precision
        return einsum(equation, *operands, precision=given)

    def found(lower):
        monkeypatch.setattr(jnp, "einsum", functools.partial(lowered, lower=lower))
        return faults_of(products_of_the_clip(way))

    assert not found("")
    assert len(calls) == kinds
    assert all(found(lower) for lower in sorted(calls))
