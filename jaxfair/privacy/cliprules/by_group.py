"""A clip for each group, larger where more of its gradients are clipped.

Source: Xu, Du, Wu 2021, "Removing Disparate Impact on Model Accuracy in Differentially Private
Stochastic Gradient Descent" (arXiv 2003.03699), DPSGD-F; with the noise by protocol P9.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.privacy.cliprules.base import ClipRule, SideQuery, scale_to

__all__ = ["QUERY", "bounds_from_counts", "group_clip"]

Array = jax.Array

QUERY = "group_by_clipped_counts"


def group_clip(
    *, groups: int, group: Callable[[Any], Array], memory: float = 0.9, query_share: float
) -> ClipRule:
    """Returns the rule that clips group k at c_k C, c_k = 1 + clipped share / mean clipped share.

    Guarantee: a gradient is clipped at c_k C and divided by max_k c_k, over all configured groups
    and not over those that were drawn; so its norm is at most C whatever the state is, and the
    noise sigma C, multiplied by max_k c_k afterwards, is that of the largest clip. Each unit also
    counts once in a table of group x (norm within C, or above), which moves it by 1 in l2 norm;
    both are one release (protocol P1). Noisy counts below 0 are set to 0, and every c_k is in
    [1, 1 + groups], as a share is at most `groups` times the mean of all. A unit of unknown group
    is clipped at C and not counted; a group of whom nobody is counted has c_k = 1. A unit's group
    follows from its own data, of the image that was drawn. Cost: `query_share` of each draw's
    budget, and noise larger by max_k c_k.

    Args:
      groups: how many there are, the unknown not counted.
      group: `(example) -> int32` in -1 to `groups` - 1.
      memory: how much of the counts before is kept in each step, in [0, 1); 0 as in the source.
      query_share: of each draw's budget, in (0, 1).

    Raises InputError for numbers outside.
    """
    if not 0 <= memory < 1:
        raise InputError(f"mitigation.memory is {memory}; it must be in [0, 1).")

    def factor(norms: Array, numbers: Array, state: dict) -> Array:
        bounds = bounds_from_counts(state["counts"])
        own = jnp.where(_known(numbers, groups), bounds[numbers], 1.0)
        return own / jnp.max(bounds) * scale_to(own, norms)

    def answers(norms: Array, losses: Array, numbers: Array, state: dict) -> dict[str, Array]:
        cell = jnp.where(_known(numbers, groups), 2 * numbers + (norms > 1), -1)
        return {QUERY: jax.nn.one_hot(cell, 2 * groups, dtype=jnp.float32)}

    def update(
        state: dict, noisy: Mapping[str, Array], expected_batch_size: int
    ) -> dict[str, Array]:
        counts = jnp.maximum(noisy[QUERY].reshape(groups, 2), 0) / expected_batch_size
        return {"counts": memory * state["counts"] + (1 - memory) * counts}

    return ClipRule(
        "group_clip",
        init=lambda: {"counts": jnp.zeros((groups, 2), jnp.float32)},
        factor=factor,
        queries=(SideQuery(QUERY, 1.0, 2 * groups, query_share),),
        answers=answers,
        update=update,
        rescale=lambda state: jnp.max(bounds_from_counts(state["counts"])),
        group=group,
    )


def bounds_from_counts(counts: Array) -> Array:
    """Returns the (groups,) clips in units of C: 1 + clipped share / mean clipped share.

    Args:
      counts: (groups, 2) non-negative: within C, and above.

    >>> [round(float(c), 3) for c in bounds_from_counts(jnp.array([[9.0, 1.0], [7.0, 3.0]]))]
    [1.5, 2.5]
    """
    people = jnp.sum(counts, axis=1)
    share = jnp.where(people > 0, counts[:, 1] / jnp.where(people > 0, people, 1), 0)
    mean = jnp.mean(share)
    return 1 + jnp.where(mean > 0, share / jnp.where(mean > 0, mean, 1), 0)


def _known(numbers: Array, groups: int) -> Array:
    return (numbers >= 0) & (numbers < groups)
