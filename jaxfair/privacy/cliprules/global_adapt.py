"""Global scaling: all gradients up to a bound shrink by one factor, so that their sum keeps course.

Source: Esipova, Ghomi, Luo, Cresswell 2023, "Disparate Impact in Differential Privacy from Gradient
Misalignment" (arXiv 2206.07737), DPSGD-Global-Adapt.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.privacy.cliprules.base import ClipRule, SideQuery, scale_to
from jaxfair.privacy.cliprules.quantile import RANGE, check_positive

__all__ = ["QUERY", "global_clip"]

Array = jax.Array

QUERY = "count_above_the_bound"


def global_clip(
    *, rate: float, first: float, tolerance: float = 1.0, query_share: float
) -> ClipRule:
    """Returns the rule that scales gradients up to Z = z C by C / Z, and clips larger ones to C.

    Clipping turns the sum towards those whose gradients are small; scaling all alike does not.

    Guarantee: the factor is min(C / Z, C / norm), so the norm is at most C whatever Z is. Each unit
    also says whether its norm is above `tolerance` Z, as 1 or 0, which moves the count by 1; both
    are one release (protocol P1). The next Z is Z exp(-rate + noisy count / expected batch size),
    which the public batch size divides and not the drawn one; it is never below C. Unlike
    `quantile_clip` the update is not multiplied by z: as in the source, learning is slower where Z
    is large. Cost: `query_share` of each draw's budget.

    Args:
      rate: by how much the logarithm of Z falls in a step in which nobody is above, positive; about
        this share of units stays above.
      first: the first Z in units of C, at least 1.
      tolerance: a unit counts as above from `tolerance` Z on, positive.
      query_share: of each draw's budget, in (0, 1).

    Raises InputError for numbers outside.
    """
    check_positive(rate=rate, tolerance=tolerance)
    if not 1 <= first <= RANGE[1]:
        raise InputError(
            f"mitigation.first is {first}; it must be in [1, {RANGE[1]:g}], in units of "
            "dp.l2_clip_norm: global clipping scales gradients down."
        )

    def answers(norms: Array, losses: Array, groups: Array, state: dict) -> dict[str, Array]:
        above = norms > tolerance * state["bound"]
        return {QUERY: above.astype(jnp.float32)[:, None]}

    def update(
        state: dict, noisy: Mapping[str, Array], expected_batch_size: int
    ) -> dict[str, Array]:
        moved = state["bound"] * jnp.exp(-rate + noisy[QUERY][0] / expected_batch_size)
        return {"bound": jnp.clip(moved, 1.0, RANGE[1])}

    return ClipRule(
        "global_clip",
        init=lambda: {"bound": jnp.float32(first)},
        factor=lambda norms, groups, state: scale_to(state["bound"], norms),
        queries=(SideQuery(QUERY, 1.0, 1, query_share),),
        answers=answers,
        update=update,
    )
