"""Edges of clip rules: what one unit decides, what is priced, and which noise an answer gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.privacy import noise
from jaxfair.privacy.cliprules import apply
from jaxfair.privacy.cliprules.by_group import bounds_from_counts
from jaxfair.privacy.cliprules.normalised import normalised_clip
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from tests.engine import toy as toy_run
from tests.privacy.ruled import (
    MADE,
    bench_of,
    grouped_examples,
    lying,
    noisy_answers,
    plan_with,
    summed,
    taken_up,
)
from tests.privacy.test_ruled_step import check_noise, keeping
from tests.privacy.toy import C, flat64, without

GROUPS = [0, 1, 2, 1, 0, 2]
EXAMPLES = grouped_examples([1.0, 30.0, 4.0, 1e30, np.nan, 9.0], GROUPS)
NORMS = jnp.array([0.0, 1e-6, 0.03, 0.5, 1.0, 4.0, 1e30])


def moved(rule, examples=EXAMPLES):
    """By how much each unit moves (gradient sum, answers) in the compiled step."""
    bench = bench_of(rule)
    full = summed(bench, examples)
    rest = [summed(bench, without(examples, place)) for place in range(len(GROUPS))]
    return np.array([[np.linalg.norm(a - b) for a, b in zip(full, less)] for less in rest])


def kept(rule, groups=None, state=None):
    """Norms after the rule's own factors, before the step cuts them."""
    groups = jnp.zeros(len(NORMS), jnp.int32) if groups is None else groups
    return NORMS * rule.factor(NORMS, groups, rule.init() if state is None else state)


def test_edge_140_a_factor_is_cut_to_the_clip_whatever_the_rule_says():
    assert moved(lying())[:, 0].max() <= C * (1 + 1e-6)


def test_edge_141_an_answer_is_cut_to_its_sensitivity_and_who_is_not_finite_gives_none():
    by_answers = moved(lying())[:, 1]
    assert by_answers.max() <= 0.5 * (1 + 1e-6) and by_answers[4] == 0


def test_edge_142_a_draw_is_one_event_at_the_joint_noise_of_all_that_it_is_asked(tmp_path):
    sizes = {"steps": 1000, "expected_batch_size": 100, "public_size": 10_000}
    rule = MADE["quantile_clip"]()
    rule = rule._replace(queries=(rule.queries[0]._replace(share=0.5),))
    plan = make_plan(PrivacyConfig(epsilon=4.48), **sizes, rule=rule)
    ledger = plan.open_ledger(tmp_path / "ledger.jsonl")
    given = {"stage": "t", "population": "p", "draws": "d", "first_step": 0, "steps": 1000}
    spent = plan.charge(ledger, **given)
    assert len(ledger) == 1 and spent == pytest.approx(4.48, abs=0.01)
    sigmas = [plan.noise_multiplier, plan.queries[0].noise_multiplier]
    np.testing.assert_allclose(sigmas, 1.0, atol=2e-3)  # and two events would seem to cost 2.59
    assert plan.joint_noise_multiplier == pytest.approx(2**-0.5, abs=2e-3)


def test_edge_143_no_answer_shares_the_noise_of_another_or_of_the_gradient():
    given = bench_of(keeping()).feed(EXAMPLES).randomness(0)
    words = np.concatenate([given.noise, given.answers]).reshape(-1, 2)
    assert len(np.unique(words, axis=0)) == len(words)


def test_edge_144_an_answer_has_its_noise_and_once_in_a_draw_of_many_chunks():
    bench = bench_of(keeping(), sigma=1.0, chunk=4)
    source = bench.feed(grouped_examples([1.0] * 11, [0] * 11))
    state, _ = bench.train(source)
    check_noise(state.rule_state, bench.plan)
    later, _ = bench.train(source, first=1)
    assert abs(np.corrcoef(later.rule_state["a"], state.rule_state["a"])[0, 1]) < 0.1


