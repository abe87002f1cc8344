"""The clipped sums by hand: those of the engine, for a loss that keeps to its example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import privacy
from jaxfair.errors import InputError
from jaxfair.privacy.sums import clipping
from tests.privacy.test_edges_release import over_the_batch
from tests.privacy.toy import C, dense_loss, dense_params, examples_of, flat64

SUMS = [privacy.clipped_sum, privacy.clipped_sum_vmap]
BATCH = examples_of([0.3, 1.0, 4.0, 2.0])
KEYS, MASK = jax.random.split(jax.random.key(0), 4), jnp.array([True, True, True, False])


def loss(params, example, key):
    return dense_loss(params, {}, example, key)[0]


def summed(way, loss_fn, **axis):
    by_hand = lambda p: way(loss_fn, p, BATCH, KEYS, MASK, l2_clip_norm=C)
    return jax.jit(by_hand)(dense_params())


@pytest.mark.parametrize("way", SUMS)
def test_it_is_the_sum_of_the_engine(way):
    how = {"l2_clip_norm": C, "units": len(MASK)}
    truth = clipping.clipped_sum(loss, dense_params(), BATCH, KEYS, MASK, **how)
    np.testing.assert_allclose(flat64(summed(way, loss)), flat64(truth), atol=1e-6)


def by_batching_rule(params, example, key):
    squash = over_the_batch(jnp.max)
    return loss(params, example | {"scale": squash(example["scale"])}, key)


def by_a_collective(params, example, key):
    return jax.lax.pmean(loss(params, example, key), "data")


def by_a_callback(params, example, key):
    struct = jax.ShapeDtypeStruct((), jnp.float32)
    seen = jax.pure_callback(lambda x: np.float32(x), struct, example["scale"])
    return loss(params, example | {"scale": jax.lax.stop_gradient(seen)}, key)


@pytest.mark.parametrize("way", SUMS)
@pytest.mark.parametrize("coupled", [by_batching_rule, by_a_collective, by_a_callback])
def test_a_loss_that_may_reach_other_examples_is_refused_in_one_sentence(way, coupled):
    with pytest.raises(InputError, match="may reach another's gradient") as caught:
        summed(way, coupled)
    assert "\n" not in str(caught.value)
