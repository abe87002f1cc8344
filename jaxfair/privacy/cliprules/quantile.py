"""Clipping at a quantile of the norms that follows the training.

Source: Andrew, Thakkar, McMahan, Ramaswamy 2021, "Differentially Private Learning with Adaptive
Clipping" (arXiv 1905.03871), algorithm 1.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.privacy.cliprules.base import ClipRule, SideQuery, scale_to

__all__ = ["QUERY", "RANGE", "adaptive_rule", "check_positive", "quantile_clip"]

Array = jax.Array

RANGE = (1e-4, 1e4)
"""Thresholds stay within, in units of C: public, so that no noise can lead to 0 or infinity."""

QUERY = "share_within_the_threshold"


def quantile_clip(
    *, quantile: float, rate: float, first: float = 1.0, query_share: float
) -> ClipRule:
    """Returns the rule that clips at z C, where z follows the `quantile` of the norms.

    Guarantee: a gradient is clipped at z C and divided by z, so that its norm is at most C whatever
    z is. Each unit also says whether its norm was within the threshold, as +1/2 or -1/2, which
    moves that sum by 1/2; both are one release (protocol P1). The next z is
    z exp(-rate (share - quantile)) with share = 1/2 + noisy sum / expected batch size, a function
    of what was released. The noisy mean is multiplied by z after its noise, so that the update is
    one of clip z C with noise sigma z C. Cost: `query_share` of each draw's budget.

    Args:
      quantile: the share of units whose norms are to be within the threshold, in (0, 1).
      rate: how fast the logarithm of z moves, positive.
      first: the first z.
      query_share: of each draw's budget, in (0, 1).

    Raises InputError for numbers outside.
    """
    return adaptive_rule(
        "quantile_clip", scale_to, quantile=quantile, rate=rate, first=first, lowest=RANGE[0],
        query_share=query_share,
    )  # fmt: skip


def adaptive_rule(
    name: str,
    factor: Callable[[Array, Array], Array],
    *,
    quantile: float,
    rate: float,
    first: float,
    lowest: float,
    query_share: float,
) -> ClipRule:
    """Returns a rule whose threshold follows a quantile; arguments as of `quantile_clip`.

    Args:
      factor: `(z, norms) -> (m,)`, with factor x norm at most 1.
      lowest: z is never below.
    """
    check_positive(rate=rate, first=first, lowest=lowest)
    if not 0 < quantile < 1:
        raise InputError(f"mitigation.quantile is {quantile}; it must be in (0, 1).")
    if not lowest <= first <= RANGE[1]:
        raise InputError(
            f"mitigation.first is {first}; it must be in [{lowest:g}, {RANGE[1]:g}], in units of "
            "dp.l2_clip_norm."
        )

    def answers(norms: Array, losses: Array, groups: Array, state: dict) -> dict[str, Array]:
        within = jnp.where(norms <= state["threshold"], 0.5, -0.5)
        return {QUERY: within[:, None]}

    def update(
        state: dict, noisy: Mapping[str, Array], expected_batch_size: int
    ) -> dict[str, Array]:
        share = 0.5 + noisy[QUERY][0] / expected_batch_size
        moved = state["threshold"] * jnp.exp(-rate * (share - quantile))
        return {"threshold": jnp.clip(moved, lowest, RANGE[1])}

    return ClipRule(
        name,
        init=lambda: {"threshold": jnp.float32(first)},
        factor=lambda norms, groups, state: factor(state["threshold"], norms),
        queries=(SideQuery(QUERY, 0.5, 1, query_share),),
        answers=answers,
        update=update,
        rescale=lambda state: state["threshold"],
    )


def check_positive(**values: float) -> None:
    """Raises InputError for a field of the mitigation that is not positive and finite."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise InputError(f"mitigation.{name} is {value}; it must be positive and finite.")
