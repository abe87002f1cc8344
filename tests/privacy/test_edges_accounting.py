"""Sharp edges of the price: what is composed, under which relation, and what it may promise."""

import math

import pytest

from jaxfair.errors import InputError
from jaxfair.privacy import accounting, plan
from jaxfair.privacy.accounting import Event, epsilon, epsilon_rdp, joint_noise_multiplier
from jaxfair.privacy.ledger import Entry, LedgerError
from jaxfair.privacy.plan import PrivacyConfig
from tests.privacy.toy import plan_of


def charged(chosen, folder, **rates):
    """A ledger on which steps 0 to 9 of `chosen` are paid, and then whatever `rates` say."""
    ledger = chosen.open_ledger(folder / "ledger.jsonl")
    about = {"stage": "train", "population": "p", "draws": "tag", "first_step": 0, "steps": 10}
    chosen.charge(ledger, **about)
    if rates:
        plan_of(**rates).charge(ledger, **about)
    return ledger


def test_edge_23_the_relation_is_named_and_priced(tmp_path):
    event = Event(0.01, 1.0, 1000)
    assert epsilon([event], 1e-5, "add_or_remove_one") == pytest.approx(1.828244, abs=1e-6)
    assert epsilon([event], 1e-5, "replace_one") == pytest.approx(2.843446, abs=1e-6)
    with pytest.raises(KeyError):
        epsilon([event], 1e-5, "zero_out")
    chosen = plan_of(4.0, prob=0.1)
    assert chosen.statement(charged(chosen, tmp_path), 10)["relation"] == "add_or_remove_one"
    with pytest.raises(ValueError, match="replace_one"):
        plan_of(4.0, relation="replace_one")


def test_edge_26_group_statistics_of_a_draw_are_in_its_one_event(tmp_path):
    sigma = joint_noise_multiplier([(1.0, 1.0), (1.0, 1.0)])
    assert epsilon([Event(0.01, sigma, 1000)], 1e-5) == pytest.approx(4.48, abs=0.005)
    with pytest.raises(LedgerError, match="one event"):
        charged(plan_of(4.0, prob=0.1), tmp_path, sigma=8.0, prob=0.1)


def test_edge_28_the_choice_among_runs_is_priced_and_named(tmp_path):
    chosen = plan_of(4.0, prob=0.1, tuning_runs=5)
    statement = chosen.statement(charged(chosen, tmp_path), 10)
    assert statement["tuning"]["runs"] == 5
    five = epsilon([Event(0.1, 4.0, 50)], 1e-5)
    assert statement["tuning"]["epsilon"] == pytest.approx(five)
    assert statement["tuning"]["epsilon"] > statement["epsilon"]
    assert any("choice of this config" in text for text in statement["not_covered"])


def test_edge_35_a_changing_noise_level_is_composed_event_by_event(tmp_path):
    first, second = Event(0.1, 2.0, 50), Event(0.1, 4.0, 50)
    both = epsilon([first, second], 1e-5)
    assert epsilon([Event(0.1, 4.0, 100)], 1e-5) < both < epsilon([Event(0.1, 2.0, 100)], 1e-5)
    assert both > max(epsilon([first], 1e-5), epsilon([second], 1e-5))
    chosen = plan_of(2.0, prob=0.1)
    ledger = charged(chosen, tmp_path)
    ledger.charge(Entry("train", "p", "tag", 10, 10, 0.1, 4.0))
    heterogeneous = epsilon([Event(0.1, 2.0, 10), Event(0.1, 4.0, 10)], 1e-5)
    assert ledger.epsilon() == pytest.approx(heterogeneous)


def test_edge_36_the_price_is_the_known_answer_and_falls_with_noise():
    for q, sigma, steps, delta, rdp, pld in (
        (0.0025, 1.3, 6000, 1e-5, 0.724223, 0.640111),
        (0.01, 4.0, 10000, 1e-5, 1.035490, 0.946999),
        (1.0, 5.0, 100, 1e-6, 11.688627, 10.997151),
    ):
        event = Event(q, sigma, steps)
        assert epsilon([event], delta) == pytest.approx(pld, abs=1e-6)
        assert epsilon_rdp([event], delta) == pytest.approx(rdp, abs=1e-6)
        assert epsilon([event], delta) == epsilon([event], delta) <= epsilon_rdp([event], delta)
        assert epsilon([Event(q, 1.1 * sigma, steps)], delta) < pld
        assert epsilon([event], delta / 10) > pld


def test_edge_37_a_delta_that_allows_publishing_a_person_is_refused():
    """fair-uad-with-dp used delta = 1 / N."""
    make = lambda delta: plan.make_plan(
        PrivacyConfig(delta=delta, enabled=False), steps=1, expected_batch_size=1, public_size=5000
    )
    with pytest.raises(InputError, match=r"above 0\.1 / public_size"):
        make(1 / 5000)
    assert make(None).delta == 1e-5
    assert math.isclose(plan.delta_from_public_size(10**6), 1e-7)
    assert accounting.ACCOUNTANT["name"] == "pld"
