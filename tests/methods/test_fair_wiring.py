"""What a config of a fair method says arrives: weights, shares, dropout, energy, augmentation."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.engine import stages
from jaxfair.methods import moments
from jaxfair.methods.base import Method, Stage
from tests.methods.mitigated import QUICK
from tests.methods.staged import adversarial, drawn, example_of, fairread, fcro, stages_of

KEYS = jax.random.split(jax.random.key(7), 2)
ALONE = {"alpha": 0.0, "attribute_dropout": 0.0, "column_weight": 0.0}
OF_LABELS = {
    "adversarial": (adversarial, {"adversary_weight": 0.0, "sensitive_weight": 0.0}),
    "fcro": (fcro, {"column_weight": 0.0}),
    "fairread": (fairread, ALONE),
}


def loss(found, key=KEYS[0], **changes):
    method, params, frozen = found
    return float(method.loss(params, frozen, example_of(**changes), key)[0])


def gradient(found, **changes):
    method, params, frozen = found
    fun = lambda p: method.loss(p, frozen, example_of(**changes), KEYS[0])[0]
    return jax.jit(jax.grad(fun), compiler_options=QUICK)(params)


def test_the_class_weights_of_every_fair_method_weigh_its_positives():
    for name, (make, fields) in OF_LABELS.items():
        plain, weighed = (stages_of(make(class_weights=w, **fields))[-1] for w in ((), (3.0,)))
        for label, times in ((1.0, 3.0), (0.0, 1.0)):
            asked = {"label": np.array([label], np.float32)}
            assert abs(loss(weighed, **asked) / loss(plain, **asked) - times) < 1e-4, name


def test_shares_of_steps_are_those_of_the_stages_that_they_are_named_for():
    named = {"moment_share": 0.125, "target_share": 0.25, "fusion_share": 0.375}
    found = fairread(**named).stages
    assert [stage.share for stage in found] == list(named.values())
    assert [stage.method.name.split(": ")[1].split(",")[0] for stage in found] == [
        "second moment", "labels", "re-fusion",
    ]  # fmt: skip


def test_layers_are_dropped_in_training_and_not_in_predictions():
    found = stages_of(fairread(dropout=0.5, alpha=0.0, attribute_dropout=0.0))[-1]
    assert loss(found, KEYS[0]) != loss(found, KEYS[1])
    whole = stages_of(fairread(dropout=0.0, alpha=0.0, attribute_dropout=0.0))[-1]
    rows = {name: jnp.asarray(values[:3]) for name, values in drawn().items()}
    scores = [method.score(params, frozen, rows)["a"] for method, params, frozen in (found, whole)]
    np.testing.assert_array_equal(*scores)


def test_the_adversary_is_asked_for_attributes_that_were_dropped_from_the_re_fusion():
    found = gradient(stages_of(fairread(alpha=0.5, attribute_dropout=1.0, at_test="dropped"))[-1])
    assert any(np.any(leaf) for leaf in jax.tree.leaves(found["fusion"]["adversary"]))


def test_the_sensitive_embedding_of_fairread_is_that_of_the_attribute_encoder():
    found, rows = stages_of(fairread()), {n: jnp.asarray(v[:4]) for n, v in drawn().items()}
    method, params, frozen = found[-1]
    before, theirs, kept = found[-2]
    ours = method.embed(params, frozen, rows)["sensitive"]
    np.testing.assert_array_equal(ours, before.embed(theirs, kept, rows)["sensitive"])
    assert not np.allclose(ours, method.embed(params, frozen, rows)["disease"])


def test_without_a_number_of_directions_the_energy_of_the_config_decides():
    values = np.array([8.0, 4, 2, 1, 0.5, 0.25, 0.125, 0.0625], np.float32)
    moment = {"moment": jnp.stack([jnp.diag(values)] * 2)}
    for energy, count in ((0.8, 2), (0.96, 4)):
        method = fcro(directions=0, energy=energy)
        frozen = stages_of(method)[1][2]
        _, begun = method.stages[1].begin(moment, frozen, jax.random.key(2), None)
        kept = jnp.sum(jnp.any(begun["subspace"]["basis"] != 0, axis=1), axis=-1)
        assert kept.tolist() == [count, count]
        assert moments.noise_words(begun["subspace"]) == ""


def turned(example, key):
    return example | {"image": example["image"] * jax.random.normal(key)}


def test_the_adversarial_method_sees_augmented_images():
    found = stages_of(adversarial(augment=turned))[0]
    assert loss(found, KEYS[0]) != loss(found, KEYS[1]) and found[0].prepare is None
    plain = stages_of(adversarial())[0]
    assert loss(plain, KEYS[0]) == loss(plain, KEYS[1])


def test_each_stage_begins_with_a_key_of_its_own():
    keys, none = [], Method("toy", (), None, None, None)

    def begin(params, frozen, key, spec):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        return params, frozen

    here = types.SimpleNamespace(
        method=none._replace(stages=(Stage(none, begin, 0.25),) * 3),
        spec={}, frozen={}, params={}, with_variables=lambda *given: None,
    )  # fmt: skip
    for number in (1, 2, 3):
        stages.enter([here] * 4, number, here, types.SimpleNamespace(params={}))
    assert len(set(keys)) == 3
