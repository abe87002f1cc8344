"""Faults of augmentation multiplicity: views that are clipped one by one."""

from unittest import mock

import jax
import jax.numpy as jnp

from jaxfair.methods import classifier
from jaxfair.privacy.plan import PrivacyPlan
from tests.privacy.mutations.putting import wrapped

VIEWS = 4


def _one_by_one(original, plan, *given):
    """The clipped sums of all first views, of all second ones, and so on."""
    drawn, parts = classifier.views_of, []
    for i in range(VIEWS):
        alone = lambda *a, i=i: jax.tree.map(lambda v: v[i : i + 1], drawn(*a))
        with mock.patch.object(classifier, "views_of", alone):
            parts.append(original(plan, *given))
    return jax.tree.map(lambda *leaves: jnp.sum(jnp.stack(leaves), 0), *parts)


def fault_231_the_mean_over_views_comes_after_the_clip():
    def sum_grads(original, plan, *given):
        return jax.tree.map(lambda g: g / VIEWS, _one_by_one(original, plan, *given))

    return wrapped(PrivacyPlan, "sum_grads", sum_grads)


def fault_232_each_view_counts_as_a_unit():
    return wrapped(PrivacyPlan, "sum_grads", _one_by_one)
