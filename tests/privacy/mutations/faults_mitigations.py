"""Faults by which others decide what an example weighs."""

import jax
import jax.numpy as jnp

from jaxfair.methods.mitigations import catalog, jtt
from tests.privacy.mutations.putting import replaced, wrapped


def fault_120_weights_are_rescaled_by_the_mistakes_of_the_batch():
    """As where a list of mistakes is drawn up first: its length is everybody's."""

    @jax.custom_batching.custom_vmap
    def counted(wrong):
        return wrong

    @counted.def_vmap
    def _(size, batched, wrong):
        return wrong | (jnp.sum(wrong) > size / 2), True

    return wrapped(jtt, "_is_wrong", lambda original, *given: counted(original(*given)))


def fault_121_what_a_mitigation_asks_of_each_draw_is_not_paid_for():
    return replaced(catalog, "clip_rule", lambda *given: None)
