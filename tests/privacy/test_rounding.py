"""One unit moves the float32 sum that is released by at most C, however the draw is made up.

The draws are those of Casacuberta, Shoemate, Vadhan, Wagaman 2022: large contributions bring the
running sum close to a power of two, one unit more brings it across, and the small ones behind
are then rounded up instead of down.
"""

import math
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.config import load_config
from jaxfair.privacy.sampling import draw_bound
from jaxfair.privacy.sums import rounding
from tests.privacy.toy import Bench, method_of, plan_of

CLIP = 1.0


def one_loss(params, frozen, example, key):
    """One parameter, whose gradient is the example's scale."""
    return params["w"] * example["scale"], {}


def bench_of(units, way="vmap", **shape):
    """A training that draws each of `units` units every time."""
    plan = plan_of(clip=CLIP, clipping=way, batch=units, public_size=units)
    return Bench(method_of(one_loss, lambda: {"w": jnp.zeros(())}), plan, **shape)


def unclipped(units):
    """The largest multiple of 2^-10 that is a contribution as it stands, without a clip."""
    clip = rounding.bound(CLIP, plan_of(public_size=units).max_draw) * (1 - 2.0**-12)
    return math.floor(clip * 2**10) / 2**10


def shifting(units, microbatch):
    """Contributions of `units` units, without and with one more in front."""
    half, big = 2 ** int(math.log2((units - 1) // 2)), unclipped(units)
    count = math.ceil(half / big) - 2
    first = half - (count + 1) * big  # so that one more brings the sum to `half`
    large = np.concatenate([[first], np.full(count, big)])
    small = np.full(units - 1 - len(large), 0.51 * half * 2.0**-23 / microbatch)
    without = np.concatenate([large, small]).astype(np.float32)
    return without, np.concatenate([[np.float32(big)], without])


def examples(scales):
    return {"x": np.zeros((len(scales), 36), np.float32), "scale": np.asarray(scales, np.float32)}


def moved(bench, without, added):
    return abs(
        float((bench.clipped_sum(examples(added)) - bench.clipped_sum(examples(without)))[0])
    )


@pytest.mark.parametrize(
    ("way", "units", "microbatch"),
    [("vmap", 2048, 1), ("fast", 2048, 1), ("vmap", 4192, 8), ("fast", 4192, 8), ("vmap", 8194, 1)],
)
def test_one_unit_more_moves_a_sum_of_thousands_by_at_most_c(way, units, microbatch):
    chunk = -(-units // microbatch) * microbatch
    bench = bench_of(units, way, microbatch=microbatch, chunk=chunk)
    assert moved(bench, *shifting(units, microbatch)) <= CLIP


@pytest.mark.parametrize(("devices", "microbatch"), [(1, 8), (2, 4), (8, 1)])
def test_one_unit_more_moves_a_sum_over_chunks_and_devices_by_at_most_c(devices, microbatch):
    bench = bench_of(4192, devices=devices, microbatch=microbatch, chunk=8)
    assert moved(bench, *shifting(4192, 8)) <= CLIP


def of_many_orders(seed, count):
    """Contributions below the clip whose magnitudes span many orders, of both signs."""
    rng = np.random.default_rng(seed)
    sizes = unclipped(count) * 10.0 ** rng.uniform(-9, 0, count)
    return (sizes * rng.choice([-1, 1], count)).astype(np.float32)


def total_of(bench, scales):
    """The total that the state holds after one draw, its two numbers added in float64."""
    state = bench.start()
    for chunk, randomness, _ in bench.feed(examples(scales)).chunks(0, 1):
        state, _ = bench.assembly.update(state, chunk, randomness, is_last=False)
    high, low = (np.asarray(x["w"], np.float64) for x in (state.clipped_sum, state.sum_rest))
    assert np.float32(high + low) == high
    return float(high + low)


def assert_loses_nothing(**shape):
    bench = bench_of(180, **shape)
    for seed in range(4):
        scales = of_many_orders(seed, 180)
        exact = math.fsum(map(float, scales))
        assert abs(total_of(bench, scales) - exact) <= 1e-12 * float(np.abs(scales).sum())


def test_edge_62_the_sum_over_microbatches_loses_nothing():
    assert_loses_nothing(microbatch=1, chunk=192)


def test_edge_63_the_sum_over_chunks_loses_nothing():
    assert_loses_nothing(microbatch=1, chunk=1)
    assert_loses_nothing(microbatch=1, chunk=8, devices=2)


def test_edge_64_the_sum_over_devices_loses_nothing():
    assert_loses_nothing(microbatch=1, chunk=64, devices=2)
    assert_loses_nothing(microbatch=1, chunk=8, devices=8)


def within(microbatches):
    """Microbatches of 32 whose own sums are rounded up where one unit more shifts them by a row."""
    big = np.float32(1.5)  # clipped
    one = np.concatenate([np.full(8, big), np.full(23, 0.51 * 2.0**-20), [big]])
    without = np.tile(one, microbatches).astype(np.float32)
    return without, np.concatenate([[big], without])


def test_edge_65_the_clip_leaves_room_for_what_rounds_within_a_microbatch():
    count = 128 * 32
    params = lambda: {"w": jnp.zeros(8)}
    loss = lambda p, frozen, example, key: (p["w"][0] * example["scale"], {})
    plan = plan_of(clip=CLIP, batch=count, public_size=count)
    bench = Bench(method_of(loss, params), plan, microbatch=32, chunk=count + 32)
    without, added = within(128)
    change = bench.clipped_sum(examples(added)) - bench.clipped_sum(examples(without))
    assert np.linalg.norm(change) <= CLIP


def test_the_table_of_the_guarantee_follows_from_the_configs():
    """It gives B and the share of C for each config that it names."""
    page = pathlib.Path(rounding.__file__).parents[1] / "README.md"
    row = r"\| ([\d,]+) \(`([\w:]+)`.*?\) \| ([\d,]+) \| ([\d.]+) % \|"
    rows = re.findall(row, page.read_text())
    assert len(rows) == 5
    for expected, name, largest, share in rows:
        config = load_config(name)
        batch, size = config.train.expected_batch_size, config.data.public_size
        units = draw_bound(size, batch / size)
        assert (f"{batch:,}", f"{units:,}") == (expected, largest)
        assert float(share) == pytest.approx(100 * rounding.margin(units), rel=0.1)
