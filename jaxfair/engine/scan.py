"""Several chunks per call, where the examples lie on the device: no Python between steps.

A cached example is a row of an array that is put on every device once. A call is then
handed row numbers and keys for a fixed number of chunks, and `lax.scan` gathers and trains
them one after the other. A call with fewer chunks is filled up with ones that are skipped,
so that it is compiled once. The numbers are those of the one-chunk call
(tests/engine/test_scan.py).
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxfair.engine.features import Cached
from jaxfair.engine.feed import Feed, Piece
from jaxfair.engine.mesh import AXIS, put_replicated
from jaxfair.engine.step import Randomness, Step, TrainState
from jaxfair.methods.base import PyTree

__all__ = ["CHUNKS_PER_CALL", "Calls", "make_calls", "make_scanned_calls"]

CHUNKS_PER_CALL = 16

SCANNED = ("gpu", "tpu")
"""Backends where it pays: on CPU a convolution inside a loop runs on one thread."""

STORE_BYTES = 2**33
"""Larger caches stay with the host. A constant: what is replayed must not depend on how
much memory happens to be free."""


class Calls(NamedTuple):
    """How a block of steps reaches the devices.

    Attributes:
      update: `(state, frozen, *arguments) -> (state, released)`, as `Step.update`.
      frozen: the Method's frozen part, and what else lies on the devices.
      arguments: `(first, count) -> iterator`, the calls of steps `first` on.
    """

    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    frozen: PyTree
    arguments: Callable[[int, int], Iterator[tuple[Any, ...]]]


def make_calls(step: Step, feed: Feed, frozen: PyTree) -> Calls:
    """Returns scanned calls where they pay and all fields are cached, else one call per chunk.

    With several hosts it is one per chunk: each has only its own rows at hand.
    """
    store = _store(feed)
    fits = 0 < sum(values.nbytes for values in store.values()) <= STORE_BYTES
    pays = feed.mesh.devices.flat[0].platform in SCANNED
    if fits and pays and jax.process_count() == 1:
        return make_scanned_calls(step, feed, frozen, CHUNKS_PER_CALL)
    return Calls(step.update, frozen, feed.chunks)


def make_scanned_calls(step: Step, feed: Feed, frozen: PyTree, length: int) -> Calls:
    """Returns calls of `length` chunks each; the fields of `feed` must be `Cached`."""
    store = put_replicated(feed.mesh, _store(feed))

    def train(state: TrainState, given: PyTree, piece: PyTree) -> Any:
        frozen, store = given
        keys = Randomness(piece["example_key"], piece["noise_key"])
        chunk = _gathered(store, piece["place"], piece["unit_id"])
        return step.update(state, frozen, chunk, keys, piece["is_last"])

    def body(given: PyTree, carry: Any, piece: PyTree) -> tuple[Any, None]:
        def real(carry: Any) -> Any:
            state, released = train(carry[0], given, piece)
            newest = lambda new, old: jnp.where(piece["is_last"], new, old)
            return state, jax.tree.map(newest, released, carry[1])

        return jax.lax.cond(piece["is_real"], real, lambda carry: carry, carry), None

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, given: PyTree, block: PyTree) -> Any:
        first = jax.tree.map(lambda x: x[0], block)
        shapes = jax.eval_shape(train, state, given, first)[1]
        released = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.scan(functools.partial(body, given), (state, released), block)[0]

    return Calls(update, (frozen, store), functools.partial(_blocks, feed, length))


def _gathered(store: PyTree, place: jax.Array, unit_id: jax.Array) -> PyTree:
    """The chunk that `loader.gather` makes on the host: zeros where `place` is -1."""
    is_padding = place < 0

    def rows(values: jax.Array) -> jax.Array:
        keep = ~is_padding.reshape(-1, *[1] * (values.ndim - 1))
        return jnp.where(keep, values[place], jnp.zeros((), values.dtype))

    chunk = {name: rows(values) for name, values in store.items()}
    return chunk | {"is_padding": is_padding, "unit_id": unit_id}


def _blocks(feed: Feed, length: int, first: int, count: int) -> Iterator[tuple[PyTree]]:
    """Yields the pieces of these steps `length` at a time, as (length, ...) on the devices."""
    place = next(field.place for field in feed.fields.values() if isinstance(field, Cached))
    spread = NamedSharding(feed.mesh, PartitionSpec(None, AXIS))
    pieces = feed.pieces(first, count)
    while group := [_arrays(place, piece) for piece in itertools.islice(pieces, length)]:
        skipped = jax.tree.map(np.zeros_like, group[0])
        filled = [*group, *[skipped] * (length - len(group))]
        block = jax.tree.map(lambda *xs: np.stack(xs), *filled)
        spread_out = {name: block.pop(name) for name in ("place", "unit_id")}
        yield (jax.device_put(spread_out, spread) | put_replicated(feed.mesh, block),)


def _arrays(place: np.ndarray, piece: Piece) -> dict[str, np.ndarray]:
    """What one chunk needs on the device; all fields have their entries at the same `place`."""
    return {
        "place": np.where(piece.rows < 0, -1, place[piece.rows]).astype(np.int32),
        "unit_id": piece.ids,
        "example_key": piece.randomness.examples,
        "noise_key": piece.randomness.noise,
        "is_last": np.asarray(piece.is_last),
        "is_real": np.asarray(True),
    }


def _store(feed: Feed) -> dict[str, np.ndarray]:
    """The cached values by field; empty if any field is read from elsewhere."""
    fields = feed.fields.items()
    store = {name: field.values for name, field in fields if isinstance(field, Cached)}
    return store if len(store) == len(fields) else {}
