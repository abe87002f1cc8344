"""A training on the bench: its parts can be exchanged, and guests put among the patients.

What is examined is the step, the feed and the plan that `train` uses, as they are. Two things
are added from outside: an optimiser that keeps the noisy mean it was given, and a Method that
knows guests, rows whose gradient is a chosen number on one chosen entry of the parameters.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair.data.loader import Fields, gather
from jaxfair.engine.feed import Feed, Population
from jaxfair.engine.mesh import put_batch, put_replicated
from jaxfair.engine.step import Randomness, Step, TrainState, make_step
from jaxfair.methods.base import Example, Method, PyTree
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.secret import Secret
from jaxfair.privacy.sums import clipping

__all__ = [
    "SPOILT",
    "Bench",
    "Guest",
    "Released",
    "assemble",
    "chunk_of_rows",
    "feed_of",
    "largest_leaf",
    "noisy_sum",
    "play",
    "reference",
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
      plan: the plan that is carried out; equal to the claim, unless a fault is planted.
      method, params, frozen, optimizer, mesh, microbatch: as `train` has them.
      spec: shape and dtype of a raw example.
      fields: readers of the prepared examples, by row.
      units: rows of each unit that the claim protects.
      population: the units that the feed draws.
      make_step, make_feed: the factories.
    """

    claim: PrivacyPlan
    plan: PrivacyPlan
    method: Method
    params: PyTree
    frozen: PyTree
    spec: dict[str, Any]
    fields: Fields
    units: list[np.ndarray]
    population: Population
    optimizer: optax.GradientTransformation
    mesh: Any
    microbatch: int
    make_step: Callable[..., Step] = make_step
    make_feed: Callable[..., Feed] = Feed

    @property
    def num_rows(self) -> int:
        return 1 + max(int(rows.max()) for rows in self.units)

    @property
    def chunk_size(self) -> int:
        return self.microbatch * self.mesh.size

    def begin(self, step: Step) -> TrainState:
        """Returns the state before the first step; an update takes it over (donation)."""
        params = jax.tree.map(np.array, self.params)
        return put_replicated(self.mesh, step.init(put_replicated(self.mesh, params)))


class Released(NamedTuple):
    """One step: the parameters before it, its chunks and keys, and the noisy sum after it."""

    params: PyTree
    chunks: list[PyTree]
    randomness: Randomness
    noisy_sum: PyTree


def assemble(bench: Bench) -> Step:
    """Returns the step of a bench; compiled at its first update, then for any draw."""
    return bench.make_step(
        with_guests(bench.method),
        bench.plan,
        _recording(bench.optimizer),
        bench.mesh,
        microbatch=bench.microbatch,
    )


def feed_of(bench: Bench, secret: Secret, guests: Sequence[Guest] = ()) -> Feed:
    """Returns the feed of a bench, its population extended by one unit for each guest."""
    first, known = bench.num_rows, bench.population
    rows = [*known.rows, *(np.array([first + i]) for i in range(len(guests)))]
    ids = np.concatenate([known.ids, np.arange(len(guests), dtype=np.uint32) + 2**31])
    return bench.make_feed(
        secret=secret,
        population=Population(rows, ids),
        fields=_fields(bench, guests),
        mesh=bench.mesh,
        sampling_prob=bench.plan.sampling_prob,
        num_leaves=len(jax.tree.leaves(bench.params)),
        chunk_size=bench.chunk_size,
    )


def play(bench: Bench, step: Step, feed: Feed, count: int) -> Iterator[Released]:
    """Trains `count` steps from the beginning and yields what each of them released."""
    state = bench.begin(step)
    for number in range(count):
        params = jax.tree.map(np.array, state.params)
        chunks = []
        for chunk, randomness, is_last in feed.chunks(number, 1):
            chunks.append(chunk)
            state, _ = step.update(state, bench.frozen, chunk, randomness, is_last)
        yield Released(params, chunks, randomness, noisy_sum(bench, state))


def noisy_sum(bench: Bench, state: TrainState) -> PyTree:
    """Returns the noisy sum that the optimiser was given last, as float32 arrays."""
    mean = state.opt_state[1]
    return jax.tree.map(lambda a: np.array(a) * np.float32(bench.claim.expected_batch_size), mean)


def chunk_of_rows(bench: Bench, feed: Feed, rows: Sequence[int]) -> PyTree:
    """Returns one chunk that holds these rows, -1 standing for padding."""
    padded = np.full(bench.chunk_size, -1, np.int64)
    padded[: len(rows)] = rows
    return put_batch(bench.mesh, gather(feed.fields, padded, padded.astype(np.uint32)))


def reference(bench: Bench) -> Callable[[Released], PyTree]:
    """Returns a function from a released step to its clipped sum, in the plain way.

    On one device, by `clipping.clipped_sum` and the clip of the claim, whatever the step does.
    """
    method = with_guests(bench.method)

    def chunk_sum(params: PyTree, frozen: PyTree, chunk: PyTree, words: Any) -> PyTree:
        step_key = jax.random.wrap_key_data(words, impl="threefry2x32")
        keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, chunk["unit_id"])
        loss_fn = lambda p, example, key: method.loss(p, frozen, example, key)[0]
        bound = bench.claim.l2_clip_norm
        real = ~chunk["is_padding"]
        return clipping.clipped_sum(loss_fn, params, chunk, keys, real, l2_clip_norm=bound)

    compiled = jax.jit(chunk_sum)
    frozen = jax.device_get(bench.frozen)

    def clipped_sum(released: Released) -> PyTree:
        words = released.randomness.examples
        parts = [
            compiled(released.params, frozen, jax.device_get(chunk), words)
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
