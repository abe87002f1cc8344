"""ClipRule: pure functions that say how the gradient of one unit is scaled, with one proof for all.

**Guarantee.** Whatever a rule says, adding or removing one unit moves the released sums by at most
what the plan prices, since the step and not the rule holds the bounds (`apply.py`):

  * a unit's factor is cut to C' / norm, C' being C less the margins of every clip
    (`sums.clipping`, `sums.rounding`), so that the gradient sum moves by at most C =
    `dp.l2_clip_norm` for every state; a factor that is negative or not finite is 0, and one of
    a norm too small to be told is cut as if it were 2^-64;
  * a unit's answer to a side query is cut to the query's sensitivity in l2 norm by the same code,
    and added up as gradients are; padding, and a unit whose norm is not finite, adds exactly 0;
  * functions of norm, loss and group see one unit at a time, so no unit's factor or answer depends
    on another's data;
  * the state is public: `init` is a constant, and `update` sees answers after their noise. What
    is computed from it (`rescale`, the next factors, `method_inputs`) is post-processing, and
    depends on draws that were released before (adaptive composition);
  * gradient sum and answers of a draw are one Gaussian release at their joint noise multiplier
    (protocol P1): the plan refuses a rule whose queries it does not price.

Norms are in units of C': the ordinary clip is `min(1, 1 / norm)`. Each stage of a Method begins
with the first state again.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.privacy.queries import Query

__all__ = ["ClipRule", "SideQuery", "ordinary", "priced", "scale_to"]

PyTree = Any
Array = jax.Array


class SideQuery(NamedTuple):
    """What a rule asks each draw beside the gradient sum.

    Attributes:
      name: it stands in privacy.json, and names the answer.
      sensitivity: l2 norm that one unit's answer has at most.
      entries: numbers in an answer, d.
      share: of what one draw may spend, as 1 / sigma^2, in (0, 1): the query's own noise multiplier
        is sigma / sqrt(share), and the gradient's grows to sigma / sqrt(1 - share), whatever
        sigma the budget gives.
    """

    name: str
    sensitivity: float
    entries: int
    share: float


class ClipRule(NamedTuple):
    """How gradients are scaled. Arrays have one entry for each unit, (m,).

    Attributes:
      name: of the rule.
      init: `() -> state`, a pytree of float32 arrays; the same for every run.
      factor: `(norms, groups, state) -> (m,)`, what a gradient is multiplied by: non-negative,
        with factor x norm at most 1 in units of C. `norms` are finite, `groups` int32, -1 unknown.
      queries: what each draw is asked.
      answers: `(norms, losses, groups, state) -> {name: (m, d)}`, one for each query.
      update: `(state, {name: (d,)} noisy sums, expected_batch_size) -> state` for the next draw.
      rescale: `(state) -> scalar`, multiplied onto the noisy mean after the noise; None for 1.
      group: `(example) -> int32`, the number of the example's own group, -1 for unknown; None
        where the rule knows no groups, and then all are -1.
      method_inputs: `(state) -> {name: array}`, put into what is frozen for the Method's loss.
      reads_losses: whether `answers` needs each unit's loss; else losses are zeros.
      plain: whether it may be used in a run without privacy, which clips nothing (norms are
        zeros there, and answers get no noise).
    """

    name: str
    init: Callable[[], PyTree]
    factor: Callable[[Array, Array, PyTree], Array]
    queries: tuple[SideQuery, ...] = ()
    answers: Callable[[Array, Array, Array, PyTree], Mapping[str, Array]] | None = None
    update: Callable[[PyTree, Mapping[str, Array], int], PyTree] | None = None
    rescale: Callable[[PyTree], Array] | None = None
    group: Callable[[Any], Array] | None = None
    method_inputs: Callable[[PyTree], dict[str, Array]] | None = None
    reads_losses: bool = False
    plain: bool = False


def ordinary(norms: Array, groups: Array, state: PyTree) -> Array:
    """Returns min(1, 1 / norm), the factors of the clip without a rule.

    >>> ordinary(jnp.array([0.0, 0.5, 4.0]), None, None)
    Array([1.  , 1.  , 0.25], dtype=float32)
    """
    return scale_to(1.0, norms)


def scale_to(threshold: Any, norms: Array) -> Array:
    """Returns the factors that clip at `threshold` and then divide by it: min(1/z, 1/norm).

    So the scaled norm is at most 1, whatever the threshold; multiplied by it after the noise
    (`rescale`), the sum is one clipped at `threshold` with noise in proportion.

    Args:
      threshold: in units of C, positive; a number, or one for each unit.
      norms: (m,).
    """
    return 1 / jnp.maximum(jnp.asarray(threshold, jnp.float32), norms)


def priced(rule: ClipRule | None, sigma: float) -> tuple[Query, ...]:
    """Returns the queries of a rule with their noise, where all of a draw may have `sigma`.

    Raises InputError for shares that leave nothing to the gradient.

    >>> rule = ClipRule("r", dict, ordinary, queries=(SideQuery("share", 0.5, 1, 0.25),))
    >>> priced(rule, 2.0)
    (Query(name='share', sensitivity=0.5, noise_multiplier=4.0),)
    """
    if rule is None:
        return ()
    shares = [query.share for query in rule.queries]
    if not all(0 < share < 1 for share in shares) or sum(shares) >= 1:
        raise InputError(
            f"The clip rule {rule.name!r} gives its queries the shares {shares} of each draw's "
            "budget; they must be positive, and less than 1 together (mitigation.query_share)."
        )
    return tuple(Query(q.name, q.sensitivity, sigma / math.sqrt(q.share)) for q in rule.queries)
