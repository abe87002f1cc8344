"""A training on the bench: its parts can be exchanged, and guests put among the patients.

What is examined is the step, the feed and the plan that `train` uses, as they are. Two things
are added from outside: an optimiser that keeps the noisy mean it was given, and a Method that
knows guests, rows whose gradient is a chosen number on one chosen entry of the parameters.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair.data.loader import Fields
from jaxfair.engine.assembly import Assembly, join
from jaxfair.engine.chunk import Chunk, Randomness, unit_keys
from jaxfair.engine.feed import Feed
from jaxfair.engine.population import Population
from jaxfair.engine.step import Step, TrainState, scheduled
from jaxfair.methods.base import Example, Method, PyTree
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.secret import Secret
from jaxfair.privacy.sums import clipping

__all__ = [
    "SPOILT",
    "Bench",
    "Guest",
    "Released",
    "feed_of",
    "largest_leaf",
    "noisy_sum",
    "play",
    "reference",
    "under_audit",
    "with_guests",
]

SPOILT = -1
"""Content of a guest whose every number is NaN."""


class Guest(NamedTuple):
    """A row that is nobody's image.

    Attributes:
      entry: of the largest leaf of the parameters, on which its gradient stands; -1 for none,
        and then it is an ordinary example.
      pull: its gradient there, before clipping.
      content: the row whose image it carries, or SPOILT.
    """

    entry: int
    pull: float
    content: int


class Bench(NamedTuple):
    """The parts of one training, and what it claims.

    Attributes:
      claim: the plan that the statement speaks of.
      assembly: the training as it is carried out; its plan is the claim, unless a fault is
        planted.
      fields: readers of the prepared examples, by row.
      units: rows of each unit that the claim protects.
      population: the units that the feed draws.
      feed_kind: Feed, or a broken one of the same form.
      broken: Step -> Step; does nothing, unless a fault is planted.
    """

    claim: PrivacyPlan
    assembly: Assembly
    fields: Fields
    units: list[np.ndarray]
    population: Population
    feed_kind: type[Feed] = Feed
    broken: Callable[[Step], Step] = lambda step: step

    @property
    def method(self) -> Method:
        return self.assembly.method

    @property
    def params(self) -> PyTree:
        return self.assembly.params

    @property
    def num_rows(self) -> int:
        return 1 + max(int(rows.max()) for rows in self.units)


class Released(NamedTuple):
    """One step: its number, the parameters before it, its chunks and keys, the noisy sum after."""

    step: int
    params: PyTree
    chunks: list[Chunk]
    randomness: Randomness
    noisy_sum: PyTree


def under_audit(bench: Bench) -> Assembly:
    """Returns the training of a bench with guests, and with every noisy mean kept."""
    made = bench.assembly
    watched = join(
        made.plan,
        with_guests(made.method),
        _recording(made.optimizer),
        spec=made.spec,
        variables=(made.params, made.frozen),
        microbatch=made.microbatch,
        mesh=made.mesh,
    )
    return dataclasses.replace(watched, step=bench.broken(watched.step))


def feed_of(bench: Bench, secret: Secret, guests: Sequence[Guest] = ()) -> Feed:
    """Returns the feed of a bench, its population extended by one unit for each guest."""
    first, known = bench.num_rows, bench.population
    extended = known._replace(
        rows=[*known.rows, *(np.array([first + i]) for i in range(len(guests)))],
        ids=np.concatenate([known.ids, np.arange(len(guests), dtype=np.uint32) + 2**31]),
        groups=np.concatenate([known.groups, np.full(len(guests), -1)]),
    )
    return bench.feed_kind(*bench.assembly.feed(secret, extended, _fields(bench, guests)))


def play(bench: Bench, tried: Assembly, feed: Feed, count: int) -> Iterator[Released]:
    """Trains `count` steps from the beginning and yields what each of them released."""
    state = tried.begin()
    for number in range(count):
        params = jax.tree.map(np.array, state.params)
        chunks = []
        for chunk, randomness, is_last in feed.chunks(number, 1):
            chunks.append(chunk)
            state, _ = tried.update(state, chunk, randomness, is_last=is_last)
        yield Released(number, params, chunks, randomness, noisy_sum(bench, state))


def noisy_sum(bench: Bench, state: TrainState) -> PyTree:
    """Returns the noisy sum that the optimiser was given last, as float32 arrays."""
    mean = state.opt_state[1]
    return jax.tree.map(lambda a: np.array(a) * np.float32(bench.claim.expected_batch_size), mean)


def reference(bench: Bench) -> Callable[[Released], PyTree]:
    """Returns a function from a released step to its clipped sum, in the plain way.

    On one device, by `clipping.clipped_sum` and the clip of the claim, its margin for rounding
    included, whatever the step does.
    """
    method, claim = with_guests(bench.method), bench.claim
    clip: dict[str, Any] = {"l2_clip_norm": claim.l2_clip_norm, "units": claim.max_draw}

    def chunk_sum(params: PyTree, frozen: PyTree, chunk: Chunk, words: Any) -> PyTree:
        keys, real = unit_keys(words, chunk.unit_id), ~chunk.is_padding
        loss_fn = lambda p, example, key: method.loss(p, frozen, example, key)[0]
        return clipping.clipped_sum(loss_fn, params, chunk.examples, keys, real, **clip)

    compiled = jax.jit(chunk_sum)
    frozen = jax.device_get(bench.assembly.frozen)

    def clipped_sum(released: Released) -> PyTree:
        words = released.randomness.examples
        now = scheduled(method, bench.assembly.plan, frozen, released.step)
        parts = [
            compiled(released.params, now, jax.device_get(chunk), words)
            for chunk in released.chunks
        ]
        return jax.tree.map(lambda *leaves: np.sum(np.stack(leaves), axis=0), *parts)

    return clipped_sum


def largest_leaf(tree: PyTree) -> int:
    """Returns the place of the leaf with the most entries, where guests' gradients stand."""
    return int(np.argmax([np.size(leaf) for leaf in jax.tree.leaves(tree)]))


