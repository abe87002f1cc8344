"""How chunks reach the devices: one by one, or many at once where the examples lie there.

A cached example is a row of an array that is put on every device once, or, where that is too large
for one, on the devices by shares: each then gives the others their rows. The device is then
handed row numbers and keys of a fixed number of chunks, and `lax.scan` gathers and trains
them one after the other, with no Python between steps. Where there are fewer chunks, the
rest is filled up with ones that are skipped, so that it is compiled once. The numbers are
those of one chunk at a time (tests/engine/test_scan.py).
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxfair.engine.chunk import Chunk, ChunkRows, gather_on_device, zeros
from jaxfair.engine.features import Cached
from jaxfair.engine.feed import Feed
from jaxfair.engine.mesh import AXIS, put_replicated, put_sharded
from jaxfair.engine.step import Step, TrainState
from jaxfair.methods.base import PyTree

__all__ = ["CHUNKS_AT_ONCE", "Delivery", "make_delivery", "make_scanned_delivery"]

CHUNKS_AT_ONCE = 16

SCANNED = ("gpu", "tpu")
"""Backends where it pays: on CPU a convolution inside a loop runs on one thread."""

STORE_BYTES = 2**33
"""What a device holds of a cache at most. A larger one is spread over the devices, and one that is
larger than all of them hold stays with the host; by the declared number of units, since what a step
computes must not depend on how much memory is free, nor on one patient more (protocol P16)."""


class Delivery(NamedTuple):
    """How the chunks of some steps reach the devices.

    Attributes:
      update: `(state, frozen, *arguments) -> (state, released)`, as `Step.update`.
      frozen: the Method's frozen part, and what else lies on the devices.
      arguments: `(first, count) -> iterator`, what `update` is called with for steps `first` on.
    """

    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    frozen: PyTree
    arguments: Callable[[int, int], Iterator[tuple[Any, ...]]]


def make_delivery(step: Step, feed: Feed, frozen: PyTree) -> Delivery:
    """Returns many chunks at once where that pays and all fields are cached, else one by one.

    With several hosts it is one by one: each has only its own rows at hand.
    """
    rows = [values[:1].nbytes for values in _store(feed).values()]
    needed = sum(rows) * feed.plan.public_size
    fits = bool(rows) and needed <= STORE_BYTES * feed.mesh.size
    pays = feed.mesh.devices.flat[0].platform in SCANNED
    if fits and pays and jax.process_count() == 1:
        spread = needed > STORE_BYTES
        return make_scanned_delivery(step, feed, frozen, CHUNKS_AT_ONCE, spread=spread)
    return Delivery(step.update, frozen, feed.chunks)


def make_scanned_delivery(
    step: Step, feed: Feed, frozen: PyTree, length: int, *, spread: bool = False
) -> Delivery:
    """Returns the delivery of `length` chunks at once; the fields of `feed` must be `Cached`.

    Args:
      spread: whether each device holds a share of the cache, and not all of it.
    """
    put = _put_shares if spread else put_replicated
    gather = functools.partial(_gather_shares, feed.mesh) if spread else gather_on_device
    store = put(feed.mesh, _store(feed))

    def train(state: TrainState, given: PyTree, asked: ChunkRows) -> Any:
        frozen, store = given
        chunk = gather(store, asked.rows, asked.ids)
        return step.update(state, frozen, chunk, asked.randomness, asked.is_last)

    def body(given: PyTree, carry: Any, entry: PyTree) -> tuple[Any, None]:
        asked, is_real = entry

        def real(carry: Any) -> Any:
            state, released = train(carry[0], given, asked)
            newest = lambda new, old: jnp.where(asked.is_last, new, old)
            return state, jax.tree.map(newest, released, carry[1])

        return jax.lax.cond(is_real, real, lambda carry: carry, carry), None

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, given: PyTree, stack: PyTree) -> Any:
        first = jax.tree.map(lambda x: x[0], stack[0])
        released = zeros(jax.eval_shape(train, state, given, first)[1])
        return jax.lax.scan(functools.partial(body, given), (state, released), stack)[0]

    return Delivery(update, (frozen, store), functools.partial(_stacked, feed, length))


def _put_shares(mesh: Mesh, store: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Returns the store with as many rows on each device; the last ones are zeros, never read."""

    def filled(values: np.ndarray) -> np.ndarray:
        rest = -len(values) % mesh.size
        return np.concatenate([values, np.zeros_like(values, shape=(rest, *values.shape[1:]))])

    return put_sharded(mesh, {name: filled(values) for name, values in store.items()})


def _gather_shares(
    mesh: Mesh, store: dict[str, jax.Array], place: jax.Array, unit_id: jax.Array
) -> Chunk:
    """Returns `gather_on_device` of a store that lies on the devices by shares.

    A device gives the rows that it holds and zeros for the others; their sum is exact.
    """

    def rows(values: jax.Array, place: jax.Array) -> jax.Array:
        mine = place - jax.lax.axis_index(AXIS) * len(values)
        here = (mine >= 0) & (mine < len(values)) & (place >= 0)
        own = gather_on_device({"": values}, jnp.where(here, mine, -1), unit_id).examples[""]
        of_all = jax.lax.psum_scatter(own.astype(_summed(own)), AXIS, tiled=True)
        return of_all.astype(own.dtype)

    def local(store: dict[str, jax.Array], place: jax.Array) -> dict[str, jax.Array]:
        return {name: rows(values, place) for name, values in store.items()}

    spec = PartitionSpec
    spread = jax.shard_map(
        local, mesh=mesh, in_specs=(spec(AXIS), spec()), out_specs=spec(AXIS), check_vma=False
    )
    return Chunk(spread(store, place), unit_id, place < 0)


def _summed(values: jax.Array) -> Any:
    return jnp.int32 if values.dtype == bool else values.dtype


def _stacked(feed: Feed, length: int, first: int, count: int) -> Iterator[tuple[PyTree]]:
    """Yields the chunks of these steps `length` at a time, as (length, ...) on the devices.

    Their rows are entries of the store, where all fields have theirs at the same place.
    """
    place = next(field.place for field in feed.fields.values() if isinstance(field, Cached))
    spread = NamedSharding(feed.mesh, PartitionSpec(None, AXIS))
    everywhere = NamedSharding(feed.mesh, PartitionSpec())
    chunks = feed.chunk_rows(first, count)
    while some := [_at(place, asked) for asked in itertools.islice(chunks, length)]:
        filled = [*some, *[some[0]] * (length - len(some))]
        is_real = np.arange(length) < len(some)
        stack = jax.tree.map(lambda *xs: np.stack(xs), *filled), is_real
        where = ChunkRows(spread, spread, everywhere, everywhere), everywhere
        yield (jax.device_put(stack, where),)


def _at(place: np.ndarray, asked: ChunkRows) -> ChunkRows:
    entries = np.where(asked.rows < 0, -1, place[asked.rows])
    return asked._replace(rows=entries.astype(np.int32))


def _store(feed: Feed) -> dict[str, np.ndarray]:
    """The cached values by field; empty if any field is read from elsewhere."""
    fields = feed.fields.items()
    store = {name: field.values for name, field in fields if isinstance(field, Cached)}
    return store if len(store) == len(fields) else {}
