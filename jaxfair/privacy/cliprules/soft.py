"""Smooth clipping at a threshold that follows the norms.

Source: Soleymani, Dadsetan, Rudzicz 2025, "SoftAdaClip: A Smooth Clipping Strategy for Fair and
Private Model Training" (arXiv 2510.01447); here the hyperbolic tangent is of the whole norm, for
which the bound is proved.
"""

import jax
import jax.numpy as jnp

from jaxfair.privacy.cliprules.base import ClipRule
from jaxfair.privacy.cliprules.quantile import RANGE, adaptive_rule

__all__ = ["soft_clip"]

Array = jax.Array


def soft_clip(*, quantile: float, rate: float, first: float = 1.0, query_share: float) -> ClipRule:
    """Returns the rule that scales a gradient of norm n to C tanh(n / (z C)), z as `quantile_clip`.

    Gradients above the threshold keep their order instead of all having one norm.

    Guarantee: tanh is below 1, so the norm is at most C whatever z is; z, its query and its cost
    are those of `quantile_clip`. The noisy mean is multiplied by z after its noise.

    Raises InputError as `quantile_clip`.
    """
    return adaptive_rule(
        "soft_clip", _tanh_over, quantile=quantile, rate=rate, first=first, lowest=RANGE[0],
        query_share=query_share,
    )  # fmt: skip


def _tanh_over(threshold: Array, norms: Array) -> Array:
    """Returns tanh(n / z) / n, which is 1 / z at 0."""
    relative = norms / threshold
    small = relative < 1e-3  # there tanh(x) / x is 1 - x^2 / 3, in float32 1
    return jnp.where(small, 1.0, jnp.tanh(relative) / jnp.where(small, 1.0, relative)) / threshold