def test_edge_145_a_state_follows_from_the_noisy_answers_and_from_nothing_else():
    """Where the noise cancels the answers, the data leave no trace in the state."""
    bench = bench_of(MADE["group_clip"]())
    state, _ = bench.train(bench.feed(EXAMPLES))
    name = bench.plan.rule.queries[0].name
    sums = {name: jnp.asarray(summed(bench, EXAMPLES)[1], jnp.float32)}
    truth = bench.plan.rule.update(bench.plan.rule.init(), noisy_answers(bench.plan, sums, 0), 4)
    np.testing.assert_allclose(flat64(state.rule_state), flat64(truth), rtol=1e-5)


def test_edge_146_no_units_factor_or_answer_depends_on_another_unit():
    rule = MADE["quantile_clip"]()
    crowd = rule._replace(
        factor=lambda norms, groups, state: 1 / (norms + jnp.mean(norms)),
        answers=lambda norms, *_: {rule.queries[0].name: 0.5 * jnp.sign(norms - jnp.mean(norms))[
            :, None]},
    )  # fmt: skip
    examples = grouped_examples([1.0, 3.0, 4.0, 2.0, 5.0, 1e4], GROUPS)
    changes = moved(crowd, examples)
    assert changes[:, 0].max() <= C * (1 + 1e-6) and not changes[:, 1].any()


def test_edge_147_a_gradient_whose_norm_underflows_is_not_blown_up():
    """Operands of 1e-20 and 1e-19: their product is no float32, and that times 1e37 is one."""
    rule = normalised_clip(gamma=1e-38)
    loss = lambda p, example, key: example["x"] @ p["w"] @ example["y"]
    rows = {"x": jnp.full((1, 20), 1e-20), "y": jnp.full((1, 20), 1e-19)}
    given = (loss, {"w": jnp.zeros((20, 20))}, rows, jax.random.split(jax.random.key(0), 1))
    for way in ("fast", "vmap"):
        plan = plan_with(rule, clipping=way)
        call = jax.jit(lambda plan=plan: apply.sums(plan, *given, jnp.ones(1, bool), {}).grads)
        assert np.linalg.norm(call()["w"]) <= C


def test_edge_148_what_is_multiplied_by_the_clip_is_the_sum_with_its_noise():
    bench, batch = bench_of(MADE["quantile_clip"](), sigma=3.0), 4
    source, begun = bench.feed(EXAMPLES), bench.start()
    z = float(bench.plan.rule.rescale(begun.rule_state))
    sums = summed(bench, EXAMPLES)[0]
    words, like = source.randomness(0).noise, jax.tree.map(jnp.zeros_like, begun.clipped_sum)
    drawn = flat64(noise.gaussian_like(like, jnp.asarray(words), bench.plan.noise_stddev()))
    state, _ = bench.train(source)
    assert z != 1 and bench.plan.noise_stddev() >= 3.0 * C
    np.testing.assert_allclose(flat64(state.opt_state) * batch, (sums + drawn) * z, atol=1e-5)


def test_edge_150_a_quantile_clip_divides_by_its_threshold_and_moves_towards_the_quantile():
    rule = MADE["quantile_clip"]()
    for z in (1e-4, 0.5, 100.0):
        assert kept(rule, state={"threshold": jnp.float32(z)}).max() <= 1 + 1e-6
    after = [
        float(rule.update(rule.init(), {rule.queries[0].name: jnp.array([b])}, 10)["threshold"])
        for b in (-5.0, 5.0)
    ]
    assert after[0] > 0.5 > after[1]


def test_edge_151_a_bounded_clip_is_never_below_its_bound():
    rule, state = MADE["bounded_clip"](), MADE["bounded_clip"]().init()
    for _ in range(20):
        state = rule.update(state, {rule.queries[0].name: jnp.array([50.0])}, 10)
    assert float(state["threshold"]) == pytest.approx(0.4)
    assert kept(rule, state=state).max() <= 1 + 1e-6


def test_edge_152_a_normalised_gradient_stays_below_the_clip_and_zero_stays_zero():
    found = kept(MADE["normalised_clip"]())
    assert np.isfinite(found).all() and found.max() < 1 + 1e-6 and found[0] == 0


