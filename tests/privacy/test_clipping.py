"""The plain clipped sum against a loop over single examples, and its guarantees line by line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.privacy.sums import clipping

C = 0.5
WILD = [0.0, 1e-30, 1e-10, 1.0, 1e10, 1e30, np.nan, np.inf, -np.inf]


def loss_fn(params, example, key):
    """A small net with two leaves, and a gradient that is as wild as the example."""
    hidden = jnp.tanh(example["x"] @ params["w"])
    return jnp.sum(hidden * example["scale"]) + jnp.sum(params["b"] * example["x"][:2])


@pytest.fixture(scope="module")
def params():
    return {"w": jax.random.normal(jax.random.key(0), (6, 4)), "b": jnp.ones(2)}


def batch_of(scales, seed=0):
    x = np.random.default_rng(seed).normal(size=(len(scales), 6)).astype(np.float32)
    return {"x": jnp.asarray(x), "scale": jnp.asarray(scales, jnp.float32)}


def summed(params, batch, mask=None, c=C):
    size = len(batch["scale"])
    mask = jnp.ones(size, bool) if mask is None else jnp.asarray(mask)
    keys = jax.random.split(jax.random.key(1), size)
    return clipping.clipped_sum(loss_fn, params, batch, keys, mask, l2_clip_norm=c)


def flat64(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def looped(params, batch, c=C):
    """The slow truth: one example at a time, norms and sums in float64."""
    total = 0.0
    for i in range(len(batch["scale"])):
        example = jax.tree.map(lambda a, i=i: a[i], batch)
        g = flat64(jax.grad(loss_fn)(params, example, None))
        norm = np.linalg.norm(g)
        if np.isfinite(norm):
            total = total + g * min(1.0, c * (1 - clipping.CLIP_MARGIN) / max(norm, 1e-300))
    return total


def test_clipped_sum_equals_a_loop_over_single_examples(params):
    batch = batch_of([0.01, 0.1, 1.0, 3.0, 10.0])
    np.testing.assert_allclose(flat64(summed(params, batch)), looped(params, batch), rtol=1e-5)


@pytest.mark.parametrize("scale", WILD)
def test_one_example_moves_the_sum_by_at_most_c(params, scale):
    others = batch_of([0.3, 1.0, 2.0, scale])
    without = flat64(summed(params, others, mask=[True, True, True, False]))
    with_it = flat64(summed(params, others))
    assert np.isfinite(with_it).all()
    assert np.linalg.norm(with_it - without) <= C * (1 + 1e-6)


@pytest.mark.parametrize("scale", WILD)
@pytest.mark.parametrize("c", [1e-3, 0.5, 1e3])
def test_contribution_recomputed_in_float64_is_at_most_c(params, scale, c):
    for seed in range(20):
        alone = flat64(summed(params, batch_of([scale], seed), c=c))
        assert np.linalg.norm(alone) <= c


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf])
def test_example_with_non_finite_gradient_contributes_exactly_zero(params, scale):
    assert not flat64(summed(params, batch_of([scale]))).any()


@pytest.mark.parametrize("scale", WILD)
def test_padding_contributes_exactly_zero(params, scale):
    mask = [True, True, False, False]
    wild = summed(params, batch_of([1.0, 2.0, scale, np.nan]), mask=mask)
    tame = summed(params, batch_of([1.0, 2.0, 0.0, 0.0]), mask=mask)
    np.testing.assert_array_equal(flat64(wild), flat64(tame))
    np.testing.assert_allclose(
        flat64(wild),
        looped(params, jax.tree.map(lambda a: a[:2], batch_of([1.0, 2.0, 0, 0]))),
        rtol=1e-5,
    )


def test_all_padding_gives_exactly_zero(params):
    assert not flat64(summed(params, batch_of([1.0, np.nan]), mask=[False, False])).any()


def test_gradients_of_any_size_are_clipped_and_not_lost(params):
    for scale in (1e10, 1e30):
        norm = np.linalg.norm(flat64(summed(params, batch_of([scale]))))
        assert norm == pytest.approx(C, rel=1e-3)


def test_small_gradients_pass_unchanged(params):
    batch = batch_of([1e-3])
    tiny = {"w": params["w"], "b": params["b"]}
    grad = jax.grad(loss_fn)(tiny, jax.tree.map(lambda a: a[0], batch), None)
    np.testing.assert_allclose(flat64(summed(params, batch, c=100.0)), flat64(grad), rtol=1e-6)


def test_bfloat16_parameters_still_give_a_strict_float32_sum(params):
    low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    batch = jax.tree.map(lambda a: a.astype(jnp.bfloat16), batch_of([1e4]))
    total = summed(low, batch)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(total))
    assert np.linalg.norm(flat64(total)) <= C


def test_plain_sum_equals_the_loop_without_clipping(params):
    batch, keys = batch_of([0.5, 2.0, 4.0]), jax.random.split(jax.random.key(1), 3)
    mask = jnp.array([True, True, False])
    total = clipping.summed_grads(loss_fn, params, batch, keys, mask)
    expected = looped(params, jax.tree.map(lambda a: a[:2], batch), c=1e9)
    np.testing.assert_allclose(flat64(total), expected, rtol=1e-5)
