"""Sharp edges of what devices tell each other: a row counts once, as itself, wherever it lies."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.engine import scan
from jaxfair.engine.mesh import make_mesh
from tests.privacy.toy import Bench, examples_of, looped

DEVICES = 8


def assert_slow_truth(scales, **shape):
    """Of unequal rows, so that one that counts twice, or for another, changes the sum."""
    bench, examples = Bench(**shape), examples_of(scales)
    truth = looped(bench, examples)
    np.testing.assert_allclose(
        bench.noisy_sum(examples), truth, atol=1e-5 * np.abs(truth).max(), rtol=0
    )


def test_edge_390_the_rows_of_each_device_count_once():
    assert_slow_truth(np.geomspace(0.01, 3, 8), devices=2, microbatch=4, chunk=8)
    assert_slow_truth(np.geomspace(0.01, 3, 8), devices=DEVICES, microbatch=1, chunk=8)


def test_edge_391_what_earlier_chunks_came_to_counts_once():
    assert_slow_truth(np.geomspace(0.01, 3, 11), devices=2, microbatch=1, chunk=4)


@functools.cache
def shares():
    """(a store of 21 rows and what each holds, what of it 8 devices with a share each gather)."""
    rng, mesh = np.random.default_rng(0), make_mesh(DEVICES)
    store = {"x": rng.standard_normal((21, 3)).astype(np.float32), "asked": np.arange(21) % 3 > 0}
    place = np.array([20, 5, -1, 0, 8, 4, -1, 5], np.int32)
    return mesh, store, place


def gathered():
    """The rows asked for, by the devices, and as numpy finds them."""
    mesh, store, place = shares()
    given = scan._put_shares(mesh, store)
    call = jax.jit(lambda *given: scan._gather_shares(mesh, *given))
    found = call(given, jnp.asarray(place), jnp.arange(len(place), dtype=jnp.uint32))
    real = place >= 0
    truth = {
        n: np.where(real[:, None] if a.ndim > 1 else real, a[place], 0) for n, a in store.items()
    }
    return {name: np.asarray(a) for name, a in found.examples.items()}, truth


def test_edge_392_no_device_gives_a_row_that_it_does_not_hold():
    found, truth = gathered()
    for name, rows in truth.items():
        np.testing.assert_array_equal(found[name], rows)


def test_edge_393_a_row_comes_from_whichever_device_holds_it():
    found, truth = gathered()
    assert np.abs(found["x"]).sum(axis=1).astype(bool).sum() == 6
    np.testing.assert_array_equal(found["x"], truth["x"])
