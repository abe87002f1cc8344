"""Edges of mitigations: whose data decide how much an example weighs."""

import itertools
from unittest import mock

import jax
import numpy as np

from jaxfair.config import load_config, plan_from_settings, settings_from_config
from jaxfair.privacy import accounting
from jaxfair.privacy.cliprules import group_losses
from tests.methods.mitigated import BATCH, QUICK, N, loss_of, stages


def test_edge_120_nobody_elses_mistakes_decide_what_an_example_weighs():
    """JTT's list of mistakes is one of everybody; here a weight is the example's own."""
    method, params, frozen = stages("jtt")[1]
    keys = jax.random.split(jax.random.key(0), N)
    grad = jax.vmap(jax.grad(loss_of(method, frozen)), in_axes=(None, 0, 0))
    grad = jax.jit(grad, compiler_options=QUICK)
    before = grad(params, BATCH, keys)
    for place, other in itertools.product(range(N), (0, 4)):
        alone = [other] * N
        alone[place] = place
        after = grad(
            params, jax.tree.map(lambda a, rows=tuple(alone): a[np.array(rows)], BATCH), keys
        )
        for one, two in zip(jax.tree.leaves(before), jax.tree.leaves(after)):
            np.testing.assert_array_equal(one[place], two[place])


def test_edge_121_the_losses_of_groups_are_a_priced_query_under_privacy():
    config = load_config("rsna_fae:phantom")
    config.data.groups = ("sex",)
    config.mitigation.name = "group_dro"
    with mock.patch.object(accounting, "noise_multiplier_from_epsilon", lambda *given: 2.0):
        plan = plan_from_settings(settings_from_config(config))
    assert [query.name for query in plan.queries] == [group_losses.QUERY]
    assert plan.joint_noise_multiplier >= 2.0
    np.testing.assert_allclose(plan.noise_multiplier, 2.0 / np.sqrt(1 - 0.05), rtol=1e-9)
