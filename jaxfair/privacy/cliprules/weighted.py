"""Public weights of groups on their clipped gradients.

Source: protocol P9, which prices the largest weight of all configured groups.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.privacy.cliprules.base import ClipRule, ordinary

__all__ = ["weights_after_clip"]

Array = jax.Array


def weights_after_clip(*, weights: Sequence[float], group: Callable[[Any], Array]) -> ClipRule:
    """Returns the rule that multiplies a clipped gradient by the public weight of its group.

    A weight of the loss does nothing where the gradient is clipped anyway; this one does.

    Guarantee: the factor is min(1, C / norm) w / w_max, at most C / norm, as w_max is the largest
    weight of all configured groups, drawn or not. The noisy mean is multiplied by w_max after its
    noise, so that the noise is that of sensitivity w_max C. A unit of unknown group weighs 1, or
    w_max where that is less. A unit's group follows from its own data; weights are public
    constants (protocol P9). Cost: noise larger by w_max.

    Args:
      weights: one for each group, positive.
      group: `(example) -> int32` in -1 to the number of weights - 1.

    Raises InputError where there is no weight.
    """
    if not weights:
        raise InputError("mitigation.weights is empty; give a weight for each group.")
    largest = max(weights)
    table = jnp.asarray([*weights, min(1.0, largest)], jnp.float32) / largest

    def factor(norms: Array, numbers: Array, state: dict) -> Array:
        known = (numbers >= 0) & (numbers < len(weights))
        own = table[jnp.where(known, numbers, len(weights))]
        return own * ordinary(norms, numbers, state)

    return ClipRule(
        "weights_after_clip",
        init=dict,
        factor=factor,
        rescale=lambda state: jnp.float32(largest),
        group=group,
    )
