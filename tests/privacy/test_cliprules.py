"""Each clip rule by itself: its bound for every norm, group and state, and what its state does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.privacy.cliprules import apply
from jaxfair.privacy.cliprules.base import SideQuery, ordinary, priced
from jaxfair.privacy.cliprules.bounded import bounded_clip
from jaxfair.privacy.cliprules.by_group import bounds_from_counts, group_clip
from jaxfair.privacy.cliprules.global_adapt import global_clip
from jaxfair.privacy.cliprules.normalised import normalised_clip
from jaxfair.privacy.cliprules.quantile import QUERY, RANGE, quantile_clip
from jaxfair.privacy.cliprules.weighted import weights_after_clip
from jaxfair.privacy.sums import clipping, rounding
from tests.privacy.ruled import MADE, plan_with, rule_of

C, BATCH, M, STEPS = 0.5, 4, 120, 4
NAMES = [*MADE, "lying"]
WILD = np.array([0, 1e-45, 1e-38, 1e-10, 0.5, 1, 1e10, 3e38, np.inf, np.nan], np.float32)


@functools.cache
def compiled(name):
    """`(noisy, norms, groups, mask) -> scales, norms in C, factors, answers, their sums, rescale`.

    Factors and answers as the rule gives them, and as the step cuts them.
    """
    plan = plan_with(rule_of(name))
    rule, strict = plan.rule, clipping.strict_bound(rounding.bound(C, plan.max_draw))

    def all_of(noisy, norms, groups, mask):
        state = apply.first_state(plan)
        for row in noisy if rule.update else ():
            state = rule.update(state, {q.name: row[: q.entries] for q in rule.queries}, BATCH)
        counted = mask & jnp.isfinite(norms)
        relative = apply._relative(norms, counted, strict)
        units = (relative, 0 * relative, groups)
        told = apply._one_by_one(rule.answers, state)(*units) if rule.answers else {}
        one = lambda i: apply._answers(plan, rule, units, counted & (jnp.arange(M) == i), state)
        return (
            apply._scales(rule, norms, mask, strict, groups, state),
            relative,
            rule.factor(relative, groups, state),
            told,
            jax.vmap(one)(jnp.arange(M)),
            jnp.float32(1) if rule.rescale is None else rule.rescale(state),
        )

    return rule, jax.jit(all_of)


def drawn(seed):
    """Noisy answers with tails far beyond any noise, and units of wild norms and all groups."""
    rng = np.random.default_rng(seed)
    noisy = rng.standard_cauchy((STEPS, 8)) * 10.0 ** rng.integers(-1, 30, (STEPS, 1))
    norms = np.where(rng.random(M) < 0.5, rng.choice(WILD, M), 10.0 ** rng.uniform(-30, 30, M))
    return (
        noisy.astype(np.float32), norms.astype(np.float32),
        rng.integers(-1, 4, M).astype(np.int32), rng.random(M) < 0.9,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_for_every_norm_group_and_state_no_unit_counts_for_more_than_c_nor_an_answer(name):
    rule, call = compiled(name)
    for seed in range(20):
        noisy, norms, groups, mask = drawn(seed)
        found = jax.tree.map(lambda a: np.asarray(a, np.float64), call(noisy, norms, groups, mask))
        scales, relative, own, told, sums, rescale = found
        counted, norms = mask & np.isfinite(norms), norms.astype(np.float64)
        assert np.isfinite(scales).all() and (scales >= 0).all() and not scales[~counted].any()
        assert (scales[counted] * norms[counted] <= C).all()
        for query in rule.queries:
            each = np.linalg.norm(sums[query.name], axis=1)
            assert (each <= query.sensitivity).all() and not each[~counted].any()
        if name == "lying":  # whose own numbers hold nothing
            continue
        assert (own * relative <= 1 + 1e-6).all() and (own >= 0).all() and 0 < rescale < np.inf
        for query in rule.queries:
            assert (np.linalg.norm(told[query.name], axis=1) <= query.sensitivity).all()


def trained(rule, norms, steps, key="threshold", groups=None):
    """The state after steps without noise in which units of these norms take part."""
    groups = np.full(len(norms), -1, np.int32) if groups is None else groups

    def step(state, _):
        told = rule.answers(norms, 0 * norms, groups, state)
        sums = {name: jnp.sum(rows, axis=0) for name, rows in told.items()}
        return rule.update(state, sums, len(norms)), None

    return jax.jit(lambda s: jax.lax.scan(step, s, None, length=steps)[0])(rule.init())[key]


LOGNORMAL = np.exp(np.random.default_rng(0).normal(size=501)).astype(np.float32)


@pytest.mark.parametrize("name", ["quantile_clip", "soft_clip"])
def test_an_adaptive_clip_comes_to_the_quantile_that_was_asked(name):
    found = trained(MADE[name](), LOGNORMAL, 400)
    assert abs(float(found) / np.quantile(LOGNORMAL, 0.6) - 1) < 0.02


def test_the_update_is_that_of_the_paper():
    rule = quantile_clip(quantile=0.6, rate=0.3, first=2.0, query_share=0.1)
    after = rule.update(rule.init(), {QUERY: jnp.array([1.5])}, 10)["threshold"]
    assert float(after) == pytest.approx(2 * np.exp(-0.3 * (0.65 - 0.6)), rel=1e-6)
    for noisy, end in ((-1e30, RANGE[1]), (1e30, RANGE[0])):
        assert float(rule.update(rule.init(), {QUERY: jnp.array([noisy])}, 10)["threshold"]) == (
            pytest.approx(end)
        )


def test_a_bounded_clip_stops_at_its_bound():
    assert float(trained(MADE["bounded_clip"](), LOGNORMAL / 100, 400)) == pytest.approx(0.4)
    assert float(trained(MADE["bounded_clip"](), LOGNORMAL, 400)) > 1


def test_the_bound_of_global_scaling_leaves_about_its_rate_above():
    bound = float(trained(MADE["global_clip"](), 50 * LOGNORMAL, 600, key="bound"))
    assert abs(np.mean(0.7 * bound < 50 * LOGNORMAL) - 0.3) < 0.03
    assert float(trained(MADE["global_clip"](), LOGNORMAL / 100, 600, key="bound")) == 1


def test_global_scaling_keeps_the_proportions_of_all_below_its_bound():
    rule = MADE["global_clip"]()
    norms = jnp.array([0.1, 1.0, 2.9, 3.0, 6.0])
    kept = norms * rule.factor(norms, jnp.zeros(5, int), rule.init())
    np.testing.assert_allclose(kept, [0.1 / 3, 1 / 3, 2.9 / 3, 1, 1], rtol=1e-6)


def test_clips_of_groups_follow_their_shares_of_clipped_gradients():
    norms = np.where(np.arange(60) % 6 < 3, 0.5, 2.0).astype(np.float32)
    groups = np.array([0, 1, -1, 1, 1, 0])[np.arange(60) % 6].astype(np.int32)
    counts = np.asarray(trained(MADE["group_clip"](), norms, 60, "counts", groups))
    np.testing.assert_allclose(counts, [[1 / 6, 1 / 6], [1 / 6, 2 / 6], [0, 0]], atol=1e-5)
    shares = np.array([1 / 2, 2 / 3, 0])
    np.testing.assert_allclose(bounds_from_counts(counts), 1 + shares / shares.mean(), rtol=1e-4)


def test_negative_counts_are_zero_and_nobody_counted_means_the_ordinary_clip():
    rule = MADE["group_clip"]()
    name = rule.queries[0].name
    after = rule.update(rule.init(), {name: jnp.array([-5.0, -3, 2, 8, 4, -9])}, 10)["counts"]
    np.testing.assert_allclose(after, 0.5 * np.array([[0, 0], [0.2, 0.8], [0.4, 0]]), rtol=1e-6)
    np.testing.assert_allclose(bounds_from_counts(after), [1, 4, 1], rtol=1e-5)
    norms, groups = jnp.array([0.5, 2.0]), jnp.array([0, -1])
    np.testing.assert_allclose(rule.factor(norms, groups, rule.init()), [1, 0.5])


def test_the_noise_of_group_clips_is_that_of_the_largest_of_all_groups_drawn_or_not():
    rule = MADE["group_clip"]()
    state = {"counts": jnp.array([[9.0, 1.0], [1.0, 9.0], [5.0, 5.0]])}
    bounds = np.asarray(bounds_from_counts(state["counts"]))
    norms, groups = jnp.array([100.0, 0.5, 100.0]), jnp.array([0, 0, -1])
    kept = norms * rule.factor(norms, groups, state) * rule.rescale(state)
    np.testing.assert_allclose(kept, [bounds[0], 0.5, 1.0], rtol=1e-5)
    assert float(rule.rescale(state)) == bounds.max() == bounds[1]


def test_a_soft_clip_keeps_order_where_a_hard_one_makes_all_equal():
    rule, norms = MADE["soft_clip"](), jnp.array([0.0, 1e-6, 0.5, 2.0, 4.0, 8.0])
    kept = np.asarray(norms * rule.factor(norms, None, rule.init()))
    np.testing.assert_allclose(kept, np.tanh(np.asarray(norms, np.float64) / 2), rtol=1e-5)
    assert (np.diff(kept) > 0).all()


def test_normalised_gradients_have_nearly_one_length():
    rule, norms = MADE["normalised_clip"](), jnp.array([0.0, 0.05, 1.0, 1e6])
    kept = norms * rule.factor(norms, None, {})
    np.testing.assert_allclose(kept, [0, 0.5, 1 / 1.05, 1], rtol=1e-6)


def test_a_weight_comes_after_the_clip_and_the_unknown_weigh_one():
    rule, norms = MADE["weights_after_clip"](), jnp.full(4, 5.0)
    kept = norms * rule.factor(norms, jnp.array([0, 1, 2, -1]), {}) * rule.rescale({})
    np.testing.assert_allclose(kept, [0.2, 3.0, 1.5, 1.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "noisy", "wanted"),
    [
        ("cell_counts, after", [6.0, 2.0, -1.0], [4 / 9, 4 / 3, 4.0, 1.0]),
        ("group_losses, after", [0.0] * 4 + [6.0, 2.0, 1.0, 1.0], [0.25 / share for share in
         (0.6, 0.2, 0.1, 0.1)]),
    ],
)  # fmt: skip
def test_weights_that_were_bought_may_come_after_the_clip_at_the_noise_of_the_largest(
    name, noisy, wanted
):
    rule, before = MADE[name](), MADE[name.removesuffix(", after")]()
    answer = {rule.queries[0].name: jnp.asarray(noisy, jnp.float32)}
    state = rule.update(rule.init(), answer, 10)
    norms, groups = jnp.full(4, 5.0), jnp.array([0, 1, 2, -1])
    kept = norms * rule.factor(norms, groups, state) * rule.rescale(state)
    np.testing.assert_allclose(kept, wanted, rtol=1e-5)
    assert float(rule.rescale(state)) == pytest.approx(max(wanted), rel=1e-5)
    assert rule.method_inputs is None, "a loss that were weighed too would count twice"
    (told,) = before.method_inputs(before.update(before.init(), answer, 10)).values()
    np.testing.assert_allclose(told, wanted, rtol=1e-5)


def test_losses_are_told_as_they_are_where_the_loss_has_no_weight():
    rule = MADE["group_losses, after"]()
    state = rule.update(rule.init(), {rule.queries[0].name: jnp.arange(8.0)}, 10)
    losses, zeros = jnp.array([1.0]), jnp.zeros(1)
    (told,) = rule.answers(zeros, losses, jnp.array([1]), state).values()
    np.testing.assert_allclose(told, [[0, 0.5, 0, 0, 0, 1, 0, 0]])


def test_without_a_rule_the_factor_is_the_ordinary_clip():
    np.testing.assert_allclose(ordinary(jnp.array([0.25, 1.0, 4.0]), None, {}), [1, 1, 0.25])


SHARED = {"rate": 0.3, "query_share": 0.1}


@pytest.mark.parametrize(
    ("make", "fields", "sentence"),
    [
        (quantile_clip, SHARED | {"quantile": 1.0}, "mitigation.quantile is 1.0; it must be in"),
        (quantile_clip, SHARED | {"quantile": 0.5, "rate": -1.0}, "mitigation.rate is -1.0; it"),
        (quantile_clip, SHARED | {"quantile": 0.5, "first": 1e9}, "mitigation.first is 1000000000"),
        (bounded_clip, SHARED | {"quantile": 0.5, "lowest": 2.0}, "it must be in [2, 10000]"),
        (global_clip, SHARED | {"first": 0.5}, "scales gradients down"),
        (group_clip, {"groups": 3, "group": None, "memory": 1.0, "query_share": 0.1}, "memory is"),
        (normalised_clip, {"gamma": 0.0}, "mitigation.gamma is 0.0"),
        (weights_after_clip, {"weights": (), "group": None}, "give a weight for each group"),
    ],
)
def test_numbers_that_cannot_be_end_in_one_sentence(make, fields, sentence):
    with pytest.raises(InputError) as caught:
        make(**fields)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("shares", [(0.0,), (1.0,), (0.5, 0.5), (float("nan"),)])
def test_shares_that_leave_the_gradient_nothing_are_refused(shares):
    queries = tuple(SideQuery(str(i), 1.0, 1, share) for i, share in enumerate(shares))
    rule = MADE["quantile_clip"]()._replace(queries=queries)
    with pytest.raises(InputError, match=r"less than 1 together \(mitigation.query_share\)"):
        priced(rule, 1.0)
