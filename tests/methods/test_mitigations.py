"""Mitigations are functions Method -> Method, with a bound that still holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import engine
from jaxfair.config import method_from_settings, settings_from_config
from jaxfair.engine.assembly import assemble
from jaxfair.engine.optim import OptimConfig, make_optimizer
from jaxfair.errors import InputError
from jaxfair.methods.base import Method, Stage, carrying
from jaxfair.methods.mitigations import (
    MITIGATIONS,
    GroupWeights,
    Mitigation,
    mitigated,
    weigh_groups,
)
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.privacy.sums import clipping
from tests.small import small_config

SPEC = {
    "x": jax.ShapeDtypeStruct((3,), np.float32),
    "group": jax.ShapeDtypeStruct((2,), np.int32),
}


def plain_loss(params, frozen, example, key):
    return jnp.sum(params["w"] * example["x"]), {}


PLAIN = Method("plain", (), lambda key, spec: ({"w": jnp.ones(3)}, {}), plain_loss, None)


def gradient(method, *codes):
    example = {"x": jnp.array([1.0, 2.0, 3.0]), "group": jnp.asarray(codes, jnp.int32)}
    loss = lambda p: method.loss(p, {}, example, jax.random.key(0))[0]
    return np.asarray(jax.grad(loss)({"w": jnp.ones(3)})["w"])


@pytest.mark.parametrize(
    ("code", "weight"), [(0, 2.0), (1, 0.5), (-1, 1.0), (7, 0.5)], ids=["F", "M", "unknown", "high"]
)
def test_a_loss_has_the_public_weight_of_its_group(code, weight):
    weighted = weigh_groups(GroupWeights((2.0, 0.5)), PLAIN)
    np.testing.assert_allclose(gradient(weighted, code, 0), weight * gradient(PLAIN, 0, 0))


def test_the_attribute_is_the_one_that_was_named():
    weighted = weigh_groups(GroupWeights((2.0, 0.5), attribute=1), PLAIN)
    np.testing.assert_allclose(gradient(weighted, 0, 1), 0.5 * gradient(PLAIN, 0, 0))


def test_the_weight_comes_before_the_clip_so_nobody_moves_the_sum_by_more_than_c():
    weighted = weigh_groups(GroupWeights((1000.0,)), PLAIN)
    batch = {"x": jnp.ones((4, 3)), "group": jnp.array([[0, 0], [-1, 0], [0, 0], [0, 0]])}
    keys, loss = (
        jax.random.split(jax.random.key(0), 4),
        lambda p, e, k: weighted.loss(p, {}, e, k)[0],
    )
    sums = [
        clipping.clipped_sum(
            loss, {"w": jnp.ones(3)}, batch, keys, jnp.arange(4) < n, l2_clip_norm=0.5
        )["w"]
        for n in (3, 4)
    ]
    assert np.linalg.norm(np.asarray(sums[1] - sums[0], np.float64)) <= 0.5 * (1 + 1e-6)


@pytest.mark.parametrize("name", MITIGATIONS)
def test_a_mitigation_keeps_examples_apart_and_its_guarantee_is_written_down(name):
    entry = MITIGATIONS[name]
    assert "Guarantee:" in entry.apply.__doc__ and "Cost:" in entry.apply.__doc__
    weighted = mitigated(name, entry.config(weights=(2.0, 1.0)), PLAIN)
    plan = make_plan(PrivacyConfig(), steps=2, expected_batch_size=4, public_size=40)
    made = assemble(
        plan, weighted, make_optimizer(OptimConfig()), spec=SPEC,
        variables=weighted.init(None, None), microbatch=4, mesh=engine.make_mesh(1),
    )  # fmt: skip
    assert made.plan.event(2) == plan.event(2)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"weights": ()}, "give a weight for each group"),
        ({"weights": (1.0, 0.0)}, "mitigation.weights holds 0.0"),
        ({"weights": (float("nan"),)}, "mitigation.weights holds nan"),
        ({"weights": (1.0,), "attribute": -1}, "for attribute -1"),
    ],
)
def test_wrong_weights_end_in_one_sentence(fields, sentence):
    with pytest.raises(InputError) as caught:
        GroupWeights(**fields)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_mitigation_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'group_weights'"):
        mitigated("group_weight", GroupWeights((1.0,)), PLAIN)


def test_what_a_method_prepares_hands_the_group_on():
    prepared = PLAIN._replace(prepare=lambda frozen, raw: {"x": 2 * raw["x"]})
    example = carrying(prepared, SPEC).prepare({}, {"x": jnp.ones(3), "group": jnp.arange(2)})
    assert set(example) == {"x", "group"} and float(example["x"][0]) == 2.0
    without = {"x": SPEC["x"]}
    assert carrying(prepared, without) is prepared and carrying(PLAIN, SPEC) is PLAIN


def test_the_door_builds_a_mitigated_feature_autoencoder(tmp_path):
    config = small_config(tmp_path, data__groups=("sex",))
    with config.unlocked():
        config.mitigation = {"name": "group_weights", "weights": (3.0, 1.0)}
    settings = settings_from_config(config)
    assert settings.mitigation == GroupWeights((3.0, 1.0))
    assert settings.data.spec["group"].shape == (1,)
    method = method_from_settings(settings)
    assert carrying(method, settings.data.spec).prepare is not method.prepare


def test_the_door_applies_the_mitigation_that_a_config_names(tmp_path, monkeypatch):
    marks = lambda config, method: method._replace(name=f"weighed by {config.weights}")
    monkeypatch.setitem(MITIGATIONS, "group_weights", Mitigation(GroupWeights, marks))
    config = small_config(tmp_path, data__groups=("sex",))
    with config.unlocked():
        config.mitigation = {"name": "group_weights", "weights": (3.0, 1.0)}
    method = method_from_settings(settings_from_config(config))
    assert method.name == "weighed by (3.0, 1.0)"


def test_later_stages_are_weighted_alike():
    staged = PLAIN._replace(stages=(Stage(PLAIN, lambda *given: given[:2], 0.5),))
    weighted = weigh_groups(GroupWeights((2.0, 0.5)), staged)
    later = weighted.stages[0].method
    np.testing.assert_allclose(gradient(later, 1, 0), 0.5 * gradient(PLAIN, 0, 0))
