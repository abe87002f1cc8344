"""Sharp edges of a model whose convolutions multiply in bfloat16, and of its clip."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair.methods import precision
from jaxfair.privacy.sums import fast
from tests.privacy.contributions import QUICK
from tests.privacy.toy import Bench, C, conv_loss, conv_params, examples_of, method_of, plan_of

LOW = jnp.dtype(jnp.bfloat16)


def method():
    return precision.in_precision(method_of(conv_loss, conv_params), "bfloat16")


def dtypes(*trees):
    return {leaf.dtype for leaf in jax.tree.leaves(trees)}


def test_edge_380_parameters_gradients_and_sums_are_float32():
    bench = Bench(method(), plan_of(clipping="fast"), optimizer=optax.sgd(1e-4))
    before = jax.tree.map(np.array, bench.params)
    example = jax.tree.map(lambda x: x[0], examples_of([1.0]))
    grads = jax.grad(lambda p: bench.method.loss(p, {}, example, None)[0])(bench.params)
    state, _ = bench.train(bench.feed(examples_of([1.0, 2.0])))
    kinds = dtypes(bench.params, grads, state.params, state.opt_state, state.clipped_sum)
    assert kinds == {jnp.dtype(jnp.float32)}
    moved = jax.tree.map(lambda a, b: np.mean(a != b), before, jax.device_get(state.params))
    assert min(jax.tree.leaves(moved)) > 0.5, "steps far below the last bit of bfloat16"


def test_edge_381_both_operands_of_a_convolution_are_bfloat16():
    example = jax.tree.map(lambda x: x[0], examples_of([1.0]))
    loss = lambda p: method().loss(p, {}, example, None)[0]
    traced = jax.make_jaxpr(loss)(conv_params())
    found = [eqn for eqn in traced.eqns if eqn.primitive.name == "conv_general_dilated"]
    assert [[v.aval.dtype for v in eqn.invars] for eqn in found] == [[LOW, LOW]]
    assert traced.out_avals[0].dtype == jnp.float32


def test_edge_382_a_contribution_is_scaled_in_float32():
    """Equal rows of bfloat16, whose scaled operand would round up in every entry."""
    loss = lambda p, x, key: jnp.sum(
        ((x["x"].astype(LOW) @ p["w"].astype(LOW)) * x["c"].astype(LOW)).astype(jnp.float32)
    )
    params, mask = {"w": jnp.zeros((4, 6))}, jnp.ones(1, bool)
    keys = jax.random.split(jax.random.key(0), 1)
    call = jax.jit(
        lambda x: fast.clipped_sum(loss, params, x, keys, mask, l2_clip_norm=1.0)["w"],
        compiler_options=QUICK,
    )
    worst = 0.0
    for size in np.random.default_rng(0).uniform(1, 2, 60):
        batch = {"x": jnp.ones((1, 3, 4)), "c": jnp.full((1, 3, 6), size, jnp.float32)}
        worst = max(worst, float(np.linalg.norm(np.float64(call(batch)))))
    assert 0.999 < worst <= 1.0


def test_edge_383_a_leaf_of_bfloat16_counts_in_the_norm():
    bench = Bench(method(), plan_of(clipping="fast"), microbatch=1)
    sizes = [np.linalg.norm(bench.clipped_sum(examples_of([scale]))) for scale in (30.0, 1e4)]
    assert min(sizes) > 0.99 * C and max(sizes) <= C
