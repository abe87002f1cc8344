"""Many chunks at once: the numbers of one chunk at a time, compiled once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair.engine import scan, trainer
from jaxfair.engine.chunk import gather_on_device
from jaxfair.engine.features import Cached, training_fields
from jaxfair.engine.mesh import make_mesh
from jaxfair.methods.base import Method
from tests.engine.test_resume import assert_same, kill_and_resume, outcome, toy  # noqa: F401
from tests.privacy.toy import (
    Bench,
    conv_loss,
    conv_params,
    examples_of,
    flat64,
    method_of,
    plan_of,
    with_prob,
)

POPULATION = examples_of(np.linspace(0.01, 8.0, 40))
STEPS = 9


def cached(feed):
    """The same feed with its examples in memory, in an order of their own."""
    order = np.random.default_rng(0).permutation(len(feed.population.rows))
    values = {name: read(order) for name, read in feed.fields.items()}
    return feed._replace(fields={n: Cached(v, np.argsort(order)) for n, v in values.items()})


def scanned(bench, feed, length, stretches=((0, STEPS),), *, spread=False):
    """Trains stretches of steps; returns the delivery, the state and what was released last."""
    given = (bench.step, feed, bench.frozen, length)
    way, state = scan.make_scanned_delivery(*given, spread=spread), bench.start()
    for first, count in stretches:
        for arguments in way.arguments(first, count):
            state, released = way.update(state, way.frozen, *arguments)
    return way, state, released


def bench_of(devices=1, clipping="fast"):
    """Draws of 0 to some 16 of 40 units in chunks of 8: none, one, or several chunks each."""
    plan = plan_of(1.0, prob=0.2, batch=8, clipping=clipping)
    method = method_of(conv_loss, conv_params)
    return Bench(method, plan, devices, microbatch=1, chunk=8, optimizer=optax.adam(0.1))


@pytest.mark.parametrize("clipping", ["vmap", "fast"])
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_the_state_is_that_of_one_chunk_at_a_time(devices, clipping):
    """On 8 devices each of them holds a share of the cache."""
    bench = bench_of(devices, clipping)
    feed = cached(bench.feed(POPULATION))
    truth, seen = bench.train(feed, steps=STEPS)
    way, state, released = scanned(bench, feed, length=4, spread=devices == 8)
    assert int(state.step) == STEPS
    for ours, theirs in zip(state, truth, strict=True):
        np.testing.assert_allclose(flat64(ours), flat64(theirs), rtol=1e-6, atol=1e-6)
    for name, value in seen[-1].items():
        np.testing.assert_allclose(released[name], value, rtol=1e-6)
    assert way.update._cache_size() == 1


def test_a_cache_on_the_devices_by_shares_gives_the_same_chunks():
    """Of 37 rows on 8 devices, whole numbers, truths and what is not a number among them."""
    rng, mesh = np.random.default_rng(0), make_mesh(8)
    store = {
        "x": jnp.asarray(rng.standard_normal((37, 3)), jnp.bfloat16).at[5].set(jnp.nan),
        "label": np.arange(37, dtype=np.int32),
        "asked": np.arange(37) % 3 == 0,
    }
    store = {name: np.asarray(values) for name, values in store.items()}
    place, ids = jnp.asarray([36, 5, -1, 0, 8, 4, 31, 5], jnp.int32), jnp.arange(8, dtype="u4")
    shares = scan._put_shares(mesh, store)
    assert {s.data.shape[0] for a in shares.values() for s in a.addressable_shards} == {5}
    ours = jax.jit(functools.partial(scan._gather_shares, mesh))(shares, place, ids)
    truth = gather_on_device(store, np.asarray(place), ids)
    assert {a.dtype for a in jax.tree.leaves(ours)} == {a.dtype for a in jax.tree.leaves(truth)}
    wide = lambda a: np.asarray(a, np.float32)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(wide(a), wide(b)), ours, truth)


def test_where_a_stretch_of_steps_ends_changes_nothing():
    bench = bench_of()
    feed = cached(bench.feed(POPULATION))
    whole = scanned(bench, feed, length=4)[1]
    way, cut, _ = scanned(bench, feed, length=4, stretches=((0, 3), (3, 1), (4, 5)))
    np.testing.assert_array_equal(flat64(cut), flat64(whole))
    assert way.update._cache_size() == 1


def test_a_draw_may_reach_over_several_stacks_and_be_empty():
    bench = bench_of()
    everyone = cached(bench.feed(POPULATION, prob=1.0))
    nobody = with_prob(everyone, 0.0)
    for feed in (everyone, nobody):
        truth, seen = bench.train(feed, steps=2)
        _, state, released = scanned(bench, feed, length=2, stretches=((0, 2),))
        np.testing.assert_allclose(flat64(state), flat64(truth), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(
            released["noisy_mean_norm"], seen[-1]["noisy_mean_norm"], rtol=1e-6
        )


def test_the_way_is_chosen_by_backend_and_by_what_is_cached(monkeypatch):
    bench = bench_of()
    plain = bench.feed(POPULATION)
    feed = cached(plain)
    assert scan.make_delivery(bench.step, feed, bench.frozen).update is bench.step.update
    monkeypatch.setattr(scan, "SCANNED", ("cpu",))
    assert scan.make_delivery(bench.step, feed, bench.frozen).update is not bench.step.update
    assert scan.make_delivery(bench.step, plain, bench.frozen).update is bench.step.update
    monkeypatch.setattr(scan, "STORE_BYTES", 10)
    assert scan.make_delivery(bench.step, feed, bench.frozen).update is bench.step.update


def test_a_cache_too_large_for_one_device_is_spread_over_all(monkeypatch):
    bench, made, original = bench_of(devices=8), [], scan.make_scanned_delivery
    monkeypatch.setattr(scan, "SCANNED", ("cpu",))
    monkeypatch.setattr(
        scan, "make_scanned_delivery", lambda *a, spread: made.append(spread) or original(*a)
    )
    needed = bench.plan.public_size * 37 * 4  # of 37 numbers each
    for held in (needed, needed - 1, needed // 8, needed // 8 - 1):
        monkeypatch.setattr(scan, "STORE_BYTES", held)
        scan.make_delivery(bench.step, cached(bench.feed(POPULATION)), bench.frozen)
    assert made == [False, True, True]


def test_one_patient_more_does_not_change_the_way(monkeypatch):
    """On a device another way may round otherwise, and everybody's sum with it."""
    bench, ways = bench_of(), []
    monkeypatch.setattr(scan, "SCANNED", ("cpu",))
    monkeypatch.setattr(scan, "STORE_BYTES", 40 * 37 * 4)  # 40 units of 37 numbers
    for count in (40, 41):
        feed = cached(bench.feed(examples_of(np.ones(count))))
        ways.append(scan.make_delivery(bench.step, feed, bench.frozen).update is bench.step.update)
    assert ways[0] == ways[1]


