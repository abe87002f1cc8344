"""phi of FCRO: an image, its embedding of length 1, linear outputs; and what stages share.

A stage hands on what it froze by name: "encoder" is what the encoder of the stage keeps, which a
`prepare` reads, and "key" the seed of the run.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfair.errors import InputError
from jaxfair.methods.base import Example, Method, PyTree
from jaxfair.methods.encoder import Encoder, EncoderConfig, make_encoder
from jaxfair.models.embedding import EmbeddingHead

__all__ = [
    "Augment",
    "Embedder",
    "augmented",
    "compiled_init",
    "fresh_key",
    "make_embedder",
    "no_init",
    "no_score",
    "one_row",
    "paired",
    "prepared",
]

Augment = Callable[[Example, jax.Array], Example]


class Embedder(NamedTuple):
    """phi: an encoder, a linear layer to an embedding of length 1, linear outputs.

    Attributes:
      init: `(key, spec) -> (params, frozen)`: params under "encoder" and "head", what the encoder
        keeps frozen.
      embed: `(params, frozen, batch) -> (b, dims)`.
      classify: `(params, embedding) -> (b, outputs)`.
      prepare: `(frozen, raw example) -> example`, or None.
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    embed: Callable[..., jax.Array]
    classify: Callable[..., jax.Array]
    prepare: Callable[..., Example] | None


def make_embedder(config: EncoderConfig, dims: int, outputs: int) -> Embedder:
    """Returns phi with an embedding of `dims` numbers and so many outputs."""
    encoder = make_encoder(config)
    head = EmbeddingHead(outputs, encoder.width, dims)

    def init(key: jax.Array, spec: dict[str, Any]) -> tuple[PyTree, PyTree]:
        of_encoder, of_head = jax.random.split(key)
        params, frozen = encoder.init(of_encoder, spec)
        begun = compiled_init(head)(of_head, jnp.zeros((1, encoder.width)))
        return {"encoder": params, "head": begun["params"]}, frozen

    def embed(params: PyTree, frozen: PyTree, batch: Example) -> jax.Array:
        features = encoder.embed(params["encoder"], frozen, batch)
        found: Any = head.apply({"params": params["head"]}, features, method="embed")
        return found

    def classify(params: PyTree, embedding: jax.Array) -> jax.Array:
        found: Any = head.apply({"params": params["head"]}, embedding, method="classify")
        return found

    return Embedder(init, embed, classify, encoder.prepare)


@functools.lru_cache(maxsize=8)
def compiled_init(module: nn.Module, method: str = "__call__") -> Callable[..., Any]:
    """Returns the module's `init`, compiled once for all that begin with it."""
    return jax.jit(functools.partial(module.init, method=method))


def paired(outputs: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Returns logits (sum of sizes,) of outputs (input_count(sizes),).

    An attribute of two values has one output, the log odds of its second value, as published.
    """
    logits, place = [], 0
    for size in sizes:
        count = 1 if size == 2 else size
        part = outputs[place : place + count]
        logits += [jnp.zeros_like(part), part] if size == 2 else [part]
        place += count
    return jnp.concatenate(logits)


def one_row(example: Example) -> Example:
    """Returns a batch of one example."""
    return jax.tree.map(lambda a: a[None], example)


def fresh_key(frozen: PyTree, key: jax.Array) -> jax.Array:
    """Returns a key for a stage's first weights, which depends on the seed of the run.

    The key that `begin` is given is the same in every run.
    """
    seed = jax.random.wrap_key_data(frozen["key"])
    return jax.random.fold_in(seed, jax.random.bits(key))


def prepared(embedder: Embedder | Encoder) -> Callable[..., Example] | None:
    """Returns the `prepare` of a Method whose `frozen` holds the encoder's under "encoder"."""
    prepare = embedder.prepare
    return None if prepare is None else lambda frozen, raw: prepare(frozen["encoder"], raw)


def augmented(method: Method, augment: Augment | None) -> Method:
    """Returns `method` whose losses see each example through `augment`, drawn anew by its key."""
    if augment is None:
        return method
    change = lambda example, key: augment(example, jax.random.fold_in(key, 1))
    whole = method.batch_loss

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        return method.loss(params, frozen, change(example, key), key)

    def batch_loss(params: PyTree, frozen: PyTree, batch: Example, mask: Any, keys: Any) -> Any:
        assert whole is not None
        return whole(params, frozen, jax.vmap(change)(batch, keys), mask, keys)

    coupled = None if whole is None else batch_loss
    return method._replace(loss=loss, batch_loss=coupled, prepare=None)


def no_init(key: Any, spec: Any) -> tuple[PyTree, PyTree]:
    """The `init` of a later stage: refused."""
    raise InputError("A later stage begins with what the one before ended with, by its `begin`.")


def no_score(params: PyTree, frozen: PyTree, batch: Example) -> dict[str, jax.Array]:
    """The `score` of a stage that predicts nothing: refused."""
    raise InputError(
        "This training has not come to its last stage, so nothing predicts yet: start the same "
        "command on the same --workdir to go on."
    )