def with_guests(method: Method) -> Method:
    """Returns `method` with guests: where an example is one, its gradient is what it was given."""

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        own = {k: v for k, v in example.items() if k not in ("guest_entry", "guest_pull")}
        plain, aux = method.loss(params, frozen, own, key)
        leaf = jax.tree.leaves(params)[largest_leaf(params)]
        pulled = example["guest_pull"] * leaf.ravel()[jnp.maximum(example["guest_entry"], 0)]
        return jnp.where(example["guest_entry"] >= 0, pulled, plain), aux

    return method._replace(loss=loss)


def _recording(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns `inner` with the last gradients it was given beside its state."""

    def init(params: PyTree) -> Any:
        return inner.init(params), jax.tree.map(jnp.zeros_like, params)

    def update(grads: PyTree, state: Any, params: PyTree = None) -> Any:
        updates, inner_state = inner.update(grads, state[0], params)
        return updates, (inner_state, grads)

    return optax.GradientTransformation(init, update)


def _fields(bench: Bench, guests: Sequence[Guest]) -> Fields:
    first = bench.num_rows
    entries = np.array([guest.entry for guest in guests], np.int32)
    pulls = np.array([guest.pull for guest in guests], np.float32)
    contents = np.array([guest.content for guest in guests], np.int64)

    def image(read: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        def rows_of(rows: np.ndarray) -> np.ndarray:
            source = np.where(rows < first, rows, 0)
            source[rows >= first] = contents[rows[rows >= first] - first]
            values = np.array(read(np.maximum(source, 0)))
            if np.any(source == SPOILT):
                values[source == SPOILT] = np.nan
            return values

        return rows_of

    def of_guest(values: np.ndarray, ordinary: float) -> Callable[[np.ndarray], np.ndarray]:
        def rows_of(rows: np.ndarray) -> np.ndarray:
            found = np.full(len(rows), ordinary, values.dtype)
            found[rows >= first] = values[rows[rows >= first] - first]
            return found

        return rows_of

    fields = {name: image(read) for name, read in bench.fields.items()}
    return fields | {"guest_entry": of_guest(entries, -1), "guest_pull": of_guest(pulls, 0.0)}
