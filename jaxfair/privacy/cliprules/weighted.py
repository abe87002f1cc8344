"""Weights of groups on their clipped gradients: public constants, or functions of a public state.

Source: protocol P9, which prices the largest weight of all configured groups.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.privacy.cliprules.base import ClipRule, ordinary

__all__ = ["scaled_after", "weights_after_clip"]

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
    table = jnp.asarray([*weights, min(1.0, max(weights))], jnp.float32)
    factor, rescale = scaled_after(lambda state: table)
    return ClipRule("weights_after_clip", init=dict, factor=factor, rescale=rescale, group=group)


def scaled_after(
    weights: Callable[[Any], Array],
) -> tuple[Callable[[Array, Array, Any], Array], Callable[[Any], Array]]:
    """Returns `factor` and `rescale` of a rule that weighs clipped gradients.

    Guarantee: the factor is min(1, C / norm) w / w_max, at most C / norm, with w_max the largest of
    the table, drawn or not; `rescale` is w_max, after the noise. The table is a function of the
    public state, so a factor depends on its own unit and on draws that were released before.

    Args:
      weights: `(state) -> (k,)`, positive and finite; the last is for a number that is not in 0 to
        k - 1, as the unknown's -1.
    """

    def factor(norms: Array, numbers: Array, state: Any) -> Array:
        table = weights(state)
        last = len(table) - 1
        own = table[jnp.where((numbers >= 0) & (numbers < last), numbers, last)]
        return own / jnp.max(table) * ordinary(norms, numbers, state)

    return factor, lambda state: jnp.max(weights(state))
