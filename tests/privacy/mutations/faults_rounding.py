"""Faults of the rounding of a sum: proofs about real numbers, sums in float32.

Casacuberta, Shoemate, Vadhan, Wagaman 2022 found them in several libraries.
"""

import jax
import jax.numpy as jnp

from jaxfair.engine import step
from jaxfair.engine.mesh import AXIS
from jaxfair.privacy.sums import rounding, twofloat
from tests.privacy.mutations.putting import replaced, wrapped


def plain_join(totals):
    highs = [total.high for total in totals]
    return twofloat.from_float(jax.tree.map(lambda *leaves: sum(leaves), *highs))


def fault_62_microbatches_are_added_in_float32():
    """A running sum."""
    return replaced(
        twofloat, "add", lambda total, tree: plain_join([total, twofloat.from_float(tree)])
    )


def fault_63_what_a_chunk_rounded_off_is_forgotten():
    """Gradient accumulation as it is usually written."""
    begins = lambda high, rest: twofloat.from_float(high)
    return replaced(step, "TwoFloat", begins)


def fault_64_devices_are_added_in_float32():
    """A psum."""

    def summed(total, devices):
        high = jax.tree.map(jnp.add, total.high, total.low)
        return [twofloat.from_float(jax.lax.psum(high, AXIS))]

    return replaced(step, "_of_all_devices", summed)


def fault_65_the_clip_has_no_margin_for_rounding():
    """A sensitivity of C for a sum that is rounded."""
    return replaced(rounding, "margin", lambda units, unit=0.0: 0.0)


def fault_66_the_sum_over_the_batch_is_of_lower_precision():
    """A library left at the backend's default: TF32 on a GPU, bfloat16 on a TPU."""

    def einsum(original, equation, *operands, precision=None):
        kept = precision if equation.startswith("kg") else None
        return original(equation, *operands, precision=kept)

    return wrapped(jnp, "einsum", einsum)
