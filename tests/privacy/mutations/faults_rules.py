"""Faults of clip rules: of the step that holds their bounds, and of each rule by itself."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.engine import feed, stages, step
from jaxfair.privacy import noise, sampling
from jaxfair.privacy.cliprules import (
    apply,
    bounded,
    by_group,
    cell_counts,
    global_adapt,
    normalised,
    quantile,
    soft,
    weighted,
)
from jaxfair.privacy.promise import PrivacyPlan
from jaxfair.privacy.sums import clipping
from tests.privacy import ruled
from tests.privacy.mutations.putting import replaced, wrapped


def fault_140_a_rules_factor_is_believed():
    """As where each rule has to hold its bound by itself."""
    return replaced(
        clipping, "largest_scales", lambda norms, bound: jnp.full_like(norms, jnp.float32(1e30))
    )


def fault_141_a_rules_answer_is_believed():
    return replaced(
        apply,
        "_bounded_sum",
        lambda answers, counted, *_: jnp.nansum(jnp.where(counted[:, None], answers, 9), axis=0),
    )


def fault_142_side_queries_are_for_free():
    """As if each had a draw of its own that nobody counts."""
    return replaced(
        PrivacyPlan, "joint_noise_multiplier", property(lambda plan: plan.noise_multiplier)
    )


def fault_143_answers_get_the_noise_of_the_gradient():
    """One purpose for all keys of a step."""
    return replaced(feed.noise, "answer_key_data", noise.noise_key_data)


def fault_144_the_noise_of_an_answer_has_the_deviation_of_another():
    def gaussian_like(original, tree, words, stddev):
        return original(tree, words, 1.0 if isinstance(tree, list) else stddev)

    return wrapped(noise, "gaussian_like", gaussian_like)


def fault_145_the_state_is_updated_before_the_noise():
    def next_state(original, plan, state, answers, words):
        return plan.rule.update(state, answers, plan.expected_batch_size)

    return wrapped(apply, "next_state", next_state)


def fault_146_a_rule_sees_the_whole_batch():
    """Functions of (m,) arrays, called as they are."""
    return replaced(
        apply, "_one_by_one", lambda function, state: lambda *units: function(*units, state)
    )


def fault_147_a_factor_is_cut_by_a_norm_that_underflowed():
    return replaced(apply, "SMALLEST", 0.0)


def fault_148_the_sum_is_multiplied_by_the_clip_before_the_noise():
    """A sum that moves by z C, with the noise of C."""

    def finish(original, state, plan, optimizer, randomness):
        rule = plan.rule
        total = jax.tree.map(lambda a: a * rule.rescale(state.rule_state), state.clipped_sum)
        plain = dataclasses.replace(plan, rule=rule._replace(rescale=None))
        return original(state._replace(clipped_sum=total), plain, optimizer, randomness)

    return wrapped(step, "_finish", finish)


def fault_150_an_adaptive_clip_is_not_divided_by_its_threshold():
    """Clipped at z C, with the noise of C."""
    return replaced(
        quantile, "scale_to", lambda z, norms: jnp.minimum(1.0, z / jnp.maximum(norms, 1e-30))
    )


def fault_151_the_bound_of_an_adaptive_clip_is_forgotten():
    def adaptive_rule(original, *given, **fields):
        return original(*given, **fields | {"lowest": 1e-4})

    return wrapped(bounded, "adaptive_rule", adaptive_rule)


def _rule(module, name, **changes):
    """Puts another function into the rule that tests make of a file."""
    made = getattr(module, name)

    def changed(**fields):
        rule = made(**fields)
        return rule._replace(**{field: change(rule) for field, change in changes.items()})

    return replaced(ruled, name, changed)


def fault_152_a_gradient_is_divided_by_its_norm_alone():
    """AUTO-V: 0 / 0 for who has no gradient."""
    factor = lambda rule: lambda norms, groups, state: 1 / norms
    return _rule(normalised, "normalised_clip", factor=factor)


def fault_153_global_scaling_does_not_clip_what_is_above_its_bound():
    return replaced(global_adapt, "scale_to", lambda z, norms: jnp.ones_like(norms) / z)


def fault_154_group_clips_are_divided_by_the_mean_of_all():
    """Noise by some other number than the largest clip."""
    return replaced(
        by_group,
        "scale_to",
        lambda own, norms: 1.5 / jnp.maximum(own, norms),
    )


def fault_155_the_tangent_of_a_gradient_is_not_divided_by_its_norm():
    return replaced(soft, "_tanh_over", lambda z, norms: jnp.tanh(norms / z))


def fault_156_weights_are_divided_by_the_smallest():
    def ordinary(original, norms, groups, state):
        return original(norms, groups, state) * 15

    return wrapped(weighted, "ordinary", ordinary)


def fault_157_weights_of_noisy_counts_are_not_divided_by_the_largest():
    """Each clipped gradient weighs up to w_max, with the noise of C."""

    def undivided(original, weights):
        factor, _ = original(weights)
        rescale = lambda state: jnp.float32(1)
        return lambda norms, numbers, state: factor(norms, numbers, state) * 4, rescale

    return wrapped(cell_counts, "scaled_after", undivided)


@contextlib.contextmanager
def fault_158_a_draw_holds_all_images_of_a_patient():
    """Each is clipped and counted by itself, at the price of one."""
    everything = lambda secret, step, draw, rows, ids: np.concatenate([rows[u] for u in draw])

    def laid_out(original, rows, ids, *given):
        return original(rows, np.resize(ids, len(rows)), *given)

    with (
        replaced(sampling, "draw_images", everything),
        wrapped(feed, "rows_of_draw", laid_out),
    ):
        yield


def fault_159_a_resume_begins_a_rule_anew():
    def restored(original, assembly, *given):
        state = original(assembly, *given)
        return state and state._replace(rule_state=assembly.begin().rule_state)

    return wrapped(stages, "_restored", restored)
