"""Faults of mitigations by group, most of them those of the thesis."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.data import composing
from jaxfair.methods.mitigations import catalog, finetune, upsampling, whom
from jaxfair.privacy import verify
from jaxfair.privacy.cliprules import group_losses
from jaxfair.privacy.promise import PrivacyPlan
from tests.privacy.mutations.putting import replaced, wrapped


def fault_170_a_composition_keeps_an_exact_share_by_rank():
    """`int(n share)` of a group in a fixed order: each patient's place hangs on all others."""

    def ranked(original, salt, names):
        place = original(salt, names)
        return np.argsort(np.argsort(place)) / max(len(place), 1)

    return wrapped(composing, "hash_fractions", ranked)


def fault_171_the_verifier_asks_no_mitigation_whether_it_counts():
    return replaced(verify, "COUPLING_MITIGATION", {})


def fault_172_a_unit_has_the_group_of_whatever_is_known_of_it():
    def guessed(original, config, codes):
        return original(config, lambda name: np.maximum(codes(name), 0))

    return wrapped(upsampling, "groups_of_units", guessed)


def fault_173_the_plan_is_not_told_of_rates_by_group():
    """Opacus under the thesis: copies enlarge the set, and the rate stays 1 / batches."""
    return replaced(catalog, "own_rates", lambda *given: ())


def fault_174_a_fine_tuning_hears_the_unknown_too():
    heard = lambda original, config, example: jnp.minimum(original(config, example), 1)
    return wrapped(finetune, "group_of", heard)


def fault_175_a_core_set_may_be_chosen_on_test_scores():
    """The thesis's subsets.json: the best images by AUROC on the test set."""
    return replaced(whom, "CHOSEN_ON", dict.fromkeys(whom.CHOSEN_ON, ""))


def fault_176_the_losses_of_groups_are_not_clipped():
    return replaced(group_losses, "within", lambda losses, bound: losses / bound)


def fault_177_a_unit_counts_twice_in_a_table_of_cells():
    """As a patient whose rows were copied."""
    return wrapped(jax.nn, "one_hot", lambda original, *given, **k: 2 * original(*given, **k))


def fault_178_the_verifier_does_not_ask_the_config_for_queries():
    return replaced(verify, "asked_faults", lambda *given: [])


def fault_179_rates_by_group_are_priced_at_their_mean():
    mean = lambda plan: float(np.mean((plan.sampling_prob, *plan.group_probs)))
    return replaced(PrivacyPlan, "priced_prob", property(mean))
