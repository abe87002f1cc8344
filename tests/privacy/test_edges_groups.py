"""Edges of mitigations by group: who stays, who is drawn how often, who is heard."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfair.config import load_config, plan_from_settings, settings_from_config
from jaxfair.data.composing import ComposeConfig, composed
from jaxfair.errors import InputError
from jaxfair.files import json_digest
from jaxfair.methods.mitigations import upsampling
from jaxfair.methods.mitigations.counts import NoisyCounts
from jaxfair.methods.mitigations.dro import GroupDRO
from jaxfair.methods.mitigations.upsampling import Upsampling
from jaxfair.methods.mitigations.whom import CoreSet
from jaxfair.privacy import verify
from jaxfair.privacy.accounting import Event, epsilon
from jaxfair.privacy.cliprules.quantile import quantile_clip
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from tests.methods.mitigated import BATCH, QUICK, N, loss_of, stages
from tests.privacy.chains import change, made, read

VALUES = {"sex": ("F", "M")}


def test_edge_170_one_patient_more_takes_nobody_elses_place_in_a_composition():
    """Thinning a group to an exact share ranks its patients, and who joins pushes another out."""
    table = pd.DataFrame({"patient_id": [f"p{i}" for i in range(200)], "sex": ["F", "M"] * 100})
    table["image_id"] = table["patient_id"]
    how = ComposeConfig(keep_by=("sex",), keep=(0.5, 0.3))
    whole = composed(table, np.full(200, "train", object), how, VALUES)
    for gone in range(0, 200, 9):
        fewer = table.drop(index=gone).reset_index(drop=True)
        after = composed(fewer, np.full(199, "train", object), how, VALUES)
        np.testing.assert_array_equal(after, np.delete(whole, gone))


def test_edge_171_a_mitigation_that_counts_is_coupled_whatever_the_claim_says(tmp_path):
    for number, (chosen, word) in enumerate((
        ({"name": "balance", "counted": True}, "coupled"),
        ({"name": "balance", "counted": None}, "independent"),
    )):  # fmt: skip
        fields = {"checkpoint": True, "split": {"split": "random"}, "selection": word}
        run = made(tmp_path / str(number), mitigation=chosen, **fields)
        assert verify.verify_run(run) == []
        other = {"coupled": "independent", "independent": "coupled"}[word]
        for file in ("privacy", "population"):
            change(run, file, selection=other)
        assert any(f"selection is {other!r}" in fault for fault in verify.verify_run(run))


def test_edge_172_whose_images_disagree_is_drawn_at_the_rate_of_the_unknown():
    config = Upsampling(attributes={"sex": 2, "age": 2}, factors=(4.0, 1.0, 1.0, 1.0))
    codes = {"sex": np.array([0, -1, 1, 0]), "age": np.array([0, 0, -1, -1])}
    assert upsampling.groups_of_units(config, codes.__getitem__).tolist() == [0, -1, -1, -1]


def test_edge_173_the_rate_of_a_group_that_is_raised_is_paid_for():
    """The thesis's copies were drawn at k times the rate for which they paid."""
    config = load_config("rsna_fae:phantom")
    config.data.groups, config.dp.enabled = ("sex",), False  # no noise is sought for this
    config.mitigation.update({"name": "upsampling", "factors": (3.0, 1.0)})
    settings = settings_from_config(config)
    plan, rate = plan_from_settings(settings), 32 / 600
    assert plan.group_probs == pytest.approx((3 * rate, rate))
    assert plan.priced_prob == pytest.approx(3 * rate)


def test_edge_174_groups_that_are_not_chosen_add_exactly_nothing_to_a_fine_tuning():
    method, params, frozen = stages("fine_tune")[1]
    grad = jax.vmap(jax.grad(loss_of(method, frozen)), in_axes=(None, 0, 0))
    keys = jax.random.split(jax.random.key(0), N)
    found = jax.jit(grad, compiler_options=QUICK)(params, BATCH, keys)
    heard = np.arange(N) % 3 == 1
    for leaf in jax.tree.leaves(found):
        assert not np.asarray(leaf)[~heard].any()
    assert any(np.asarray(leaf)[heard].any() for leaf in jax.tree.leaves(found))


