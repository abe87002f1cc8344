"""Clip rules in the compiled step: neighbours, devices, padding, noise, and which state is used."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxfair.engine.assembly import assemble
from jaxfair.errors import InputError
from jaxfair.privacy.cliprules import apply
from jaxfair.privacy.cliprules.base import ClipRule, SideQuery, ordinary
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.privacy.sums import rounding
from tests.privacy.ruled import (
    MADE,
    bench_of,
    grouped_examples,
    lying,
    noisy_answers,
    plan_with,
    rule_of,
    summed,
)
from tests.privacy.toy import SPEC, Bench, C, dense_params, flat64, method_of, without

SCALES = [0.01, 0.3, 1.0, 4.0, 30.0, 1e-30, 1e30, np.nan, np.inf, 0.0]
GROUPS = [0, 1, 2, -1, 0, 1, 2, 0, 1, 2]
EXAMPLES = grouped_examples(SCALES, GROUPS)
STATES = {
    "group_clip": {"counts": jnp.array([[9.0, 1.0], [1.0, 9.0], [5.0, 5.0]])},
    "quantile_clip": {"threshold": jnp.float32(3e-4)},
    "cell_counts, after": {"counts": jnp.array([9.0, 1.0, 5.0])},
    "group_losses, after": {
        "sums": jnp.array([[0.1, 0.2, 0.1, 0.0], [0.6, 0.2, 0.1, 0.1]]),
        "weight": jnp.float32(1.0),
        "log_q": jnp.log(jnp.array([0.2, 0.5, 0.2, 0.1])),
    },
}


OFTEN = ("group_clip", "soft_clip")
QUICK = [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in MADE]


@functools.cache
def chosen(name, clipping="vmap", devices=1):
    return bench_of(rule_of(name), clipping=clipping, devices=devices, microbatch=4 // devices or 1)


def check_neighbours(name, state=None, clipping="vmap"):
    """Each unit moves the gradient sum by at most C, and each answer by at most its sensitivity."""
    bench = chosen(name, clipping)
    full = summed(bench, EXAMPLES, state)
    moved = []
    for place in range(len(SCALES)):
        rest = summed(bench, without(EXAMPLES, place), state)
        moved.append([np.linalg.norm(a - b) for a, b in zip(full, rest)])
    assert np.isfinite(moved).all()
    by_grads, by_answers = np.array(moved).T
    limit = np.sqrt(sum(q.sensitivity**2 for q in bench.plan.rule.queries))
    assert by_grads.max() <= C * (1 + 1e-6) and by_answers.max() <= limit
    stddevs = [query.noise_stddev for query in bench.plan.queries]
    together = [(by_answers.max() / s) ** 2 for s in stddevs] + [(by_grads.max() / C) ** 2]
    priced = dataclasses.replace(bench.plan, noise_multiplier=1.0).joint_noise_multiplier
    assert sum(together) <= priced**-2 * (1 + 1e-5)
    return by_grads, by_answers


def test_one_unit_moves_gradients_and_answers_by_at_most_what_is_priced():
    by_grads, by_answers = check_neighbours("group_clip", STATES["group_clip"])
    assert by_grads.max() > 0.9 * C and by_answers.max() > 0.4
    assert not by_grads[7:9].any() and not by_answers[7:9].any()  # NaN and infinity


@pytest.mark.slow
@pytest.mark.parametrize("clipping", ["vmap", "fast"])
@pytest.mark.parametrize("name", MADE)
def test_that_holds_for_every_rule_and_both_ways(name, clipping):
    check_neighbours(name, STATES.get(name), clipping)


@functools.cache
def both_ways(name):
    """`(examples, mask, state) -> (Sums by vmap, Sums the fast way)`, compiled once."""
    rule = rule_of(name)
    loss = lambda p, example, key: method_of().loss(p, {}, example, key)[0]

    def call(examples, mask, state):
        keys = jax.random.split(jax.random.key(0), len(mask))
        given = (loss, dense_params(), examples, keys, mask, state)
        return [apply.sums(plan_with(rule, clipping=way), *given) for way in ("vmap", "fast")]

    return rule, jax.jit(call)


@pytest.mark.parametrize("name", QUICK)
def test_the_fast_sum_is_the_plain_one_by_loops_and_padding_is_exactly_zero(name):
    rule, call = both_ways(name)
    state, mask = STATES.get(name, rule.init()), np.arange(10) % 5 != 2
    plain, fast = call(EXAMPLES, mask, state)
    truth = looped(rule, mask, state)
    for found in (plain, fast):
        np.testing.assert_allclose(flat64(found.grads), truth, atol=2e-5 * np.abs(truth).max())
        for query in rule.queries:
            np.testing.assert_array_equal(found.answers[query.name], plain.answers[query.name])
    rows = lambda a: mask.reshape(-1, *[1] * (a.ndim - 1))
    padded = jax.tree.map(lambda a: np.where(rows(a), a, 77).astype(a.dtype), EXAMPLES)
    for one, two in zip(call(padded, mask, state), (plain, fast)):
        jax.tree.map(np.testing.assert_array_equal, one, two)
    for nothing in call(EXAMPLES, np.zeros(10, bool), state):
        assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(nothing))


def looped(rule, mask, state):
    """The slow truth: one gradient after the other, scaled by the rule in float64."""
    grad = jax.jit(jax.grad(lambda p, e: method_of().loss(p, {}, e, None)[0]))
    total, strict = 0.0, rounding.bound(C, plan_with(rule).max_draw) * (1 - 2.0**-12)
    for i in np.flatnonzero(mask & np.isfinite(SCALES)):
        g = flat64(grad(dense_params(), {name: a[i] for name, a in EXAMPLES.items()}))
        norm = np.linalg.norm(g)
        relative = jnp.asarray([min(norm / strict, 3e38)], jnp.float32)
        own = float(rule.factor(relative, jnp.asarray(GROUPS[i : i + 1]), state)[0])
        total = total + min(own, strict / max(norm, 1e-300)) * g
    return total


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_devices_change_neither_the_sum_nor_the_answers(devices):
    found = summed(chosen("group_clip", "fast", devices), EXAMPLES, STATES["group_clip"])
    alone = summed(chosen("group_clip"), EXAMPLES, STATES["group_clip"])
    np.testing.assert_allclose(found[0], alone[0], atol=1e-5)
    np.testing.assert_array_equal(found[1], alone[1])


def test_the_state_of_a_draw_is_that_of_the_noisy_answers_before_it():
    """Two steps in chunks, each beside a loop that makes the noise again from its keys."""
    bench, batch = bench_of(MADE["quantile_clip"]()), 4
    examples = grouped_examples([0.01, 0.3, 1.0, 4.0, 30.0] * 4, [0] * 20)
    source, state, truth = bench.feed(examples), bench.start(), bench.plan.rule.init()
    for number in range(2):
        sums = summed(bench, examples, truth)
        state, _ = bench.train(source, first=number, state=state)
        z = float(truth["threshold"])
        np.testing.assert_allclose(flat64(state.opt_state) * batch, sums[0] * z, rtol=2e-5)
        name = bench.plan.rule.queries[0].name
        noisy = noisy_answers(bench.plan, {name: jnp.asarray(sums[1], jnp.float32)}, number)
        truth = bench.plan.rule.update(truth, noisy, batch)
        assert float(truth["threshold"]) != z
        np.testing.assert_allclose(flat64(state.rule_state), flat64(truth), rtol=1e-6)
    assert not flat64([state.answers, state.answers_rest]).any()


def keeping():
    """Two large queries without an answer, whose noise the state keeps."""
    queries = (SideQuery("a", 0.5, 4000, 0.3), SideQuery("b", 20.0, 4000, 0.1))
    none = lambda norms, *_: {q.name: jnp.zeros((len(norms), q.entries)) for q in queries}
    init = lambda: {q.name: jnp.zeros(q.entries) for q in queries}
    return ClipRule("keeping", init, ordinary, queries, none, lambda state, noisy, batch: noisy)


def check_noise(seen, plan):
    """Both answers are white noise of their own deviation, and have nothing in common."""
    values = [np.asarray(seen[query.name], np.float64) for query in plan.queries]
    for value, query in zip(values, plan.queries):
        low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], len(value))
        assert low <= np.sum((value / query.noise_stddev) ** 2) <= high
    assert abs(np.corrcoef(values)[0, 1]) < 5 / len(values[0]) ** 0.5


def test_a_loss_is_that_of_its_own_unit_and_what_the_rule_tells_reaches_the_method():
    """An answer that is the loss, and a Method whose loss is multiplied by what it is told."""
    rule = ClipRule(
        "told",
        init=lambda: {"weight": jnp.float32(2.0)},
        factor=ordinary,
        queries=(SideQuery("loss", 1000.0, 1, 0.1),),
        answers=lambda norms, losses, groups, state: {"loss": losses[:, None]},
        update=lambda state, noisy, batch: {"weight": state["weight"] + 1},
        method_inputs=lambda state: {"weight": state["weight"]},
        reads_losses=True,
    )

    def loss(params, frozen, example, key):
        return frozen["weight"] * jnp.sum(params["w"]) * example["scale"], {}

    params = lambda: {"w": jnp.array([1.0, 2.0])}
    for way in ("vmap", "fast"):
        plan = plan_with(rule, 0.0, clipping=way, clip=1e6)
        bench = Bench(method_of(loss, params), plan, chunk=4)
        examples = grouped_examples([1.0, 5.0, np.nan], [0, 0, 0])
        for weight in (2.0, 3.0):
            sums = summed(bench, examples, {"weight": jnp.float32(weight)})
            np.testing.assert_allclose(sums[0], [6 * weight] * 2, rtol=1e-3)
            np.testing.assert_allclose(sums[1], [18 * weight], rtol=1e-3)
        state, _ = bench.train(bench.feed(examples))
        assert float(state.rule_state["weight"]) == 3.0


def test_a_rule_that_asks_what_the_plan_does_not_price_is_refused():
    rule = MADE["group_clip"]()
    with pytest.raises(InputError, match="'group_by_clipped_counts' with sensitivity"):
        dataclasses.replace(plan_with(None), rule=rule)


def test_a_rule_is_refused_in_one_sentence_without_privacy():
    sizes = {"steps": 4, "expected_batch_size": 4, "public_size": 100}
    plain = PrivacyConfig(enabled=False)
    for rule in (make() for make in MADE.values()):
        if rule.plain:
            continue
        said = f"The clip rule '{rule.name}' says how gradients are"
        with pytest.raises(InputError, match=said) as e:
            make_plan(plain, **sizes, rule=rule)
        assert "\n" not in str(e.value)
    rule = lying()._replace(plain=True)
    assert make_plan(plain, **sizes, rule=rule).queries == ()


def refused(rule, spec=SPEC, **fields):
    method, plan = method_of(), plan_with(rule)
    with pytest.raises(InputError) as caught:
        assemble(
            plan, method, None, spec=spec, variables=method.init(None, None), microbatch=4, **fields
        )
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rules_that_leak_or_have_other_shapes_are_refused():
    rule = MADE["quantile_clip"]()

    def prints(norms, groups, state):
        jax.debug.print("{}", norms)
        return norms

    assert "factor of the clip rule 'quantile_clip' uses debug" in refused(
        rule._replace(factor=prints)
    )
    assert "factor of the clip rule 'quantile_clip' gives" in refused(
        rule._replace(factor=lambda norms, groups, state: jnp.ones(()))
    )
    few = lambda norms, losses, groups, state: {"other": norms[:, None]}
    assert "answers of the clip rule" in refused(rule._replace(answers=few))
    assert "update of the clip rule" in refused(rule._replace(update=lambda s, n, b: n))
    assert "or none of the three" in refused(rule._replace(answers=None))
