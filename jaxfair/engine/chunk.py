"""What a chunk is: the rows that one call of the step gets, and the keys that go with them.

This is the only file that writes out what a chunk holds. A draw of any size becomes chunks of
one shape; whoever makes one up (a search for speed, an estimate of memory) asks here.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct as Struct

from jaxfair.data.loader import Fields, read_rows
from jaxfair.privacy import noise, sampling

__all__ = [
    "Chunk",
    "ChunkRows",
    "Randomness",
    "abstract_chunk",
    "abstract_randomness",
    "gather",
    "gather_on_device",
    "made_up_chunk",
    "rows_of_draw",
    "unit_keys",
    "zeros",
]

PyTree = Any


class Chunk(NamedTuple):
    """The examples of one call of the step, one row for each drawn unit, and padding.

    Attributes:
      examples: arrays (rows, ...) by name, as the loss sees them without the leading axis;
        zero in padding rows.
      unit_id: (rows,) uint32, a hash of the unit's id, which keys what is random within its
        example; 0 for padding.
      is_padding: (rows,) bool.
    """

    examples: dict[str, Any]
    unit_id: Any
    is_padding: Any


class Randomness(NamedTuple):
    """Key material of one step, derived from the run's secret.

    Attributes:
      examples: uint32 (2,), keys what is random within an example (dropout).
      noise: uint32 (num_leaves, draws, 2), see `noise.noise_key_data`.
      answers: uint32 (queries, draws, 2), see `noise.answer_key_data`; None without side queries.
    """

    examples: Any
    noise: Any
    answers: Any = None


class ChunkRows(NamedTuple):
    """Who is in a chunk, before anything is read.

    Attributes:
      rows: (chunk_size,) int64 store rows, -1 for padding.
      ids: (chunk_size,) uint32, the unit of each row; 0 for padding.
      randomness: of the step that the chunk belongs to.
      is_last: whether the draw of that step ends with this chunk.
    """

    rows: Any
    ids: Any
    randomness: Any
    is_last: Any


def rows_of_draw(
    rows: np.ndarray, ids: np.ndarray, randomness: Randomness, chunk_size: int, least: int = 1
) -> Iterator[ChunkRows]:
    """Yields the chunks of one draw, filled up with padding.

    Args:
      rows: (n,) int64 store rows of the drawn units.
      ids: (n,) uint32 ids of the same units.
      chunk_size: rows of every chunk.
      least: how many chunks there are, unless the draw needs more.
    """
    places = sampling.chunks_from_draw(np.arange(len(rows)), chunk_size, least)
    for number, place in enumerate(places, start=1):
        real = place != sampling.PADDING
        its_rows, its_ids = np.full(len(place), -1, np.int64), np.zeros(len(place), np.uint32)
        its_rows[real], its_ids[real] = rows[place[real]], ids[place[real]]
        yield ChunkRows(its_rows, its_ids, randomness, number == len(places))


def gather(fields: Fields, rows: np.ndarray, ids: np.ndarray) -> Chunk:
    """Reads the examples of a chunk.

    Args:
      fields: readers by name.
      rows: (n,) int, the row of each example; -1 stands for padding.
      ids: (n,) uint32, the unit of each example; anything where `rows` is -1.
    """
    is_padding = rows < 0
    return Chunk(read_rows(fields, rows), np.where(is_padding, 0, ids).astype("u4"), is_padding)


def gather_on_device(store: Mapping[str, Any], place: jax.Array, unit_id: jax.Array) -> Chunk:
    """Returns the chunk that `gather` makes on the host, from arrays on the device.

    Args:
      store: (n, ...) values by name.
      place: (rows,) int32, the entry of each row; -1 for padding.
      unit_id: (rows,) uint32.
    """
    is_padding = place < 0

    def rows(values: jax.Array) -> jax.Array:
        keep = ~is_padding.reshape(-1, *[1] * (values.ndim - 1))
        return jnp.where(keep, values[place], jnp.zeros((), values.dtype))

    return Chunk({name: rows(values) for name, values in store.items()}, unit_id, is_padding)


def unit_keys(words: jax.Array, unit_id: jax.Array) -> jax.Array:
    """Returns the (rows,) typed keys of the examples of a chunk.

    They follow the unit, and not the place in the draw at which it stands.
    """
    step_key = jax.random.wrap_key_data(words, impl="threefry2x32")
    return jax.vmap(jax.random.fold_in, (None, 0))(step_key, unit_id)


def abstract_chunk(example: Mapping[str, Struct], rows: int) -> Chunk:
    """Returns shapes and dtypes of a chunk of `rows` examples with this spec."""
    examples = {name: Struct((rows, *s.shape), s.dtype) for name, s in example.items()}
    return Chunk(examples, Struct((rows,), jnp.uint32), Struct((rows,), bool))


def abstract_randomness(num_leaves: int, queries: int = 0) -> Randomness:
    """Returns shapes and dtypes of a step's key material.

    Args:
      num_leaves: of the parameters.
      queries: side queries of the plan's clip rule.
    """
    words = lambda count: Struct((count, noise.DRAWS_PER_NORMAL, 2), jnp.uint32)
    answers = words(queries) if queries else None
    return Randomness(Struct((2,), jnp.uint32), words(num_leaves), answers)


def made_up_chunk(examples: Mapping[str, Any]) -> Chunk:
    """Returns a full chunk of these examples, (rows, ...) by name, each a unit of its own."""
    rows = len(next(iter(examples.values())))
    return Chunk(dict(examples), jnp.arange(rows, dtype=jnp.uint32), jnp.zeros(rows, bool))


def zeros(abstract: PyTree) -> PyTree:
    """Returns zeros of these shapes: a chunk of made-up examples (none is padding), or keys."""
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), abstract)