def test_edge_153_global_scaling_keeps_all_within_the_clip_and_counts_by_the_public_batch():
    rule = MADE["global_clip"]()
    assert kept(rule).max() <= 1 + 1e-6
    name = rule.queries[0].name
    up = [float(rule.update(rule.init(), {name: jnp.array([8.0])}, b)["bound"]) for b in (10, 20)]
    np.testing.assert_allclose(up, 3 * np.exp([-0.3 + 0.8, -0.3 + 0.4]), rtol=1e-5)


def test_edge_154_group_clips_are_priced_at_the_largest_of_all_groups():
    """DPSGD-F of fair-dp took the largest of the groups that were drawn."""
    rule = MADE["group_clip"]()
    counts = jnp.array([[9.0, 1.0], [1.0, 9.0], [5.0, 5.0]])
    for group in (-1, 0, 1, 2):
        groups = jnp.full(len(NORMS), group)
        assert kept(rule, groups, {"counts": counts}).max() <= 1 + 1e-6
    assert bounds_from_counts(counts).max() <= 1 + 3
    after = rule.update(rule.init(), {rule.queries[0].name: jnp.full(6, -9.0)}, 10)["counts"]
    assert not np.asarray(after).any()


def test_edge_155_a_soft_clip_is_bounded_by_the_tangent_of_the_norm():
    rule = MADE["soft_clip"]()
    for z in (1e-4, 0.5, 100.0):
        found = np.asarray(kept(rule, state={"threshold": jnp.float32(z)}))
        assert found.max() <= 1 + 1e-6 and (np.diff(found) >= -1e-6).all()


def test_edge_156_weights_after_the_clip_are_priced_at_the_largest():
    rule = MADE["weights_after_clip"]()
    tops = [kept(rule, jnp.full(len(NORMS), g)).max() * rule.rescale({}) for g in (0, 1, 2, -1)]
    np.testing.assert_allclose(tops, [0.2, 3.0, 1.5, 1.0], rtol=1e-5)
    assert all(kept(rule, jnp.full(len(NORMS), g)).max() <= 1 + 1e-6 for g in (0, 1, 2, -1))


def test_edge_157_weights_of_noisy_counts_after_the_clip_are_divided_by_the_largest():
    rule, state = MADE["cell_counts, after"](), {"counts": jnp.array([9.0, 1.0, 5.0])}
    for group in (0, 1, 2, -1):
        assert kept(rule, jnp.full(len(NORMS), group), state).max() <= 1 + 1e-6
    assert float(rule.rescale(state)) == 4.0


def test_edge_158_a_patient_of_many_images_counts_once_in_sum_and_answers():
    """A step draws patients, and then one image of each: k images are no k counts."""
    bench = bench_of(MADE["cell_counts"]())
    examples = grouped_examples([1.0, 30.0, 4.0, 9.0, 7.0], [0, 1, 1, 1, 1])
    rows = [np.array([0]), np.array([1, 2, 3, 4])]
    whole, alone = (
        taken_up(bench, bench.feed(examples, rows=these, names=names))
        for these, names in ((rows, ["one", "many"]), (rows[:1], ["one"]))
    )
    assert np.linalg.norm(whole[0] - alone[0]) <= C * (1 + 1e-6)
    np.testing.assert_allclose(alone[1], [1, 0, 0], atol=1e-2)  # less by the clip's margin
    assert 0.9 < np.linalg.norm(whole[1] - alone[1]) <= bench.plan.rule.queries[0].sensitivity


def test_edge_159_the_state_of_a_rule_is_taken_up_again_by_a_resume(tmp_path):
    """A clip that began anew would be paid for like the old one, and be another one."""
    rule = MADE["quantile_clip"]()
    fields = {"plan": toy_run.plan_of({"rule": rule}, clipping="vmap"), "insecure_seed": 3}
    toy_run.started(tmp_path / "run", **fields)
    with toy_run.open_toy(tmp_path / "run", **fields) as trainer:
        assert trainer.step == 2
        assert float(trainer.state.rule_state["threshold"]) != rule.init()["threshold"]
