"""The audit of a tiny dense Method: clean runs are quiet, each planted fault is caught."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.audit import __main__ as audit
from jaxfair.audit import faults, trials
from jaxfair.audit.bench import (
    SPOILT,
    Guest,
    Released,
    feed_of,
    largest_leaf,
    play,
    reference,
    under_audit,
    with_guests,
)
from jaxfair.audit.faults import FAULTS
from jaxfair.audit.trials import Size
from jaxfair.errors import InputError
from jaxfair.methods.base import Method
from jaxfair.privacy.detectors import DETECTORS
from jaxfair.privacy.secret import insecure_secret
from jaxfair.privacy.sums import clipping, rounding
from tests.small import small_config

SMALL = Size(canaries=1000, noise_steps=3, draws=200, spoilt=64)


def dense_method():
    """One hidden layer that rebuilds the image; compiles in a second."""

    def init(key, spec):
        size = int(np.prod(spec["image"].shape))
        into, out = jax.random.normal(key, (2, size, 6)) / 16
        return {"in": into, "out": out, "shift": jnp.zeros(size)}, {}

    def loss(params, frozen, example, key):
        x = example["image"].ravel()
        kept = jax.random.bernoulli(key, 0.9, (6,))
        rebuilt = params["out"] @ (jnp.tanh(x @ params["in"]) * kept) + params["shift"]
        return jnp.mean((rebuilt - x) ** 2), {}

    return Method("dense", (), init, loss, None, prepare=lambda frozen, raw: raw)


@functools.cache
def clean():
    bench = faults.small_bench(dense_method())
    return bench, under_audit(bench), reference(bench)


def examined(bench, step, seed=0, size=SMALL):
    coins = np.random.default_rng(seed)
    secret = insecure_secret(seed)
    verdicts, _ = trials.examine(bench, step, secret, clean()[2], size, coins=coins)
    return {verdict.detector: verdict for verdict in verdicts}


def test_a_clean_training_is_quiet():
    bench, step, _ = clean()
    verdicts = examined(bench, step)
    assert tuple(verdicts) == DETECTORS
    assert not any(verdict.alarm for verdict in verdicts.values()), verdicts


@pytest.mark.parametrize("name", FAULTS)
def test_each_planted_fault_is_caught_by_its_detector(name):
    fault, (bench, step, _) = FAULTS[name], clean()
    broken = fault.plant(bench)
    own = step if faults.same_step(broken, bench) else under_audit(broken)
    verdicts = examined(broken, own)
    assert verdicts[fault.detector].alarm, verdicts


def test_there_are_ten_faults_and_every_detector_has_one():
    assert len(FAULTS) == 10
    assert {fault.detector for fault in FAULTS.values()} == set(DETECTORS)


def test_the_recorded_sum_is_the_clipped_sum_plus_noise_of_the_plan():
    bench, step, truth = clean()
    feed = feed_of(bench, insecure_secret(3))
    released = next(play(bench, step, feed, 1))
    rest = jax.tree.map(np.subtract, released.noisy_sum, truth(released))
    flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(rest)])
    assert np.std(flat) == pytest.approx(bench.claim.noise_stddev(), rel=0.05)


def test_the_truth_is_clipped_as_the_plan_clips_its_margin_for_rounding_included():
    """At q = 1 and thousands of units it is 2 % of C, which would be taken for noise."""
    bench, step, truth = clean()
    pull = 10 * bench.claim.l2_clip_norm
    feed = feed_of(bench, insecure_secret(3), [Guest(5, pull, 0)])
    chunk, keys = step.chunk(feed.fields, [bench.num_rows]), feed.randomness(0)
    alone = truth(Released(0, jax.device_get(bench.assembly.params), [chunk], keys, None))
    length = np.sqrt(sum(np.sum(leaf.astype(np.float64) ** 2) for leaf in jax.tree.leaves(alone)))
    clip = rounding.bound(bench.claim.l2_clip_norm, bench.claim.max_draw)
    assert length == pytest.approx(clip * (1 - clipping.CLIP_MARGIN), rel=1e-6)


def test_guests_have_the_gradient_they_were_given_and_no_other():
    bench, _, _ = clean()
    method = with_guests(bench.method)
    guests = [Guest(5, 3.0, 0), Guest(-1, 0.0, SPOILT)]
    fields = feed_of(bench, insecure_secret(0), guests).fields
    rows = np.array([0, bench.num_rows, bench.num_rows + 1])
    batch = {name: np.asarray(read(rows)) for name, read in fields.items()}
    loss = lambda params, example: method.loss(params, {}, example, jax.random.key(0))[0]
    grads = jax.vmap(jax.grad(loss), (None, 0))(bench.params, batch)
    place = largest_leaf(bench.params)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(grads)]
    pulled = leaves[place][1].ravel()
    assert pulled[5] == 3.0 and np.count_nonzero(pulled) == 1
    assert all(not leaf[1].any() for i, leaf in enumerate(leaves) if i != place)
    assert all(np.isfinite(leaf[0]).all() for leaf in leaves)
    assert np.isnan(leaves[place][2]).any()


def test_more_canaries_than_entries_are_refused():
    bench, step, _ = clean()
    with pytest.raises(InputError, match=r"5000 canaries need .* has 1536: ask for fewer"):
        examined(bench, step, size=SMALL._replace(canaries=5000))


def test_a_config_without_a_claim_is_refused(tmp_path):
    config = small_config(tmp_path, dp__enabled=False)
    with pytest.raises(InputError, match="there is no claim to audit"):
        audit.run(config, tmp_path, progress=False)


def test_a_wrong_option_ends_in_one_sentence_and_status_2(capsys):
    assert audit.main(["audit"]) == 2
    assert "Give --config FILE" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_prints_each_bound_beside_the_claim(tmp_path, capsys):
    config = small_config(tmp_path)
    result = audit.run(config, tmp_path, size=SMALL, seed=0, progress=False)
    assert json.loads((tmp_path / "audit.json").read_text()) == result
    claim = result["claim"]["epsilon"]
    assert claim <= audit.CLAIM < result["claim"]["config_epsilon"]
    for bound in result["bounds"]:
        assert bound["epsilon"] <= claim and bound["epsilon"] <= bound["reachable"]
        assert bound["non_private"] > claim
    text = audit.describe(result)
    assert "reachable" in text and "non-private" in text and "quiet" in text


@pytest.mark.slow
def test_the_self_test_catches_ten_of_ten(capsys):
    found = faults.self_test(seed=0, clean_runs=2, progress=False)
    assert found["caught"] == 10 and sum(found["false_alarms"].values()) <= 1
