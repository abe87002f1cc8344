"""The reversal of a gradient, by which one network learns to tell what another learns to hide."""

import jax

__all__ = ["reverse"]


def reverse(x: jax.Array, strength: jax.Array | float) -> jax.Array:
    """Returns `x` itself, whose gradient is -`strength` times the gradient of what reads it.

    What comes after learns as if this were not here; what comes before is led the other way. It is
    arithmetic and a stopped gradient, so that fast clipping reads it as any equations. Values that
    are not finite come out as NaN.

    Args:
      x: of any shape.
      strength: a number, public (a function of the step): 1 reverses, 0 stops the gradient.

    Source: Ganin & Lempitsky 2015 (arXiv 1409.7495).
    """
    stopped = jax.lax.stop_gradient(x)
    return stopped - strength * (x - stopped)