def test_edge_175_a_core_set_that_was_chosen_on_patients_is_refused():
    for place in ("test", "validation", "training"):
        with pytest.raises(InputError, match="such a core set is refused"):
            CoreSet(ids="list.txt", chosen_on=place)


def answers_of(rule, losses, groups):
    """{name: (m, d)} of units with made-up losses; each entry of its own size."""
    given = (jnp.ones(len(losses)), jnp.asarray(losses), jnp.asarray(groups))
    return {q: np.asarray(rule.answers(*given, rule.init())[q.name]) for q in rule.queries}


def test_edge_176_no_loss_counts_for_more_than_the_public_bound():
    """P9: the loss of a patient is clipped to [0, M]; without, one patient is a group's loss."""
    rule = GroupDRO(attributes={"sex": 2}, bound=0.5, private=True).rule()
    losses, groups = [0.25, 0.5, 1e30, -3.0, np.inf], [0, 1, 2, 0, 1]
    (found,) = answers_of(rule, losses, groups).values()
    assert found[:, :3].sum(axis=1).tolist() == [0.5, 1.0, 1.0, 0.0, 0.0]


def test_edge_177_a_unit_counts_once_in_its_own_cell():
    counts = NoisyCounts(attributes={"sex": 2}).rule()
    losses = GroupDRO(attributes={"sex": 2}, private=True).rule()
    for rule, groups in ((counts, [0, 1, -1]), (losses, [0, 1, 2])):
        for query, found in answers_of(rule, [1e30, 0.0, 0.3], groups).items():
            assert np.linalg.norm(found, axis=1).max() <= query.sensitivity * (1 + 1e-6)
            assert np.count_nonzero(found[:, -len(groups) :], axis=1).max() <= 1


ADAPTIVE = {"quantile": 0.5, "rate": 0.2}
WHOLE = {"checkpoint": True, "split": {"split": "random"}}


def faults_as(run, **mitigation):
    """What the verifier says where the config had this mitigation, digest and all."""
    change(run, "config", mitigation=mitigation)
    change(run, config_digest=json_digest(read(run, "config")))
    return verify.verify_run(run)


def test_edge_178_queries_and_rates_are_those_that_the_config_of_a_run_asks_for(tmp_path):
    """A claim for another mitigation than the one that was trained, at the right epsilon."""
    given = {"name": "quantile_clip", "query_share": None}
    rule = quantile_clip(**ADAPTIVE, query_share=0.02)
    run = made(tmp_path / "asked", mitigation=given, rule=rule, **WHOLE)
    assert verify.verify_run(run) == []
    for wrong in (
        {"name": ""}, {"name": "group_weights"}, {"name": "global_clip"},
        {"name": "quantile_clip", "query_share": 0.05},
    ):  # fmt: skip
        assert any("and the config asks for" in fault for fault in faults_as(run, **wrong))
    assert faults_as(run, name="soft_clip") == []  # which asks the same
    silent = made(tmp_path / "silent", mitigation={"name": "quantile_clip"}, **WHOLE)
    assert any("and the config asks for" in fault for fault in verify.verify_run(silent))
    rated = made(tmp_path / "rated", mitigation={"name": ""}, group_probs=(0.1, 0.2), **WHOLE)
    assert any("asks for one rate for all" in fault for fault in verify.verify_run(rated))
    assert faults_as(rated, name="upsampling", factors=(1.0, 2.0)) == []


def test_edge_179_what_is_paid_for_a_draw_is_the_rate_of_who_is_drawn_most_often():
    """Priced at the mean of its rates, a draw would protect nobody of the group that is raised."""
    sizes = {"steps": 5, "expected_batch_size": 30, "public_size": 600}
    made = make_plan(PrivacyConfig(epsilon=8.0), **sizes, group_probs=(0.2, 0.05))
    assert made.event(5).sampling_prob == 0.2 and 7.9 < made.epsilon <= 8.0
    assert epsilon([Event(0.2, made.joint_noise_multiplier, 5)], made.delta) <= 8.0
