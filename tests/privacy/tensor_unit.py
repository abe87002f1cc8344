"""A tensor core in numpy: exact products of rounded operands, added with the rest cut off."""

import jax.numpy as jnp
import numpy as np

__all__ = ["cut", "multiply"]


def cut(x, bits):
    """float64 numbers cut to `bits` bits, toward zero."""
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.trunc(np.ldexp(fraction, bits)), exponent - bits)


def multiply(equation, a, b, form):
    """`products.multiply` as such a unit does it: one term after the other, float32 cut each time.

    The unit ignores the bits of operands that its format has not.
    """
    a, b = (cut(np.asarray(x, np.float64), form.bits + 1) for x in (a, b))
    given, out = equation.split("->")
    left, right = given.split(",")
    over = next(x for x in left if x in right and x not in out)
    total = np.zeros(())
    for i in range(a.shape[left.index(over)]):
        term = np.einsum(
            f"{left.replace(over, '')},{right.replace(over, '')}->{out}",
            np.take(a, i, left.index(over)),
            np.take(b, i, right.index(over)),
        )
        total = cut(total + term, 24)
    return jnp.asarray(total, jnp.float32)
