"""The reversal: nothing forward, the other way backward, and readable for fast clipping."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.models.reversal import reverse
from jaxfair.privacy.sums import clipping, fast

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((5, 4)) * 10.0 ** RNG.integers(-20, 20, (5, 4)), jnp.float32)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 7.0])
def test_forward_nothing_changes_and_backward_the_gradient_is_turned(strength):
    np.testing.assert_array_equal(jax.jit(reverse)(X, strength), X)
    weight = jnp.asarray(RNG.standard_normal((5, 4)), jnp.float32)
    grad = jax.grad(lambda x: jnp.sum(weight * reverse(x, strength)))(X)
    np.testing.assert_allclose(grad, -strength * weight, rtol=1e-6)


def reversed_loss(strength, params, example, key):
    """A hidden layer that serves one head and is turned against by another."""
    hidden = jax.nn.relu(example["x"] @ params["hidden"])
    own = jnp.sum(jnp.square(hidden @ params["head"] - example["y"]))
    against = jnp.sum(jnp.square(reverse(hidden, strength) @ params["adversary"] - example["a"]))
    return own + against


def made():
    shapes = {"hidden": (6, 8), "head": (8, 2), "adversary": (8, 3)}
    params = {n: jnp.asarray(RNG.standard_normal(s), jnp.float32) for n, s in shapes.items()}
    sizes = {"x": 6, "y": 2, "a": 3}
    batch = {n: jnp.asarray(RNG.standard_normal((7, s)), jnp.float32) for n, s in sizes.items()}
    return params, batch


def test_the_one_behind_learns_and_the_one_before_is_led_away():
    params, batch = made()
    row = jax.tree.map(lambda a: a[0], batch)
    off, on = (jax.grad(functools.partial(reversed_loss, s))(params, row, None) for s in (0.0, 2.0))
    np.testing.assert_array_equal(off["adversary"], on["adversary"])

    def against(hidden):
        seen = jax.nn.relu(row["x"] @ hidden)
        return jnp.sum(jnp.square(seen @ params["adversary"] - row["a"]))

    led = jax.grad(against)(params["hidden"])
    np.testing.assert_allclose(on["hidden"], off["hidden"] - 2.0 * led, rtol=1e-4, atol=1e-3)


def test_fast_clipping_of_a_reversed_loss_is_the_loop():
    params, batch = made()
    keys, mask = jax.random.split(jax.random.key(0), 7), jnp.arange(7) != 2
    clip = 3.0

    @jax.jit
    def summed(strength):  # as in the step, where it is traced
        loss = functools.partial(reversed_loss, strength)
        return fast.clipped_sum(loss, params, batch, keys, mask, l2_clip_norm=clip)

    total = {name: np.zeros(leaf.shape) for name, leaf in params.items()}
    for i in np.flatnonzero(mask):
        row = jax.tree.map(lambda a, i=i: a[i], batch)
        one = jax.grad(functools.partial(reversed_loss, 1.5))(params, row, None)
        norm = np.sqrt(sum(np.sum(np.square(np.float64(g))) for g in one.values()))
        assert norm > clip
        total = {n: total[n] + np.asarray(one[n]) * clip / norm for n in total}
    ours = summed(jnp.float32(1.5))
    for name in total:
        scale = np.abs(total[name]).max()
        np.testing.assert_allclose(ours[name], total[name], atol=1e-3 * scale)
    ways = fast.explain(functools.partial(reversed_loss, 1.5), params, row, keys[0])
    assert all(way != "vmap" for _, way, _ in ways)
    assert clipping.CLIP_MARGIN < 1e-3
