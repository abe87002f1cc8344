"""A rule at work: the clipped sum by its factors, and its answers, clipped and summed alike.

Here are the bounds that make every rule private; `base.py` states them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.privacy import isolation, noise
from jaxfair.privacy.cliprules.base import ClipRule
from jaxfair.privacy.promise import PrivacyPlan
from jaxfair.privacy.sums import choice, clipping, rounding

__all__ = ["Sums", "check_rule", "first_state", "informed", "next_state", "no_answers", "sums"]

PyTree = Any
Array = jax.Array

SMALLEST = 2.0**-64
"""A norm below counts as this where a factor is cut: the fast way multiplies the sizes of two
operands for it, which underflow to 0 where their products over many entries do not."""


class Sums(NamedTuple):
    """What a draw is summed to.

    Attributes:
      grads: the clipped sum, float32, shaped like the parameters.
      answers: (d,) float32 by name of the side query.
    """

    grads: PyTree
    answers: dict[str, Array]


def first_state(plan: PrivacyPlan) -> PyTree:
    """Returns the state that a plan's rule begins with; {} without a rule."""
    begun = {} if plan.rule is None else plan.rule.init()
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), begun)


def no_answers(plan: PrivacyPlan) -> dict[str, Array]:
    """Returns zeros for the answers to the side queries of a plan's rule, by name."""
    queries = plan.rule.queries if plan.rule else ()
    return {query.name: jnp.zeros(query.entries, jnp.float32) for query in queries}


def informed(plan: PrivacyPlan, frozen: PyTree, state: PyTree) -> PyTree:
    """Returns what is frozen, with what the rule tells the Method: functions of its public state.

    Raises InputError where the Method's frozen part is no dictionary.
    """
    if plan.rule is None or plan.rule.method_inputs is None:
        return frozen
    if not isinstance(frozen, dict):
        raise InputError(
            f"The clip rule {plan.rule.name!r} tells the Method something by its frozen part, "
            f"which is a {type(frozen).__name__}: make it a dictionary."
        )
    return {**frozen, **plan.rule.method_inputs(state)}


def sums(
    plan: PrivacyPlan,
    loss_fn: clipping.LossFn,
    params: PyTree,
    batch: PyTree,
    keys: Array,
    mask: Array,
    state: PyTree,
) -> Sums:
    """Returns the (clipped) gradient sum of a microbatch, and the sums of its answers.

    Guarantee: one unit more moves the gradient sum by at most C and each answer by at most its
    query's sensitivity, whatever rule and state are (see `base`).

    Args:
      loss_fn, params, batch, keys, mask: as of `clipping.clipped_sum`.
      state: of the rule.
    """
    rule = plan.rule
    if rule is None:
        return Sums(plan.sum_grads(loss_fn, params, batch, keys, mask), {})
    rows = mask.shape[0]
    groups = jnp.full(rows, -1) if rule.group is None else jax.vmap(rule.group)(batch)
    groups = groups.astype(jnp.int32)
    losses = jnp.zeros(rows)
    if rule.reads_losses:
        losses = clipping.per_example_losses(loss_fn, params, batch, keys)
    if plan.private:
        grads, norms, counted = _clipped(
            plan, rule, (loss_fn, params, batch, keys, mask), groups, state
        )
    else:
        grads, norms = plan.sum_grads(loss_fn, params, batch, keys, mask), jnp.zeros(rows)
        counted = mask
    return Sums(grads, _answers(plan, rule, (norms, losses, groups), counted, state))


def _clipped(
    plan: PrivacyPlan, rule: ClipRule, given: tuple[Any, ...], groups: Array, state: PyTree
) -> tuple[PyTree, Array, Array]:
    """The sum by the rule's factors, the norms in units of C', and who counts."""
    strict = choice.strict_bound(plan.how, plan.l2_clip_norm, plan.max_draw)

    def scales_of(norms: Array, mask: Array) -> Array:
        return _scales(rule, norms, mask, strict, groups, state)

    grads, norms = choice.clipped_sum_by(plan.how, *given, scales_of=scales_of)
    counted = given[-1] & jnp.isfinite(norms)
    return grads, _relative(norms, counted, strict), counted


def _relative(norms: Array, counted: Array, strict: Array) -> Array:
    """Returns finite norms in units of C'; 0 for who does not count."""
    return jnp.minimum(jnp.where(counted, norms, 0) / strict, jnp.finfo(jnp.float32).max)


def _scales(
    rule: ClipRule, norms: Array, mask: Array, strict: Array, groups: Array, state: PyTree
) -> Array:
    """Returns the rule's factors, cut to C' / norm; 0 for padding and whatever is not finite."""
    counted = mask & jnp.isfinite(norms)
    factors = _one_by_one(rule.factor, state)(_relative(norms, counted, strict), groups)
    longest = clipping.largest_scales(jnp.maximum(norms, SMALLEST), strict)
    scales = jnp.minimum(factors, longest)
    return clipping.kept_scales(scales, counted)


