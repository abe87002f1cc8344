"""Pieces joined wrongly by hand end in one sentence, or in a statement that says what was spent."""

import dataclasses

import pytest

from jaxfair.errors import InputError
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.ledger import Ledger, LedgerError
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.privacy.secret import insecure_secret
from tests.privacy.toy import earlier_of, plan_of

PLAN = plan_of(4.0, prob=0.1)


def about(**changes):
    return {"stage": "t", "population": "p", "draws": "d", "first_step": 0, "steps": 5} | changes


@pytest.fixture
def ledger(tmp_path):
    return PLAN.open_ledger(tmp_path / "ledger.jsonl")


def test_a_statement_over_steps_that_nobody_paid_for_is_refused(ledger):
    """Once it said epsilon 0.0 where 24.08 was spent."""
    with pytest.raises(InputError, match=r"over 100 steps.*step 0.*100 steps.*plan\.charge"):
        PLAN.statement(ledger, 100)
    PLAN.charge(ledger, **about())
    with pytest.raises(InputError, match=r"step 5.*\(1 steps are unpaid\)"):
        PLAN.statement(ledger, 6)
    assert PLAN.statement(ledger, 5)["epsilon"] == ledger.epsilon()


def test_a_gap_in_what_was_paid_is_found(ledger):
    PLAN.charge(ledger, **about())
    PLAN.charge(ledger, **about(first_step=6, steps=4))
    with pytest.raises(InputError, match="not paid for step 5"):
        PLAN.statement(ledger, 10)


def test_steps_paid_by_a_plan_with_more_noise_do_not_count(ledger):
    PLAN.charge(ledger, **about())
    with pytest.raises(InputError, match="step 0 of this plan"):
        plan_of(2.0, prob=0.1).statement(ledger, 5)
    with pytest.raises(InputError, match="step 0 of this plan"):
        plan_of(4.0, prob=0.5).statement(ledger, 5)


@pytest.mark.parametrize("other", [{"sigma": 2.0}, {"prob": 0.5}])
def test_a_plan_does_not_go_on_in_the_ledger_of_another(ledger, other):
    PLAN.charge(ledger, **about())
    wrong = plan_of(**({"sigma": 4.0, "prob": 0.1} | other))
    with pytest.raises(LedgerError, match=r"stage 't'.*opened for another plan"):
        wrong.charge(ledger, **about(first_step=5))
    assert len(ledger) == 1


@pytest.mark.parametrize("other", [{"budget": 80.0}, {"delta": 0.001}])
def test_a_ledger_of_another_budget_or_delta_is_refused(tmp_path, other):
    made = Ledger(tmp_path / "own.jsonl", **({"budget": 8.0, "delta": 1e-5} | other))
    with pytest.raises(LedgerError, match=r"this plan has 8\.0 at 1e-05.*open_ledger"):
        PLAN.charge(made, **about())
    assert len(made) == 0
    with pytest.raises(LedgerError, match="open_ledger"):
        PLAN.statement(made, 0)


def test_a_ledger_that_forgot_the_earlier_stages_is_refused(tmp_path, ledger):
    PLAN.charge(ledger, **about())
    second = dataclasses.replace(PLAN, earlier=earlier_of(ledger.entries))
    fresh = Ledger(tmp_path / "fresh.jsonl", budget=8.0, delta=1e-5)
    with pytest.raises(LedgerError, match="does not begin with the 1 lines"):
        second.charge(fresh, **about(draws="e"))


def test_earlier_stages_may_have_had_other_rates(tmp_path, ledger):
    PLAN.charge(ledger, **about())
    second = dataclasses.replace(plan_of(8.0, prob=0.2), earlier=earlier_of(ledger.entries))
    later = second.open_ledger(tmp_path / "later.jsonl")
    spent = second.charge(later, **about(draws="e"))
    both = [Event(0.1, 4.0, 5), Event(0.2, 8.0, 5)]
    assert second.statement(later, 5)["epsilon"] == spent == accounting.epsilon(both, 1e-5)


def test_another_population_in_one_run_is_refused(ledger):
    PLAN.charge(ledger, **about())
    with pytest.raises(LedgerError, match="population 'p', and now 'q'"):
        PLAN.charge(ledger, **about(first_step=5, population="q"))


def test_a_fresh_secret_beside_an_old_ledger_pays_again(ledger):
    first, fresh = insecure_secret(1), insecure_secret(2)
    once = PLAN.charge(ledger, **about(draws=first))
    assert PLAN.charge(ledger, **about(draws=first)) == once
    twice = PLAN.charge(ledger, **about(draws=fresh))
    assert twice == accounting.epsilon([PLAN.event(10)], PLAN.delta) > once
    assert PLAN.statement(ledger, 5)["epsilon"] == twice


def test_a_secret_pays_under_the_tag_that_the_engine_uses(ledger):
    secret = insecure_secret(1)
    PLAN.charge(ledger, **about(draws=secret))
    assert ledger.entries[0].draws == secret.tag("draws", "")
    PLAN.charge(ledger, **about(draws=secret.tag("draws", "")))
    assert len(ledger) == 1


def test_a_plain_plan_pays_nothing_and_states_any_number_of_steps(tmp_path):
    plan = make_plan(PrivacyConfig(enabled=False), steps=5, expected_batch_size=10, public_size=100)
    statement = plan.statement(plan.open_ledger(tmp_path / "none.jsonl"), 1000)
    assert (statement["steps"], statement["epsilon"]) == (1000, None)
