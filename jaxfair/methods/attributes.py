"""Sensitive attributes of one example: which there are, their losses, and as inputs.

An example's `group` (k,) int32 holds the code of each attribute in its public list of values, -1
where it is not known (`jaxfair/data/examples.py`). What is not known is masked: it has no loss,
and as an input it is zero.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError

__all__ = [
    "attribute_inputs",
    "attribute_loss",
    "attribute_onehot",
    "check_attributes",
    "input_count",
]


def check_attributes(attributes: Mapping[str, int], method: str) -> dict[str, int]:
    """Returns name -> number of values as a plain dict.

    Args:
      attributes: in the order in which an example's `group` holds them.
      method: name of who needs them, for the sentence.

    Raises InputError where there are none, and for one of fewer than two values.
    """
    if not attributes:
        raise InputError(
            f"The method {method!r} needs at least one sensitive attribute: name them in "
            "data.groups, as ('sex', 'age_group')."
        )
    for name, size in attributes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 2:
            raise InputError(
                f"The attribute {name!r} of the method {method!r} has {size!r} values; it must be "
                "a number of at least 2: leave it out of data.groups, for one value tells nobody "
                "apart."
            )
    return dict(attributes)


def attribute_loss(logits: jax.Array, group: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Returns the float32 cross-entropy of one example, a mean over the attributes it has known.

    Args:
      logits: (sum of sizes,), one after the other.
      group: (k,) int32; a code that is -1 (or no place of the list) is not known. Where none is,
        the loss is zero and so is its gradient.
      sizes: the k numbers of values.
    """
    parts = _parts(logits.astype(jnp.float32), sizes)
    hot = _parts(attribute_onehot(group, sizes), sizes)
    losses = [-jnp.sum(h * jax.nn.log_softmax(x)) for h, x in zip(hot, parts, strict=True)]
    known = jnp.sum(attribute_onehot(group, sizes))
    return sum(losses, jnp.zeros(())) / jnp.maximum(known, 1)


def attribute_onehot(group: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Returns (sum of sizes,) float32: each attribute one-hot, zeros where it is not known."""
    return jnp.concatenate([jax.nn.one_hot(group[i], size) for i, size in enumerate(sizes)])


def attribute_inputs(group: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Returns (input_count(sizes),) float32, what a network is told of an example's attributes.

    One of two values is one number, -1 or +1; one of more is one-hot; what is not known is 0.
    """
    hot = _parts(attribute_onehot(group, sizes), sizes)
    return jnp.concatenate([h[1:] - h[:1] if len(h) == 2 else h for h in hot])


def input_count(sizes: Sequence[int]) -> int:
    """Returns how many numbers `attribute_inputs` gives.

    >>> input_count((2, 6))
    7
    """
    return sum(1 if size == 2 else size for size in sizes)


def _parts(values: jax.Array, sizes: Sequence[int]) -> list[jax.Array]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [values[end - size : end] for end, size in zip(ends, sizes, strict=True)]
