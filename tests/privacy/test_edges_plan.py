"""Sharp edges of what a plan promises about a draw, and of what a run writes down."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from jaxfair.errors import InputError
from jaxfair.privacy import accounting, release
from jaxfair.privacy.ledger import Ledger
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.privacy.queries import Query
from jaxfair.privacy.secret import insecure_secret
from jaxfair.run.log import MetricsLog
from tests.privacy.toy import plan_of

SECRET = insecure_secret(17)
ABOUT = {"stage": "t", "population": "p", "draws": "d", "first_step": 0}


def test_edge_43_the_size_of_a_draw_is_not_logged(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", after_step=0)
    with pytest.raises(release.ReleaseError, match="batch_size"):
        log.write(1, epsilon=0.5, batch_size=61)


def test_edge_44_the_time_of_a_step_is_not_logged(tmp_path):
    """221, 136 and 74 steps a second were seen for 2,000, 4,000 and 8,000 units."""
    log = MetricsLog(tmp_path / "metrics.jsonl", after_step=0)
    for name in ("steps_per_second", "seconds", "rate"):
        with pytest.raises(release.ReleaseError, match=name):
            log.write(1, epsilon=0.5, **{name: 2.0})


def test_edge_45_a_side_query_is_paid_for_with_the_gradient(tmp_path):
    config, sizes = PrivacyConfig(epsilon=1.0), {"expected_batch_size": 10, "public_size": 100}
    plan = make_plan(config, steps=5, **sizes, queries=(Query("losses", 1.0, 20.0),))
    ledger = plan.open_ledger(tmp_path / "ledger.jsonl")
    spent = plan.charge(ledger, **ABOUT, steps=5)
    together = (plan.noise_multiplier**-2 + 20.0**-2) ** -0.5
    assert spent == pytest.approx(accounting.epsilon([accounting.Event(0.1, together, 5)], 1e-5))
    assert plan.statement(ledger, 5)["joint_noise_multiplier"] == pytest.approx(together)
    assert spent <= 1.0


def test_edge_46_the_group_that_is_drawn_most_often_sets_the_price(tmp_path):
    plan = plan_of(4.0, prob=0.1, group_probs=(0.05, 0.3))
    ledger = plan.open_ledger(tmp_path / "ledger.jsonl")
    spent = plan.charge(ledger, **ABOUT, steps=5)
    costs = {
        q: accounting.epsilon([accounting.Event(q, 4.0, 5)], plan.delta) for q in (0.05, 0.1, 0.3)
    }
    assert spent == max(costs.values()) == costs[0.3]
    stated = plan.statement(ledger, 5)["group_sampling"]
    assert [row["epsilon"] for row in stated] == [costs[0.1], costs[0.05], costs[0.3]]


def drawn_often(plan, groups, steps=2000):
    """(steps, units) bool: who was in which draw of a plan."""
    table = np.zeros((steps, len(groups)), bool)
    for step in range(steps):
        table[step, plan.draw(SECRET, step, groups)] = True
    return table


def test_edge_47_a_unit_of_unknown_group_is_drawn_at_the_common_rate():
    groups = np.array([-1, 0, -1, 1, -1])
    table = drawn_often(plan_of(1.0, prob=0.1, group_probs=(0.3, 0.5)), groups)
    for count, group in zip(table.sum(axis=0), groups, strict=True):
        rate = {-1: 0.1, 0: 0.3, 1: 0.5}[group]
        assert stats.binomtest(int(count), len(table), rate).pvalue > 1e-5


def test_edge_48_groups_are_drawn_independently_of_each_other():
    groups = np.array([0, 1, -1])
    table = drawn_often(plan_of(1.0, prob=0.4, group_probs=(0.4, 0.4)), groups)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        together = int((table[:, one] & table[:, other]).sum())
        assert stats.binomtest(together, len(table), 0.16).pvalue > 1e-5


def test_edge_49_a_statement_over_steps_that_nobody_paid_for_is_refused(tmp_path):
    plan = plan_of(4.0, prob=0.1)
    ledger = plan.open_ledger(tmp_path / "ledger.jsonl")
    plan.charge(ledger, **ABOUT, steps=5)
    assert plan.statement(ledger, 5)["steps"] == 5
    with pytest.raises(InputError, match="not paid for step 5"):
        plan.statement(ledger, 100)


def test_edge_50_a_price_at_another_delta_is_not_claimed(tmp_path):
    plan = plan_of(4.0, prob=0.1)
    ledger = Ledger(tmp_path / "ledger.jsonl", budget=plan.budget, delta=0.1)
    with pytest.raises(InputError, match="open_ledger"):
        plan.charge(ledger, **ABOUT, steps=5)
    loose = dataclasses.replace(plan, delta=0.1)
    loose.charge(ledger, **ABOUT, steps=5)
    with pytest.raises(InputError, match="open_ledger"):
        plan.statement(ledger, 5)
