"""Sharp edges of the clipped sum. Each test fails when its fault (mutations/) is put back."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.privacy.plan import PrivacyConfig
from jaxfair.privacy.sums import clipping, fast
from tests.privacy.toy import (
    SECRET,
    WILD,
    Bench,
    C,
    conv_loss,
    conv_params,
    dense_params,
    dropout_loss,
    examples_of,
    flat64,
    looped,
    low_precision_loss,
    method_of,
    plan_of,
    without,
)


def moves(bench, examples, place):
    """How far the sum moves in l2 norm when the example at `place` is removed."""
    return np.linalg.norm(bench.clipped_sum(examples) - bench.clipped_sum(without(examples, place)))


def both_ways(loss, params, examples):
    """The clipped sums of the plain and of the fast way."""
    method = method_of(loss, params)
    return [Bench(method, plan_of(clipping=way)).noisy_sum(examples) for way in ("vmap", "fast")]


def assert_same_and_clipped(loss, params, examples):
    plain, quick = both_ways(loss, params, examples)
    np.testing.assert_allclose(quick, plain, atol=2e-5 * np.abs(plain).max())
    bench = Bench(method_of(loss, params), plan_of(clipping="fast"))
    for i in range(len(examples["scale"])):
        alone = bench.noisy_sum({name: a[i : i + 1] for name, a in examples.items()})
        assert np.linalg.norm(alone) <= C


def test_edge_01_the_divisor_is_the_public_batch_size_not_the_realised_one():
    bench = Bench()
    alone, crowded = (bench.noisy_sum(examples_of(s)) for s in ([1.0, 3.0], [1.0, 3.0, 0, 0, 0]))
    np.testing.assert_array_equal(alone, crowded)


def test_edge_03_a_nan_or_infinite_example_moves_the_sum_by_at_most_c():
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        cast = lambda dtype=dtype: jax.tree.map(lambda p: p.astype(dtype), dense_params())
        bench = Bench(method_of(params=cast))
        for wild in WILD:
            examples = examples_of([1.0, wild, 2.0])
            assert np.isfinite(bench.clipped_sum(examples)).all(), (dtype, wild)
            assert moves(bench, examples, 1) <= C * (1 + 1e-6)
            examples = examples_of([1.0, 1.0, 2.0])
            examples["x"][1, 5] = wild
            assert moves(bench, examples, 1) <= C * (1 + 1e-6)


def test_edge_04_the_norm_neither_overflows_nor_loses_precision():
    bench = Bench()
    for scale in 10.0 ** np.arange(4, 31, 2):
        norm = np.linalg.norm(bench.noisy_sum(examples_of([scale])))
        assert 0.998 * C <= norm <= C, scale


def test_edge_05_norm_and_sum_share_precision_and_dropout():
    examples = examples_of([0.5, 2.0, 5.0, 30.0])
    assert_same_and_clipped(dropout_loss, dense_params, examples)
    bench = Bench(method_of(low_precision_loss), plan_of(clipping="fast"))
    for seed in range(20):
        assert np.linalg.norm(bench.clipped_sum(examples_of([50.0], seed))) <= C


def odd_params():
    """A layer scale, a class token, a position embedding and a bias, beside a weight."""
    rng = np.random.default_rng(1)
    shapes = {"w": (12, 4), "token": (1, 12), "place": (4, 12), "gain": (4,), "bias": (4,)}
    return {n: jnp.asarray(rng.normal(size=s) / 3, jnp.float32) for n, s in shapes.items()}


def odd_loss(params, frozen, example, key):
    tokens = jnp.concatenate([params["token"], example["x"].reshape(3, 12)]) + params["place"]
    hidden = jnp.tanh(tokens @ params["w"]) * params["gain"] + params["bias"]
    return example["scale"] * jnp.sum(hidden**2), {}


def test_edge_06_no_parameter_is_outside_every_rule():
    examples = examples_of([0.1, 1.0, 10.0])
    assert_same_and_clipped(odd_loss, odd_params, examples)
    example = {name: a[0] for name, a in examples.items()}
    scalar = lambda p, e, k: odd_loss(p, {}, e, k)[0]
    explained = fast.explain(scalar, odd_params(), example, jax.random.key(0))
    assert len(explained) == len(odd_params())


def tied_params():
    return {"w": jnp.asarray(np.random.default_rng(2).normal(size=(36, 8)) / 6, jnp.float32)}


def tied_loss(params, frozen, example, key):
    rebuilt = jnp.tanh(example["x"] @ params["w"]) @ params["w"].T
    return example["scale"] * jnp.mean(jnp.square(rebuilt - example["x"])), {}


def test_edge_07_a_weight_used_twice_has_one_norm():
    assert_same_and_clipped(tied_loss, tied_params, examples_of([0.1, 3.0, 30.0]))


CONVOLUTIONS = {  # kernel, input shape, strides, padding, lhs dilation, rhs dilation, groups
    "strided": ((3, 3, 1, 2), (6, 6, 1), (2, 2), "SAME", (1, 1), (1, 1), 1),
    "dilated": ((2, 2, 1, 2), (6, 6, 1), (1, 1), "VALID", (1, 1), (2, 2), 1),
    "transposed": ((3, 3, 1, 2), (6, 6, 1), (1, 1), ((2, 1), (1, 2)), (2, 2), (1, 1), 1),
    "grouped": ((2, 2, 2, 4), (3, 3, 4), (1, 1), ((1, 0), (0, 1)), (1, 1), (1, 1), 2),
}


def convolutions_params():
    rng = np.random.default_rng(3)
    return {n: jnp.asarray(rng.normal(size=c[0]), jnp.float32) for n, c in CONVOLUTIONS.items()}


def convolutions_loss(params, frozen, example, key):
    total, numbers = 0.0, ("NHWC", "HWIO", "NHWC")
    for name, (_, shape, strides, padding, lhs, rhs, groups) in CONVOLUTIONS.items():
        maps = jax.lax.conv_general_dilated(
            example["x"].reshape(1, *shape), params[name], strides, padding, lhs_dilation=lhs,
            rhs_dilation=rhs, feature_group_count=groups, dimension_numbers=numbers,
        )  # fmt: skip
        total += jnp.sum(jnp.tanh(maps))
    return example["scale"] * total, {}


def test_edge_08_convolutions_of_every_shape_are_clipped_right():
    assert_same_and_clipped(convolutions_loss, convolutions_params, examples_of([0.01, 1.0]))


def test_edge_14_a_microbatch_is_not_a_unit():
    examples = examples_of([0.1, 1.0, 4.0, 30.0, 2.0, 0.5, 7.0])
    sums = [Bench(microbatch=m).noisy_sum(examples) for m in (1, 4, 8)]
    for other in sums[1:]:
        np.testing.assert_allclose(other, sums[0], atol=3e-7)


def test_edge_27_every_group_has_the_same_bound():
    def loss(params, frozen, example, key):
        return jnp.sum(params["w"][:, 0] * example["x"]) * example["scale"], {}

    bench = Bench(method_of(loss))
    for group in (0.0, 1.0):
        examples = examples_of([100.0]) | {"group": np.array([group], np.float32)}
        assert np.linalg.norm(bench.noisy_sum(examples)) <= C
    assert "group" not in inspect.signature(clipping.clipped_sum).parameters
    with pytest.raises((InputError, TypeError)):
        PrivacyConfig(l2_clip_norm={"F": 1.0, "M": 2.0})


def test_edge_32_padding_reads_nobody_and_counts_for_nobody():
    bench, examples = Bench(), examples_of([1.0, 2.0, 3.0])
    read = []
    source = bench.feed(examples)
    fields = {n: (lambda rows, f=f: read.extend(rows) or f(rows)) for n, f in source.fields.items()}
    source = source._replace(fields=fields)
    truth = bench.noisy_sum(examples)
    chunk, randomness, _ = next(source.chunks(0, 1))
    assert sorted(set(read)) == [0, 1, 2]
    hostile = jnp.where(np.arange(8) < 3, chunk.examples["scale"], jnp.nan)
    spoilt = chunk._replace(examples=chunk.examples | {"scale": hostile})
    state, _ = bench.assembly.update(bench.start(), spoilt, randomness)
    np.testing.assert_array_equal(flat64(state.opt_state) * 4, truth)
    np.testing.assert_allclose(truth, looped(bench, examples), atol=1e-5)


def test_edge_39_rounding_never_lifts_a_contribution_above_c():
    loss = lambda p, x, key: jnp.sum(p * x)
    keys, mask = jax.random.split(jax.random.key(0), 1), jnp.ones(1, bool)
    one = jax.jit(
        lambda x: clipping.clipped_sum(loss, jnp.ones(50), x[None], keys, mask, l2_clip_norm=C)
    )
    rng = np.random.default_rng(4)
    for size in 10.0 ** rng.uniform(0, 6, 300):
        assert np.linalg.norm(flat64(one(jnp.asarray(size * rng.normal(size=50))))) <= C


def test_edge_42_the_released_contribution_is_within_c_whatever_the_compiler_did():
    for way in ("vmap", "fast"):
        bench = Bench(method_of(conv_loss, conv_params), plan_of(clipping=way))
        for seed in range(12):
            alone = bench.noisy_sum(examples_of([1e3], seed), secret=SECRET)
            assert np.linalg.norm(alone) <= C
