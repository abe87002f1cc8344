"""Gaussian noise: once per step, on the global sum, from keys that nobody else uses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.privacy.secret import Secret

__all__ = ["DRAWS_PER_NORMAL", "answer_key_data", "gaussian_like", "noise_key_data"]

PyTree = Any

DRAWS_PER_NORMAL = 2
"""Independently keyed float32 normals added up for each noise value.

One threefry key holds 64 bits and a float32 normal takes few distinct values (10^7 draws
show 5.8 million, none beyond 5.42); the scaled sum of two has 128 key bits and a finer grid.
"""


def noise_key_data(secret: Secret, step: int, num_leaves: int) -> np.ndarray:
    """Returns threefry key words for one step, uint32 of shape (num_leaves, DRAWS_PER_NORMAL, 2).

    Guarantees: distinct for every leaf, draw and step, and a function of the secret and the
    step alone, so that a resumed run replays the same noise.

    Args:
      num_leaves: of the sum that the draw of this step releases: two calls for one step give the
        same keys, so one call serves all. Answers to side queries have `answer_key_data`.
    """
    return _words(secret, "noise", step, num_leaves)


def answer_key_data(secret: Secret, step: int, queries: int) -> np.ndarray:
    """Returns key words for the answers of one step, uint32 (queries, DRAWS_PER_NORMAL, 2).

    Guarantees: as of `noise_key_data`, under a purpose of their own, so that no answer has the
    noise of a leaf or of another answer.
    """
    return _words(secret, "noise of an answer", step, queries)


def _words(secret: Secret, purpose: str, step: int, count: int) -> np.ndarray:
    shape = (DRAWS_PER_NORMAL, 2)
    words = [
        np.frombuffer(secret.derive(purpose, step, place, length=16), np.uint32).reshape(shape)
        for place in range(count)
    ]
    return np.stack(words)


def gaussian_like(tree: PyTree, key_data: jax.Array, stddev: float) -> PyTree:
    """Returns independent float32 normals of standard deviation `stddev`, shaped like `tree`.

    Guarantees: mean 0 and the given deviation in every entry; leaves and draws use their
    own keys; the values do not depend on the mesh on which they are computed.

    Args:
      tree: pytree whose leaves give the shapes.
      key_data: uint32 (num_leaves, DRAWS_PER_NORMAL, 2) of `noise_key_data`.
      stddev: noise multiplier times sensitivity, in the units of the clipped sum; of a plan it
        is `plan.noise_stddev()`.

    Raises ValueError where the keys are not one pair for each leaf.

    >>> from jaxfair.privacy import gaussian_like, insecure_secret, noise_key_data
    >>> secret = insecure_secret(0)  # reproducible, hence not private: `create_secret(folder)` is
    >>> total = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}
    >>> words = noise_key_data(secret, step=7, num_leaves=2)
    >>> noise = gaussian_like(total, words, stddev=4.0)
    >>> noisy_sum = jax.tree.map(jnp.add, total, noise)
    >>> jax.tree.map(jnp.shape, noisy_sum)
    {'b': (3,), 'w': (2, 3)}
    """
    leaves, structure = jax.tree.flatten(tree)
    if key_data.shape != (len(leaves), DRAWS_PER_NORMAL, 2):
        raise ValueError(f"{len(leaves)} leaves need their own keys, got {key_data.shape}.")
    noise = [_normal(words, leaf.shape, stddev) for words, leaf in zip(key_data, leaves)]
    return jax.tree.unflatten(structure, noise)


def _normal(words: jax.Array, shape: tuple[int, ...], stddev: float) -> jax.Array:
    keys = [jax.random.wrap_key_data(pair, impl="threefry2x32") for pair in words]
    total = sum(jax.random.normal(key, shape, jnp.float32) for key in keys)
    return total * jnp.float32(stddev / DRAWS_PER_NORMAL**0.5)
