"""Weights of groups that grow with their noisy losses: group DRO under privacy.

Source: Sagawa et al. 2020 (arXiv 1911.08731), algorithm 1, with the losses bought as protocol P9
asks for it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.privacy.cliprules.base import ClipRule, SideQuery, ordinary
from jaxfair.privacy.cliprules.weighted import scaled_after

__all__ = ["FEWEST", "INPUT", "LEAST", "MOST", "QUERY", "group_losses", "weights_of", "within"]

Array = jax.Array

QUERY = "group_losses_and_counts"
INPUT = "group_dro"
"""The name of the weights in what the Method is told, (groups,)."""
LEAST = 0.01
"""A group whose noisy share of a draw is below counts as having this share: a public constant."""
FEWEST, MOST = 1e-3, 20.0
"""The smallest and the largest weight."""


def group_losses(
    *,
    groups: int,
    group: Callable[[Any], Array],
    rate: float,
    bound: float,
    memory: float,
    query_share: float,
    after_clip: bool = False,
) -> ClipRule:
    """Returns the rule that tells the Method a weight for each group, q_g / share_g.

    Each draw is asked for a table of group x (sum of losses / M, number of units), losses clipped
    to [0, M]. Noisy sums are averaged over draws that are forgotten by `memory`; a group's mean
    loss is the quotient, within [0, M], and q_g <- q_g exp(rate x mean loss / M), normalised. The
    weights count from the next draw on.

    Guarantee: the factors are those of the ordinary clip. A unit adds (loss / M, 1) to the row of
    its own group and 0 to others, of norm sqrt(2) at most, since its loss is clipped to the public
    [0, M]; with the gradient sum it is one release (protocol P1). Weights are functions of noisy
    sums of draws before this one, so an example's weight is its own group's, and comes before the
    clip. A loss that is not finite adds 0. After the clip, the factors and the noise are those of
    `weighted.scaled_after`. Cost: `query_share` of each draw's budget, and the loss of each example
    once more; after the clip also noise larger by the largest weight.

    Args:
      groups: how many, the last of them for the unknown.
      group: `(example) -> int32` in 0 to `groups` - 1.
      rate: by how much the logarithm of q grows in a step, for a loss of M.
      bound: M, a public constant, positive.
      memory: how much of the sums before is kept in each step, in [0, 1).
      query_share: of each draw's budget, in (0, 1).
      after_clip: whether the clipped gradient is weighed and not the loss, of which nothing is left
        where the gradient is clipped anyway; then the Method is told nothing.

    Raises InputError for numbers outside.
    """
    for name, value, holds in (
        ("rate", rate, 0 < rate < 1e6),
        ("bound", bound, 0 < bound < math.inf),
        ("memory", memory, 0 <= memory < 1),
    ):
        if not holds:
            rule = "in [0, 1)" if name == "memory" else "positive and finite"
            raise InputError(f"mitigation.{name} is {value}; it must be {rule}.")

    def answers(norms: Array, losses: Array, numbers: Array, state: dict) -> dict[str, Array]:
        row = jax.nn.one_hot(numbers, groups, dtype=jnp.float32)
        own = losses if after_clip else losses / weights_of(state)[numbers]
        share = within(own, bound)[:, None]  # without the weight that a trained loss has
        told = jnp.concatenate([row * share, row], axis=1)
        return {QUERY: jnp.where(jnp.isfinite(losses)[:, None], told, 0)}

    def update(
        state: dict, noisy: Mapping[str, Array], expected_batch_size: int
    ) -> dict[str, Array]:
        seen = noisy[QUERY].reshape(2, groups) / expected_batch_size
        sums = memory * state["sums"] + (1 - memory) * seen
        weight = memory * state["weight"] + (1 - memory)
        loss, people = sums / weight
        mean = jnp.clip(loss / jnp.maximum(people, LEAST), 0, 1)
        grown = state["log_q"] + rate * mean
        return {"sums": sums, "weight": weight, "log_q": jax.nn.log_softmax(grown)}

    def init() -> dict[str, Array]:
        even = jnp.full(groups, -math.log(groups), jnp.float32)
        return {"sums": jnp.zeros((2, groups)), "weight": jnp.zeros(()), "log_q": even}

    factor, rescale = scaled_after(weights_of)
    return ClipRule(
        "group_losses",
        init=init,
        factor=factor if after_clip else ordinary,
        queries=(SideQuery(QUERY, math.sqrt(2), 2 * groups, query_share),),
        answers=answers,
        update=update,
        rescale=rescale if after_clip else None,
        group=group,
        method_inputs=None if after_clip else lambda state: {INPUT: weights_of(state)},
        reads_losses=True,
        plain=not after_clip,
    )


def weights_of(state: Mapping[str, Array]) -> Array:
    """Returns the (groups,) weights q_g / share_g from FEWEST to MOST; 1 before the first draw.

    By them the weighted mean loss of a draw is about sum_g q_g (mean loss of g).

    >>> sums = jnp.array([[0.1, 0.1], [0.8, 0.2]])
    >>> log_q = jnp.log(jnp.array([0.5, 0.5]))
    >>> weights_of({"sums": sums, "weight": jnp.ones(()), "log_q": log_q}).round(3).tolist()
    [0.625, 2.5]
    """
    people = jnp.maximum(state["sums"][1] / jnp.maximum(state["weight"], 1e-6), LEAST)
    weights = jnp.exp(state["log_q"]) * jnp.sum(people) / people
    return jnp.where(state["weight"] > 0, jnp.clip(weights, FEWEST, MOST), 1.0)


def within(losses: Array, bound: float) -> Array:
    """Returns the losses clipped to [0, bound], as parts of the bound.

    >>> within(jnp.array([-1.0, 1.0, 9.0]), 4.0).tolist()
    [0.0, 0.25, 1.0]
    """
    return jnp.clip(losses, 0, bound) / bound
