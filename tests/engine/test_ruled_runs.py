"""Trainings under a clip rule: resumed bit by bit with its state, refused where it changed."""

import functools

import jax
import numpy as np
import optax
import pytest

from jaxfair.config import plan_from_settings
from jaxfair.privacy.cliprules.quantile import QUERY, quantile_clip
from jaxfair.privacy.ledger import read_entries
from jaxfair.privacy.verify import verify_run
from tests.engine.toy import open_toy as opened
from tests.engine.toy import plan_of, refusal, started
from tests.test_mitigation_door import settings_of

SEED = {"insecure_seed": 3}


@functools.cache
def plan(rate=0.2):
    rule = quantile_clip(quantile=0.6, rate=rate, query_share=0.1)
    return plan_of({"rule": rule}, clipping="vmap")


def open_toy(folder, **fields):
    return opened(folder, **{"plan": plan(), "optimizer": optax.adam(0.1)} | fields)


def ended(trainer):
    with trainer:
        thresholds = [float(trainer.state.rule_state["threshold"]) for _ in trainer.steps()]
    return jax.tree.map(np.asarray, trainer.params()), thresholds, trainer.statement()


def test_a_run_that_died_ends_bit_equal_with_the_state_of_its_rule(tmp_path):
    whole = ended(open_toy(tmp_path / "whole", **SEED))
    started(tmp_path / "torn", plan=plan(), optimizer=optax.adam(0.1), **SEED)
    again = open_toy(tmp_path / "torn", **SEED)
    assert float(again.state.rule_state["threshold"]) == whole[1][0] != 1.0
    rest = ended(again)
    np.testing.assert_array_equal(whole[0]["w"], rest[0]["w"])
    assert whole[1][1:] == rest[1] and len(set(whole[1])) == 4
    assert whole[2]["parameters_digest"] == rest[2]["parameters_digest"]
    assert whole[2]["epsilon"] == rest[2]["epsilon"] <= 6.0
    for entry in read_entries(tmp_path / "torn" / "ledger.jsonl")[0]:  # one event for each draw
        assert entry.noise_multiplier == plan().joint_noise_multiplier
    assert sum(e.steps for e in read_entries(tmp_path / "torn" / "ledger.jsonl")[0]) == 8
    assert [query["name"] for query in rest[2]["queries"]] == ["gradient_sum", QUERY]


def test_a_run_is_not_resumed_with_another_rule_or_without(tmp_path):
    started(tmp_path / "run", plan=plan(), **SEED)
    assert "changed since it began: clip rule" in refusal(
        tmp_path / "run", plan=plan(rate=0.3), **SEED
    )
    assert "clip rule" in refusal(tmp_path / "run", plan=plan_of(clipping="vmap"), **SEED)


@pytest.mark.parametrize(
    ("share", "epsilon", "sigma"), [(0.5, 4.48, 1.0), (0.2, 2.35, 2.0)]
)  # protocol P1: sigma 1 beside 1, and 1 beside 2; as events of their own 2.59 and 1.95
def test_a_config_prices_its_side_query_in_one_release(share, epsilon, sigma):
    line = (
        f"--config.mitigation.query_share={share}", f"--config.dp.epsilon={epsilon}",
        "--config.data.public_size=10000", "--config.train.expected_batch_size=100",
        "--config.train.steps=1000",
    )  # fmt: skip
    made = plan_from_settings(settings_of("quantile_clip", *line))
    assert (made.sampling_prob, made.delta) == (0.01, 1e-5)
    assert made.noise_multiplier == pytest.approx(1.0, abs=2e-3)
    assert made.queries[0].noise_multiplier == pytest.approx(sigma, abs=4e-3)
    assert made.epsilon == pytest.approx(epsilon, abs=5e-3) and made.epsilon <= epsilon


def test_the_gradient_pays_what_the_query_costs_at_a_small_budget_too():
    from_rule = plan_of({"rule": plan().rule}, epsilon=0.5)
    alone = plan_of(epsilon=0.5)
    assert from_rule.noise_multiplier == pytest.approx(alone.noise_multiplier / 0.9**0.5)


@pytest.mark.slow
def test_a_finished_run_verifies(tmp_path):
    ended(open_toy(tmp_path / "run"))
    assert verify_run(tmp_path / "run") == []