def _answers(
    plan: PrivacyPlan, rule: ClipRule, units: tuple[Array, ...], counted: Array, state: PyTree
) -> dict[str, Array]:
    """The sum of each query's answers, every unit's cut to the query's sensitivity."""
    if rule.answers is None:
        return {}
    found = _one_by_one(rule.answers, state)(*units)
    return {
        q.name: _bounded_sum(found[q.name], counted, q.sensitivity, plan.max_draw)
        for q in rule.queries
    }


def _bounded_sum(answers: Array, counted: Array, sensitivity: float, units: int) -> Array:
    """Returns the (d,) sum of (m, d) answers, each cut to `sensitivity` as a gradient is to C."""
    values = jnp.where(counted[:, None], answers.astype(jnp.float32), 0)
    norms = clipping.per_example_norms([values])
    scales = clipping.scales_from_norms(norms, counted, rounding.bound(sensitivity, units))
    return rounding.weighted_sum(scales, jnp.where(scales[:, None] > 0, values, 0))


def _one_by_one(function: Callable[..., Any], state: PyTree) -> Callable[..., Any]:
    """Returns a rule's function of (m,) arrays, called with one unit at a time."""

    def alone(*unit: Array) -> Any:
        out = function(*(value[None] for value in unit), state)
        return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32)[0], out)

    return jax.vmap(alone)


def next_state(
    plan: PrivacyPlan, state: PyTree, answers: Mapping[str, Array], key_words: Array
) -> PyTree:
    """Returns the rule's state for the next draw, from this one's answers after their noise.

    Args:
      answers: (d,) sums by name, over all of the draw; each gets the noise of its query, once.
      key_words: uint32 (queries, draws, 2) of `noise.answer_key_data`.
    """
    rule = plan.rule
    if rule is None or rule.update is None:
        return state
    noisy = {}
    stddevs = {query.name: query.noise_stddev for query in plan.queries}
    for number, query in enumerate(rule.queries):
        noisy[query.name] = answers[query.name]
        if plan.private:
            words, like = key_words[number : number + 1], [answers[query.name]]
            noisy[query.name] += noise.gaussian_like(like, words, stddevs[query.name])[0]
    after = rule.update(state, noisy, plan.expected_batch_size)
    return jax.tree.map(lambda a, old: jnp.asarray(a, old.dtype), after, state)


def check_rule(plan: PrivacyPlan, example: Mapping[str, jax.ShapeDtypeStruct]) -> None:
    """Refuses a rule whose functions have other shapes than they promise, or reach beyond a unit.

    Args:
      example: shape and dtype of each array of an example as the loss gets it.

    Raises InputError, in one sentence.
    """
    rule = plan.rule
    if rule is None:
        return
    one, whole = jax.ShapeDtypeStruct((1,), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    state = jax.eval_shape(rule.init)
    factor: Any = rule.factor
    _refuse_foreign(rule, "factor", lambda s, x, key: factor(*x, s), state, (one, whole))
    _check_shapes(rule, "factor", jax.eval_shape(rule.factor, one, whole, state), one)
    group: Any = rule.group
    if group is not None:
        _refuse_foreign(rule, "group", lambda s, x, key: group(x), None, dict(example))
    wanted = {q.name: jax.ShapeDtypeStruct((1, q.entries), jnp.float32) for q in rule.queries}
    if (rule.answers is None) != (not wanted) or (wanted and rule.update is None):
        raise InputError(
            f"The clip rule {rule.name!r} must have `queries`, `answers` and `update`, or none of "
            "the three."
        )
    if rule.answers is None or rule.update is None:
        return
    answers: Any = rule.answers
    update: Any = rule.update
    given = (one, one, whole)
    _refuse_foreign(rule, "answers", lambda s, x, key: answers(*x, s), state, given)
    _check_shapes(rule, "answers", dict(jax.eval_shape(answers, *given, state)), wanted)
    noisy = {q.name: jax.ShapeDtypeStruct((q.entries,), jnp.float32) for q in rule.queries}
    after = jax.eval_shape(lambda s, n: update(s, n, 1), state, noisy)
    _check_shapes(rule, "update", after, state)


def _refuse_foreign(rule: ClipRule, part: str, fun: Any, operands: PyTree, example: PyTree) -> None:
    found = sorted(isolation.foreign_operations(fun, operands, example))
    if found:
        raise InputError(
            f"The {part} of the clip rule {rule.name!r} uses {', '.join(found)}, by which one unit "
            "may reach another's or leave the step without noise: write it with row-wise "
            "operations of jax.lax."
        )


def _check_shapes(rule: ClipRule, part: str, found: PyTree, wanted: PyTree) -> None:
    kinds = [
        (jax.tree.structure(t), [(a.shape, str(a.dtype)) for a in jax.tree.leaves(t)])
        for t in (found, wanted)
    ]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"The {part} of the clip rule {rule.name!r} gives {found}, and {wanted} was expected."
        )