def test_skipped_chunks_cost_no_training():
    bench = bench_of()
    feed = cached(bench.feed(POPULATION))
    ((chunks, is_real),) = next(
        iter(scan.make_scanned_delivery(bench.step, feed, {}, 64).arguments(0, 1))
    )
    assert int(np.sum(is_real)) < 8
    assert chunks.rows.shape == (64, 8) and is_real.shape == (64,)


@pytest.fixture
def scanned_toy(toy, monkeypatch):  # noqa: F811
    """The toy runs of test_resume, with their images cached and many chunks at once."""

    def cached_fields(method, frozen, fields, rows, **kwargs):
        place = np.argsort(rows)
        return {name: Cached(read(rows), place) for name, read in fields.items()}

    monkeypatch.setattr(scan, "SCANNED", ("cpu",))
    monkeypatch.setattr(scan, "CHUNKS_AT_ONCE", 3)
    monkeypatch.setattr(trainer, "training_fields", cached_fields)
    return toy


def test_a_scanned_run_pays_and_writes_what_the_other_does(scanned_toy, monkeypatch):
    ours = outcome(scanned_toy("scanned"))
    monkeypatch.setattr(scan, "SCANNED", ())
    theirs = outcome(scanned_toy("plain"))
    np.testing.assert_allclose(flat64(ours[0].params), flat64(theirs[0].params), atol=1e-6)
    assert ours[2:] == theirs[2:], "epsilon and the head of the ledger"
    for our, their in zip(ours[1], theirs[1], strict=True):
        assert our == pytest.approx(their, rel=1e-5)


def test_a_run_of_many_saves_puts_its_store_on_the_devices_once(scanned_toy, monkeypatch):
    """And compiles once: a delivery for each save would do both again every few steps."""
    made, original = [], scan.make_scanned_delivery
    monkeypatch.setattr(
        scan,
        "make_scanned_delivery",
        lambda *given, **how: made.append(original(*given, **how)) or made[-1],
    )
    folder = scanned_toy("once")
    assert len(folder.metrics.read_text().splitlines()) == 3
    assert len(made) == 1 and made[0].update._cache_size() == 1


def test_a_scanned_run_killed_anywhere_ends_bit_equal(scanned_toy, monkeypatch):
    whole = outcome(scanned_toy("whole"))
    for kill_at in (30, 60, 90):
        came, folder = kill_and_resume(scanned_toy, monkeypatch, f"k{kill_at}", kill_at)
        assert came
        assert_same(outcome(folder), whole)


def test_a_training_set_of_nobody_has_every_prepared_array():
    """Who trains may be nobody; then a step is noise, and its shapes are those of any other."""
    prepare = lambda frozen, raw: {"features": raw["image"].sum(0), "label": raw["label"]}
    method = Method("a", (), None, None, None, prepare=prepare)
    images, labels = np.ones((4, 2, 3), np.float32), np.ones((4, 1), np.int32)
    fields = {"image": images.__getitem__, "label": labels.__getitem__}
    for rows in (np.arange(4), np.arange(0)):
        found = training_fields(method, {}, fields, rows, progress=False)
        made = {name: read(rows) for name, read in found.items()}
        assert {name: (v.shape, v.dtype) for name, v in made.items()} == {
            "features": ((len(rows), 3), np.float32),
            "label": ((len(rows), 1), np.int32),
        }
