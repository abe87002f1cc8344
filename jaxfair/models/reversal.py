"""The reversal of a gradient, by which one network learns to tell what another learns to hide."""

import jax
import jax.numpy as jnp

__all__ = ["reverse", "rising"]

SPEED = 10.0
"""How fast the reversal rises: it has half of its strength after a ninth of the steps."""


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


def rising(progress: jax.Array | float) -> jax.Array:
    """Returns 2 / (1 + exp(-10 p)) - 1, the share of its strength that a reversal has at p.

    Args:
      progress: share p of the steps that are done, from 0, where there is none, to 1: all but it.

    Source: Ganin & Lempitsky 2015, section 4.1 (lambda_p).
    """
    return 2 / (1 + jnp.exp(-SPEED * progress)) - 1
