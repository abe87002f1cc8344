"""Side queries of a draw: one event with the gradient sum, priced, stated and verified."""

import dataclasses
import math

import pytest

from jaxfair.errors import InputError
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.privacy.queries import GRADIENT_SUM, Query, gradient_multiplier, joint
from tests.privacy.toy import plan_of

COUNTS = Query("group_counts", sensitivity=1.0, noise_multiplier=12.0)
LOSSES = Query("group_losses", sensitivity=0.25, noise_multiplier=9.0)
SIZES = {"steps": 50, "expected_batch_size": 10, "public_size": 100}


@pytest.fixture(scope="module")
def plans():
    """The plan without, and with two side queries."""
    config = PrivacyConfig(epsilon=2.0)
    return make_plan(config, **SIZES), make_plan(config, **SIZES, queries=(COUNTS, LOSSES))


def test_the_joint_release_keeps_the_budget_and_the_gradient_gets_more_noise(plans):
    alone, both = plans
    assert both.joint_noise_multiplier == pytest.approx(alone.noise_multiplier, rel=1e-9)
    assert both.joint_noise_multiplier >= alone.noise_multiplier
    assert both.noise_multiplier > alone.noise_multiplier
    assert both.epsilon == accounting.epsilon([both.event(50)], both.delta) <= 2.0
    assert both.noise_stddev() == both.noise_multiplier * both.l2_clip_norm


def test_the_squares_of_inverse_multipliers_add_up(plans):
    _, both = plans
    multipliers = (both.noise_multiplier, 12.0, 9.0)
    total = math.fsum(sigma**-2 for sigma in multipliers)
    assert both.joint_noise_multiplier == pytest.approx(total**-0.5)


def test_the_sensitivity_of_a_query_is_in_its_multiplier_and_not_counted_twice():
    small, large = (Query("q", s, 2.0) for s in (0.01, 100.0))
    assert joint([small]) == pytest.approx(2.0) and joint([large]) == pytest.approx(2.0)
    assert (small.noise_stddev, large.noise_stddev) == (0.02, 200.0)


def test_one_draw_with_side_queries_costs_what_the_joint_event_costs(tmp_path):
    plan = plan_of(1.0, prob=0.01, budget=9.0, queries=(Query("losses", 3.0, 1.0),))
    ledger = plan.open_ledger(tmp_path / "ledger.jsonl")
    spent = plan.charge(ledger, stage="t", population="p", draws="d", first_step=0, steps=1000)
    assert spent == pytest.approx(4.48, abs=0.005)
    assert spent == pytest.approx(accounting.epsilon([Event(0.01, 2**-0.5, 1000)], 1e-5), rel=1e-6)


def test_the_statement_lists_all_queries_with_the_gradient_sum_first(tmp_path):
    plan = plan_of(3.0, prob=0.1, queries=(COUNTS,))
    ledger = plan.open_ledger(tmp_path / "ledger.jsonl")
    plan.charge(ledger, stage="t", population="p", draws="d", first_step=0, steps=4)
    statement = plan.statement(ledger, 4)
    assert [query["name"] for query in statement["queries"]] == [GRADIENT_SUM, "group_counts"]
    assert statement["queries"][0] == {
        "name": GRADIENT_SUM, "sensitivity": 0.5, "noise_multiplier": 3.0, "noise_stddev": 1.5,
    }  # fmt: skip
    assert statement["noise_multiplier"] == 3.0
    assert statement["joint_noise_multiplier"] == plan.joint_noise_multiplier < 3.0
    assert statement["events"][0]["noise_multiplier"] == plan.joint_noise_multiplier


def test_without_side_queries_the_joint_multiplier_is_the_gradients_own_bit_by_bit(plans):
    alone, _ = plans
    assert alone.joint_noise_multiplier == alone.noise_multiplier
    assert gradient_multiplier(1.2345, ()) == 1.2345
    assert alone.event(3) == Event(0.1, alone.noise_multiplier, 3)


def test_side_queries_that_alone_exceed_the_budget_are_refused():
    loud = Query("group_losses", sensitivity=1.0, noise_multiplier=0.5)
    with pytest.raises(InputError, match=r"\(group_losses\).* 0\.5.*more noise.*dp\.epsilon"):
        make_plan(PrivacyConfig(epsilon=2.0), **SIZES, queries=(loud,))


@pytest.mark.parametrize("names", [("a", "a"), (GRADIENT_SUM,)])
def test_two_queries_of_one_name_are_refused(names):
    with pytest.raises(InputError, match=f"are named '{names[-1]}'"):
        plan_of(1.0, queries=tuple(Query(name, 1.0, 9.0) for name in names))


@pytest.mark.parametrize("field", ["sensitivity", "noise_multiplier"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_query_with_a_number_that_is_not_positive_is_refused(field, value):
    with pytest.raises(InputError, match=f"{field} {value!r}; it must be positive"):
        dataclasses.replace(COUNTS, **{field: value})


def test_a_query_without_a_name_is_refused():
    with pytest.raises(InputError, match="has no name"):
        Query("", 1.0, 1.0)


def test_a_plain_plan_lists_no_noisy_query(tmp_path):
    plan = make_plan(PrivacyConfig(enabled=False), **SIZES, queries=(COUNTS,))
    statement = plan.statement(plan.open_ledger(tmp_path / "ledger.jsonl"), 50)
    assert plan.queries == (COUNTS,)
    assert statement["queries"] == [] and statement["joint_noise_multiplier"] is None
