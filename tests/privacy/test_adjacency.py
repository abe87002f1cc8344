"""Neighbouring data sets: the clipped sum moves by at most C, whatever one patient holds."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxfair.privacy.sums import clipping
from tests.privacy.toy import (
    WILD,
    Bench,
    C,
    dense_loss,
    dense_params,
    examples_of,
    flat64,
    low_precision_loss,
    method_of,
    plan_of,
    without,
)

LOSSES = {"float32": dense_loss, "bfloat16": low_precision_loss}
SLACK = 1e-6
"""Relative rounding of a float32 sum of a few terms; each term is strictly within C (below)."""

SIZES = st.one_of(st.sampled_from(WILD), st.floats(-30, 30).map(lambda e: 10.0**e))
COMMON = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(hypothesis.HealthCheck),
}
DRAWN = hypothesis.settings(max_examples=15, **COMMON)
MANY = hypothesis.settings(max_examples=1000, **COMMON)


@functools.cache
def bench(dtype="float32", devices=1, way="vmap"):
    return Bench(method_of(LOSSES[dtype]), plan_of(clipping=way), devices=devices, microbatch=1)


def distance(a, b):
    assert np.isfinite(a).all() and np.isfinite(b).all()
    return np.linalg.norm(a - b)


def check_removal(chosen, scales, data):
    place = data.draw(st.integers(0, len(scales) - 1))
    examples = examples_of(scales, data.draw(st.integers(0, 5)))
    sums = [chosen.clipped_sum(e) for e in (examples, without(examples, place))]
    assert distance(*sums) <= C * (1 + SLACK)


MESHES = [("float32", 1), ("float32", 2), ("float32", 8), ("bfloat16", 1), ("bfloat16", 8)]


@pytest.mark.parametrize(("dtype", "devices"), MESHES)
@DRAWN
@hypothesis.given(scales=st.lists(SIZES, min_size=1, max_size=9), data=st.data())
def test_adding_or_removing_a_patient_moves_the_sum_by_at_most_c(dtype, devices, scales, data):
    check_removal(bench(dtype, devices), scales, data)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["vmap", "fast"])
@pytest.mark.parametrize("dtype", LOSSES)
@MANY
@hypothesis.given(scales=st.lists(SIZES, min_size=1, max_size=9), data=st.data())
def test_a_thousand_removals_move_the_sum_by_at_most_c(dtype, way, scales, data):
    check_removal(bench(dtype, way=way), scales, data)


@pytest.mark.parametrize("dtype", LOSSES)
@DRAWN
@hypothesis.given(scales=st.lists(SIZES, min_size=1, max_size=9), other=SIZES, data=st.data())
def test_replacing_a_patient_moves_the_sum_by_at_most_two_c(dtype, scales, other, data):
    place = data.draw(st.integers(0, len(scales) - 1))
    examples = examples_of(scales)
    replaced = {name: values.copy() for name, values in examples.items()}
    replaced["scale"][place] = other
    replaced["x"][place] = -examples["x"][place]
    sums = [bench(dtype).clipped_sum(e) for e in (examples, replaced)]
    assert distance(*sums) <= 2 * C * (1 + SLACK)


@pytest.mark.parametrize("dtype", LOSSES)
def test_a_patient_and_his_opposite_reach_two_c(dtype):
    """The bound is tight: the test above could have failed."""
    examples = examples_of([1e6, 1.0])
    opposite = examples | {"scale": np.array([-1e6, 1.0], np.float32)}
    sums = [bench(dtype).clipped_sum(e) for e in (examples, opposite)]
    assert distance(*sums) > 1.998 * C


@DRAWN
@hypothesis.given(
    counts=st.lists(st.integers(1, 4), min_size=2, max_size=5), size=SIZES, data=st.data()
)
def test_removing_a_patient_with_several_images_moves_the_sum_by_at_most_c(counts, size, data):
    gone = data.draw(st.integers(0, len(counts) - 1))
    total = sum(counts)
    examples = examples_of(np.full(total, size))
    rows = np.split(np.arange(total), np.cumsum(counts)[:-1])
    names = [f"p{i}" for i in range(len(rows))]
    others = [i for i in range(len(rows)) if i != gone]
    full = bench().clipped_sum(examples, rows=rows, names=names)
    rest = bench().clipped_sum(
        examples, rows=[rows[i] for i in others], names=[names[i] for i in others]
    )
    assert distance(full, rest) <= C * (1 + SLACK)


@pytest.mark.parametrize("way", ["vmap", "fast"])
@pytest.mark.parametrize("dtype", LOSSES)
def test_the_contribution_of_a_patient_in_float64_is_at_most_c(dtype, way):
    for seed in range(8):
        for size in (1e-30, 1.0, 1e4, 1e10, 1e30):
            alone = bench(dtype, way=way).clipped_sum(examples_of([size], seed))
            assert np.linalg.norm(alone) <= C


@pytest.mark.parametrize("way", ["vmap", "fast"])
def test_an_outlier_optimised_to_move_the_sum_moves_it_by_at_most_c(way):
    """Gradient ascent on the outlier itself, through the clip, over many starts."""
    chosen = bench(way=way)
    params, others = dense_params(), examples_of([0.5, 2.0, 8.0], seed=9)
    keys, mask = jax.random.split(jax.random.key(0), 1), jnp.ones(1, bool)
    scalar = lambda p, e, k: dense_loss(p, {}, e, k)[0]

    @jax.jit
    def climb(outlier):
        def moved(outlier):
            one = jax.tree.map(lambda a: a[None], outlier)
            total = clipping.clipped_sum(scalar, params, one, keys, mask, l2_clip_norm=C)
            return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(total))

        ascend = lambda o, _: (jax.tree.map(lambda a, g: a + 30 * g, o, jax.grad(moved)(o)), None)
        return jax.lax.scan(ascend, outlier, None, length=50)[0]

    base = chosen.clipped_sum(others)
    for seed in range(6):
        start = jax.tree.map(lambda a: jnp.asarray(a[0]), examples_of([0.05], seed))
        found = {name: np.asarray(a)[None] for name, a in climb(start).items()}
        added = {name: np.concatenate([a, found[name]]) for name, a in others.items()}
        moved = distance(chosen.clipped_sum(added), base)
        assert moved <= C * (1 + SLACK)
    assert moved > 0.9 * C


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_parameters_keep_the_bound(dtype):
    half = lambda: jax.tree.map(lambda p: p.astype(dtype), dense_params())
    chosen = Bench(method_of(params=half))
    for size in WILD:
        examples = examples_of([1.0, size, 3.0])
        sums = [chosen.clipped_sum(e) for e in (examples, without(examples, 1))]
        assert distance(*sums) <= C * (1 + SLACK)


def test_factors_below_the_smallest_normal_are_zero():
    norms = jnp.asarray([1e38, 3e38, 1.0], jnp.float32)
    scales = clipping.scales_from_norms(norms, jnp.ones(3, bool), 1e-3)
    contributions = flat64(scales) * flat64(norms)
    assert (contributions <= 1e-3).all() and contributions[2] > 0.99e-3
