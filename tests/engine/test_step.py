"""The sharded step: equal to the loop over single examples on any mesh, compiled once."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair.engine.chunk import abstract_chunk, abstract_randomness, zeros
from jaxfair.engine.step import make_step
from jaxfair.errors import InputError
from jaxfair.privacy import noise, sampling
from tests.privacy.toy import (
    SPEC,
    Bench,
    C,
    conv_loss,
    conv_params,
    dense_params,
    dropout_loss,
    examples_of,
    flat64,
    looped,
    method_of,
    plan_of,
    with_prob,
)

SCALES = [0.01, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 30.0, 0.3, 0.7, 5.0]
CONV = method_of(conv_loss, conv_params)


@pytest.mark.parametrize("clipping", ["vmap", "fast"])
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_per_example_convolution_gradients_equal_the_loop_on_any_mesh(devices, clipping):
    bench = Bench(CONV, plan_of(clipping=clipping), devices=devices, microbatch=1, chunk=8)
    examples = examples_of(SCALES)
    total, truth = bench.noisy_sum(examples), looped(bench, examples)
    np.testing.assert_allclose(total, truth, atol=1e-5 * np.abs(truth).max())


@pytest.mark.parametrize("devices", [2, 8])
def test_each_example_counts_on_whatever_device_it_lies(devices):
    bench = Bench(CONV, plan_of(clip=1e6), devices=devices, microbatch=1, chunk=8)
    for place in range(8):
        scales = np.zeros(8)
        scales[place] = 1.0
        examples = examples_of(scales)
        truth = looped(bench, examples, clip=1e6)
        np.testing.assert_allclose(
            bench.noisy_sum(examples), truth, atol=1e-5 * np.abs(truth).max()
        )


def test_the_microbatch_changes_nothing_but_memory():
    examples = examples_of(SCALES)
    sums = [Bench(microbatch=m, chunk=8).noisy_sum(examples) for m in (1, 2, 8)]
    for other in sums[1:]:
        np.testing.assert_allclose(other, sums[0], atol=3e-7)


def test_the_buffer_changes_nothing_but_memory():
    examples = examples_of(SCALES)
    sums = [Bench(microbatch=4, chunk=chunk).noisy_sum(examples) for chunk in (4, 8, 12)]
    for other in sums[1:]:
        np.testing.assert_allclose(other, sums[0], atol=3e-7)


def test_dropout_follows_the_unit_and_not_its_place():
    bench = Bench(method_of(dropout_loss), microbatch=4, chunk=8)
    examples = examples_of([1.0, 2.0, 3.0])
    back = {name: values[::-1] for name, values in examples.items()}
    forward = bench.noisy_sum(examples, names=["a", "b", "c"])
    np.testing.assert_allclose(bench.noisy_sum(back, names=["c", "b", "a"]), forward, atol=1e-6)
    assert np.abs(bench.noisy_sum(examples, names=["d", "e", "f"]) - forward).max() > 1e-3


@pytest.mark.parametrize("devices", [1, 8])
def test_fifty_poisson_draws_compile_once(devices):
    bench = Bench(plan=plan_of(1.0, prob=0.08, batch=8), devices=devices, microbatch=1, chunk=8)
    feed = bench.feed(examples_of(np.ones(100)))
    sizes = [len(feed.draw(n)) for n in range(48)]
    state, _ = bench.train(feed, steps=48)
    state, _ = bench.train(with_prob(feed, 0.0), first=48, state=state)
    state, _ = bench.train(with_prob(feed, 1.0), first=49, state=state)
    assert min(sizes) < 8 < max(sizes)
    assert bench.step.update._cache_size() == 1
    assert int(state.step) == 50


def test_the_divisor_is_public_whoever_was_drawn():
    twice = Bench(plan=plan_of(batch=8)), Bench(plan=plan_of(batch=4))
    means = [flat64(b.train(b.feed(examples_of([1.0, 3.0])))[0].opt_state) for b in twice]
    np.testing.assert_array_equal(2 * means[0], means[1])
    idle = [1.0, 3.0, 0.0, 0.0, 0.0]
    alone, crowded = (twice[0].noisy_sum(examples_of(scales)) for scales in (idle[:2], idle))
    np.testing.assert_array_equal(alone, crowded)


def test_noise_is_added_once_however_many_chunks_a_draw_has():
    bench = Bench(plan=plan_of(2.0), microbatch=4, chunk=4)
    source = bench.feed(examples_of(np.zeros(10)))
    state, _ = bench.train(source)
    words = source.randomness(0).noise
    expected = noise.gaussian_like(bench.params, jnp.asarray(words), 2.0 * C)
    np.testing.assert_allclose(flat64(state.opt_state) * 4, flat64(expected), atol=1e-6)
    assert int(state.step) == 1


def test_the_noise_is_the_same_on_any_mesh():
    sums = [
        Bench(plan=plan_of(1.0), devices=d, microbatch=1).noisy_sum(examples_of([0.0]))
        for d in (1, 2, 8)
    ]
    np.testing.assert_array_equal(sums[0], sums[1])
    np.testing.assert_array_equal(sums[0], sums[2])


def test_the_step_takes_the_memory_of_the_state_that_it_is_given():
    bench = Bench(optimizer=optax.adam(0.1))
    given = bench.start()
    ((chunk, randomness, is_last),) = bench.feed(examples_of([1.0, 2.0])).chunks(0, 1)
    bench.step.update(given, bench.frozen, chunk, randomness, is_last)
    for part in (given.params, given.opt_state, given.clipped_sum):
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(part))


def test_a_run_is_a_function_of_its_secret():
    bench = Bench(plan=plan_of(1.0, prob=0.3))
    runs = [flat64(bench.train(bench.feed(examples_of(SCALES)), steps=4)[0]) for _ in range(2)]
    np.testing.assert_array_equal(*runs)


def test_a_run_in_two_parts_is_the_run_in_one():
    bench = Bench(plan=plan_of(1.0, prob=0.3), optimizer=optax.adam(0.1))
    feed = bench.feed(examples_of(SCALES))
    whole, _ = bench.train(feed, steps=6)
    first, _ = bench.train(feed, steps=3)
    second, _ = bench.train(feed, first=3, steps=3, state=first)
    np.testing.assert_array_equal(flat64(whole), flat64(second))


def test_without_privacy_the_sum_is_the_plain_one():
    plan = plan_of().__class__(**{**vars(plan_of()), "private": False, "l2_clip_norm": np.inf})
    bench = Bench(plan=plan)
    examples = examples_of(SCALES)
    truth = looped(bench, examples, clip=np.inf)
    np.testing.assert_allclose(bench.noisy_sum(examples), truth, rtol=1e-5, atol=1e-6)


def test_low_precision_parameters_keep_their_dtype_and_a_float32_sum():
    half = lambda: jax.tree.map(lambda p: p.astype(jnp.bfloat16), dense_params())
    bench = Bench(method_of(params=half), plan_of(1.0), optimizer=optax.sgd(0.1))
    state, _ = bench.train(bench.feed(examples_of(SCALES)))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(state.clipped_sum)} == {jnp.dtype(jnp.float32)}


def test_a_private_plan_refuses_a_method_that_couples_examples():
    with pytest.raises(InputError, match=r"'toy' couples the examples .* dp.enabled=False"):
        Bench(method_of(couples_examples=True))


class Normalised(nn.Module):
    """A layer with a BatchNorm that trains."""

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(x[None])[0]


def batchnorm_loss(mutable):
    def loss(params, frozen, example, key):
        out = Normalised().apply(params, example["x"], mutable=mutable)
        return example["scale"] * jnp.sum(out[0] if mutable else out), {}

    return loss


@pytest.mark.parametrize("mutable", [False, ["batch_stats"]])
def test_a_batchnorm_that_trains_is_refused_when_the_step_is_traced(mutable):
    params = lambda: Normalised().init(jax.random.key(0), jnp.zeros(36))
    bench = Bench(method_of(batchnorm_loss(mutable), params))
    with pytest.raises(InputError, match="BatchNorm"):
        bench.noisy_sum(examples_of([1.0]))


def test_nothing_random_has_a_default_key():
    for function in (noise.gaussian_like, noise.noise_key_data, sampling.poisson_draw):
        names = inspect.signature(function).parameters
        assert all(p.default is inspect.Parameter.empty for p in names.values())
    update = inspect.signature(make_step(method_of(), plan_of(), optax.sgd(1.0),
                                         Bench().mesh, microbatch=1).update)  # fmt: skip
    assert all(p.default is inspect.Parameter.empty for p in update.parameters.values())


def test_a_chunk_that_does_not_divide_is_refused_in_one_sentence():
    for devices, microbatch, rows, said in (
        (1, 4, 10, "microbatches of 4 do not divide"),
        (2, 4, 7, "7 rows does not spread evenly over 2 devices"),
    ):
        bench = Bench(devices=devices, microbatch=microbatch)
        chunk = zeros(abstract_chunk(SPEC, rows))
        keys = zeros(abstract_randomness(bench.assembly.num_leaves))
        with pytest.raises(InputError, match=said) as caught:
            bench.assembly.update(bench.start(), chunk, keys)
        assert "\n" not in str(caught.value)


def test_more_rows_than_a_chunk_has_are_refused():
    bench = Bench(microbatch=4)
    fields = bench.feed(examples_of(np.ones(9))).fields
    with pytest.raises(InputError, match="9 rows do not fit into a chunk of 4"):
        bench.assembly.chunk(fields, range(9))
