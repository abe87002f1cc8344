"""Faults of the clipped sum on units that round differently."""

import jax.numpy as jnp

from jaxfair.privacy.sums import batched, clipping, formats
from tests.privacy.mutations.putting import replaced, wrapped


def fault_240_one_operand_is_not_rounded():
    """The unit would round it itself, in its own way each time."""
    return replaced(
        batched, "_rounded_pair", lambda pair, form: (formats.rounded(pair[0], form), pair[1])
    )


def fault_241_the_margin_is_that_of_float32():
    """TF32 switched on below a clip whose margin nobody widened."""

    def bound(original, l2_clip_norm, margin=None):
        return original(l2_clip_norm, None)

    return wrapped(clipping, "strict_bound", bound)


def fault_242_a_leaf_is_left_out_of_the_batched_norm():
    """A kind of leaf that nobody wrote a batched norm for."""

    def norms(original, made, number):
        norm, held = original(made, number)
        last = number == len(made.plan.leaves) - 1
        return (jnp.zeros_like(norm) if last else norm), held

    return wrapped(batched, "leaf_norms", norms)
