"""Counts and losses of groups as side queries: what one unit moves, what it costs, what it buys."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.methods.mitigations.catalog import MITIGATIONS, clip_rule, mitigated
from jaxfair.methods.mitigations.counts import NoisyCounts
from jaxfair.methods.mitigations.dro import GroupDRO
from jaxfair.privacy import accounting
from jaxfair.privacy.cliprules import apply, cell_counts, group_losses
from jaxfair.privacy.cliprules.base import priced
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.privacy.verify_asked import ASKED, rate_faults
from tests.methods.mitigated import (
    ATTRIBUTES,
    BATCH,
    CASES,
    CLIPS,
    PLAIN,
    QUICK,
    SPEC,
    TASKS,
    N,
)
from tests.privacy.toy import plan_of

C, M = 0.5, 0.7
SEX = {"by": ("sex",), "attributes": ATTRIBUTES}
CONFIGS = {
    "group_dro": GroupDRO(**SEX, bound=M, rate=0.3, memory=0.5, private=True),
    "noisy_counts": NoisyCounts(**SEX, label="a", labels=TASKS, query_share=0.1),
}
NUMBERS = np.arange(N) % 3  # groups 0, 1 and the unknown, in turn
KEYS = jax.random.split(jax.random.key(7), N)


def plan_with(name, sigma=1.0, **fields):
    rule = clip_rule(name, CONFIGS[name])
    return plan_of(sigma, clip=C, rule=rule, queries=priced(rule, 1.0), **fields)


def state_of(name):
    """A state that the rule may reach: after a draw of made-up noisy answers."""
    rule = clip_rule(name, CONFIGS[name])
    draws = np.random.default_rng(2).normal(4, 3, rule.queries[0].entries)
    return rule.update(rule.init(), {rule.queries[0].name: jnp.asarray(draws, jnp.float32)}, 10)


@functools.cache
def summed(name, clipping):
    """`(batch, mask) -> Sums` of one microbatch in a state of made-up weights, compiled once."""
    plan, method = plan_with(name, clipping=clipping), mitigated(name, CONFIGS[name], PLAIN)
    params, frozen = method.init(jax.random.key(0), SPEC)
    state = state_of(name)
    told = apply.informed(plan, frozen, state)
    loss = lambda p, example, key: method.loss(p, told, example, key)[0]
    call = lambda batch, mask: apply.sums(plan, loss, params, batch, KEYS, mask, state)
    return jax.jit(call, compiler_options=QUICK)


def flat(tree):
    leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("clipping", ["vmap", "fast"])
def test_adding_anybody_moves_the_sum_by_c_and_each_answer_by_its_sensitivity(name, clipping):
    (query,) = clip_rule(name, CONFIGS[name]).queries
    for place, size in enumerate([1e-30, 1.0, 1e4, 1e30, np.nan, np.inf]):
        wild = BATCH | {"x": BATCH["x"].at[place].multiply(size)}
        others = jnp.arange(N) != place
        without, with_it = (summed(name, clipping)(wild, others | there) for there in (False, True))
        assert np.linalg.norm(flat(with_it.grads) - flat(without.grads)) <= C * (1 + 1e-6)
        moved = np.linalg.norm(flat(with_it.answers) - flat(without.answers))
        assert moved <= query.sensitivity * (1 + 1e-6)
        if not np.isfinite(size):
            assert moved == 0


def test_answers_are_the_counts_and_the_clipped_losses_without_weights_of_each_group():
    params, frozen = PLAIN.init(jax.random.key(0), SPEC)
    losses = [
        float(PLAIN.loss(params, frozen, jax.tree.map(lambda a, i=i: a[i], BATCH), KEYS[i])[0])
        for i in range(N)
    ]
    assert max(losses) > M  # one of them is clipped
    parts = np.clip(losses, 0, M) / M
    found = summed("group_dro", "vmap")(BATCH, jnp.ones(N, bool)).answers[group_losses.QUERY]
    wanted = [parts[g == NUMBERS].sum() for g in range(3)] + [3.0, 3.0, 3.0]
    np.testing.assert_allclose(found, wanted, rtol=2e-3)  # margins of the clip


@pytest.mark.parametrize("after_clip", [False, True])
def test_a_loss_that_is_not_finite_adds_nothing_though_its_gradient_is_finite(after_clip):
    config = dataclasses.replace(CONFIGS["group_dro"], after_clip=after_clip)
    rule, losses = clip_rule("group_dro", config), jnp.array([np.inf, -np.inf, np.nan, M / 2])
    plan, groups = plan_of(1.0, rule=rule, queries=priced(rule, 1.0)), jnp.array([0, 1, 2, 0])
    units = (jnp.ones(4), losses, groups)
    found = apply._answers(plan, rule, units, jnp.ones(4, bool), rule.init())
    wanted = [0.5, 0, 0, 1, 0, 0]
    np.testing.assert_allclose(found[group_losses.QUERY], wanted, rtol=2e-3)


def test_counts_are_of_cells_of_label_and_group_and_the_unknown_are_in_none():
    found = summed("noisy_counts", "vmap")(BATCH, jnp.ones(N, bool)).answers[cell_counts.QUERY]
    positive, asked = np.asarray(BATCH["label"][:, 0]), np.asarray(BATCH["label_mask"][:, 0])
    wanted = np.zeros(4)
    for group, label, was_asked in zip(NUMBERS, positive, asked, strict=True):
        if group < 2 and was_asked and np.isfinite(label):
            wanted[2 * group + int(label)] += 1
    assert 0 < wanted.sum() < N
    np.testing.assert_allclose(found, wanted, rtol=2e-3)


def test_weights_follow_exponentiated_gradients_of_the_mean_losses():
    """Without noise: log q_g grows by rate x mean loss / M, and a weight is q_g / share_g."""
    rule = clip_rule("group_dro", dataclasses.replace(CONFIGS["group_dro"], memory=0.0))
    state, share = rule.init(), np.array([0.6, 0.3, 0.1])
    np.testing.assert_array_equal(rule.method_inputs(state)[group_losses.INPUT], 1.0)
    loss, log_q = np.array([0.2, 0.5, 0.9]), np.zeros(3)
    for _ in range(5):
        noisy = jnp.asarray(np.concatenate([share * loss, share]) * 40, jnp.float32)
        state = rule.update(state, {group_losses.QUERY: noisy}, 40)
        log_q += 0.3 * loss
    q = np.exp(log_q) / np.exp(log_q).sum()
    np.testing.assert_allclose(rule.method_inputs(state)[group_losses.INPUT], q / share, rtol=1e-5)


def test_noise_on_shares_falls_as_draws_add_up():
    rule = clip_rule("noisy_counts", CONFIGS["noisy_counts"])
    rng, state = np.random.default_rng(0), rule.init()
    counts = np.array([40.0, 30.0, 20.0, 10.0])
    for _ in range(400):
        noisy = jnp.asarray(counts + rng.normal(0, 30, 4), jnp.float32)
        state = rule.update(state, {cell_counts.QUERY: noisy}, 100)
    weights = rule.method_inputs(state)[cell_counts.INPUT]
    np.testing.assert_allclose(weights, [*(25 / counts), 1.0], rtol=0.4)
    assert float(weights[0]) < float(weights[1]) < float(weights[2]) < float(weights[3])


@pytest.mark.parametrize("name", CONFIGS)
def test_whatever_was_answered_the_weights_are_finite_positive_and_bounded(name):
    rule = clip_rule(name, CONFIGS[name])
    (query,) = rule.queries
    for size in (0.0, -1e6, 1e6, 1e30):
        state = rule.init()
        for _ in range(3):
            noisy = jnp.full(query.entries, size, jnp.float32)
            state = rule.update(state, {query.name: noisy}, 10)
        (weights,) = rule.method_inputs(state).values()
        assert np.isfinite(weights).all() and (weights > 0).all() and (weights <= 20).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_query_and_gradient_are_one_release_at_the_price_of_the_budget(name):
    rule = clip_rule(name, CONFIGS[name])
    plan = make_plan(
        PrivacyConfig(epsilon=2.0), steps=10, expected_batch_size=10, public_size=100, rule=rule
    )
    plain = make_plan(PrivacyConfig(epsilon=2.0), steps=10, expected_batch_size=10, public_size=100)
    share = rule.queries[0].share
    assert plan.epsilon == pytest.approx(plain.epsilon, rel=1e-6) and plan.epsilon <= 2.0
    assert plan.noise_multiplier == pytest.approx(plain.noise_multiplier / np.sqrt(1 - share))
    assert plan.joint_noise_multiplier >= plain.noise_multiplier * (1 - 1e-12)


def test_a_simulated_step_leaks_no_more_than_the_accountant_says():
    """Monte Carlo of the privacy loss of (gradient, counts) together against the closed form."""
    rule, q, eps = clip_rule("noisy_counts", CONFIGS["noisy_counts"]), 0.2, 0.8
    plan = plan_with("noisy_counts", sigma=1 / np.sqrt(1 - 0.1))
    (query,) = plan.queries
    shift = np.array([C / plan.noise_stddev(), rule.queries[0].sensitivity / query.noise_stddev])
    rng, count = np.random.default_rng(1), 400_000
    there = rng.random(count) < q
    seen = rng.normal(size=(count, 2)) + there[:, None] * shift
    ratio = np.exp(seen @ shift - shift @ shift / 2)
    loss = np.log(1 - q + q * ratio)
    delta = np.maximum(0, 1 - np.exp(eps - loss))
    exact = accounting.one_step_delta(q, plan.joint_noise_multiplier, eps)
    assert abs(delta.mean() - exact) < 4 * delta.std() / np.sqrt(count)
    alone = accounting.one_step_delta(q, plan.noise_multiplier, eps)
    assert exact > 1.2 * alone  # two events on one draw would have been told apart


def test_rates_that_are_not_those_of_the_config_are_found():
    config = {"mitigation": {"name": "upsampling", "factors": (3.0, 0.5)}}
    rows = [{"sampling_prob": rate} for rate in (0.1, 0.1 * 3.0, 0.1 * 0.5)]
    statement = {"sampling_prob": 0.1, "grade": "private", "group_sampling": rows}
    assert rate_faults(statement, config) == [] == rate_faults(statement, {})
    for wrong in (rows[:2], [rows[0], rows[2], rows[1]], []):
        (said,) = rate_faults(statement | {"group_sampling": wrong}, config)
        assert "and the config asks for" in said


def test_the_verifier_knows_the_query_of_every_mitigation():
    made = CASES | CLIPS | {"group_dro": dataclasses.replace(CASES["group_dro"], private=True)}
    assert made.keys() == MITIGATIONS.keys() >= ASKED.keys()
    for name, config in made.items():
        rule = clip_rule(name, config)
        wanted = [(q.name, q.sensitivity) for q in rule.queries] if rule else []
        asked = ASKED.get(name)
        assert wanted == ([] if asked is None else [asked[:2]])
        fields = {field.name: field.default for field in dataclasses.fields(config)}
        assert fields.get("query_share") == (asked and asked.share)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_rule_tells_the_loss_is_hidden_from_what_prepares_an_image(name):
    """A feature extractor takes what is frozen as its variables, and would refuse more."""
    seen = PLAIN._replace(prepare=lambda frozen, raw: dict(frozen))
    method = mitigated(name, CONFIGS[name], seen)
    told = clip_rule(name, CONFIGS[name]).method_inputs(state_of(name))
    assert method.prepare({"shift": 2, **told}, {}) == {"shift": 2}
    assert mitigated(name, CONFIGS[name], PLAIN).prepare is None
