"""Weights of cells by their noisy counts: rare cells of label and group weigh more.

The shares that `balanced_head` and `group_weights` are told are bought here (protocol P9).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.privacy.cliprules.base import ClipRule, SideQuery, ordinary
from jaxfair.privacy.cliprules.weighted import scaled_after

__all__ = ["INPUT", "QUERY", "cell_counts", "weights_of"]

Array = jax.Array

QUERY = "cell_counts"
INPUT = "noisy_counts"
"""The name of the weights in what the Method is told, (cells + 1,)."""


def cell_counts(
    *,
    cells: int,
    cell: Callable[[Any], Array],
    most: float,
    query_share: float,
    after_clip: bool = False,
) -> ClipRule:
    """Returns the rule that tells the Method a weight for each cell, 1 / (cells x noisy share).

    Each draw is asked how many of it are in each cell, and noisy counts of all draws so far are
    added up: after T draws the noise on a share has fallen by sqrt(T), so that a small part of each
    draw's budget buys them. Weights count from the next draw on; the last, 1, is for the unknown.

    Guarantee: the factors are those of the ordinary clip. A unit counts once, in its own cell,
    which moves the table by 1 in l2 norm; with the gradient sum it is one release (protocol P1).
    Weights are functions of noisy counts of draws before this one, so an example's weight is its
    own cell's, and comes before the clip. Counts below 0 are set to 0, and no weight is above
    `most`. After the clip, the factors and the noise are those of `weighted.scaled_after`.
    Cost: `query_share` of each draw's budget; after the clip also noise larger by the largest
    weight.

    Args:
      cells: how many there are, the unknown not counted.
      cell: `(example) -> int32` in -1 to `cells` - 1.
      most: the largest weight, a public constant of at least 1.
      query_share: of each draw's budget, in (0, 1).
      after_clip: whether the clipped gradient is weighed and not the loss, of which nothing is left
        where the gradient is clipped anyway; then the Method is told nothing.

    Raises InputError for a largest weight below 1 or without end.
    """
    if not 1 <= most < math.inf:
        raise InputError(f"mitigation.most is {most}; the largest weight is at least 1 and finite.")

    def answers(norms: Array, losses: Array, numbers: Array, state: dict) -> dict[str, Array]:
        return {QUERY: jax.nn.one_hot(numbers, cells, dtype=jnp.float32)}

    def update(
        state: dict, noisy: Mapping[str, Array], expected_batch_size: int
    ) -> dict[str, Array]:
        return {"counts": state["counts"] + noisy[QUERY] / expected_batch_size}

    told = lambda state: {INPUT: weights_of(state["counts"], most)}
    factor, rescale = scaled_after(lambda state: weights_of(state["counts"], most))
    return ClipRule(
        "cell_counts",
        init=lambda: {"counts": jnp.zeros(cells, jnp.float32)},
        factor=factor if after_clip else ordinary,
        queries=(SideQuery(QUERY, 1.0, cells, query_share),),
        answers=answers,
        update=update,
        rescale=rescale if after_clip else None,
        group=cell,
        method_inputs=None if after_clip else told,
        plain=not after_clip,
    )


def weights_of(counts: Array, most: float) -> Array:
    """Returns the (cells + 1,) weights, 1 / (cells x share) up to `most`; 1 where nothing is known.

    >>> [round(float(w), 3) for w in weights_of(jnp.array([6.0, 2.0, -1.0]), most=4.0)]
    [0.444, 1.333, 4.0, 1.0]
    """
    counts = jnp.maximum(counts, 0)
    total = jnp.sum(counts)
    share = counts / jnp.where(total > 0, total, 1)
    weights = jnp.minimum(1 / jnp.maximum(len(counts) * share, 1 / most), most)
    return jnp.append(jnp.where(total > 0, weights, 1.0), 1.0)
