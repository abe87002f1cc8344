"""The encoder that methods share: a classifier on it is the whole network it always was."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.methods.classifier import ClassifierConfig, describe, make_classifier
from jaxfair.methods.encoder import EncoderConfig, make_encoder
from jaxfair.methods.probe import ProbeConfig, make_probe
from jaxfair.models import filters, heads
from tests.methods.made import made

SPEC = {"image": jax.ShapeDtypeStruct((16, 16, 1), jnp.float32)}
SMALL = {"backbone": "features", "size": 36, "patterns": 4, "colours": 4}


def network():
    return heads.make_network("resnet9", 2, norm="group", activation="mish", channels=1)


@functools.cache
def classifier():
    config = ClassifierConfig(("a", "b"), channels=1, activation="mish", freeze=("conv1", "layer1"))
    return make_classifier(config)


def test_a_classifier_begins_with_the_variables_of_the_whole_network():
    params, frozen = jax.jit(lambda key: classifier().init(key, SPEC))(jax.random.key(5))
    whole = jax.jit(network().init)(jax.random.key(5), jnp.zeros((1, 16, 16, 1)))["params"]
    ours = {"backbone": {**params["backbone"], **frozen["backbone"]}, "head": params["head"]}
    assert "layer1_0" in frozen["backbone"] and "layer2_0" in params["backbone"]
    jax.tree.map(np.testing.assert_array_equal, ours, whole)


def test_a_classifier_scores_bit_for_bit_as_the_whole_network():
    params, frozen = made(classifier(), SPEC)
    image = jnp.asarray(np.random.default_rng(0).random((3, 16, 16, 1)), jnp.float32)
    backbone = {**params["backbone"], **frozen["backbone"]}
    variables = {"params": {"backbone": backbone, "head": params["head"]}}
    scores = jax.jit(classifier().score)(params, frozen, {"image": image})
    truth = jax.nn.sigmoid(jax.jit(network().apply)(variables, image))
    np.testing.assert_array_equal(np.stack([scores["a"], scores["b"]], 1), truth)
    embedded = jax.jit(classifier().embed)(params, frozen, {"image": image})
    assert list(embedded) == ["features"] and embedded["features"].shape == (3, 512)


def test_fixed_features_are_those_of_the_linear_probe_and_leave_only_heads_to_train():
    method = make_classifier(ClassifierConfig(("a", "b"), **SMALL))
    peer = make_probe(ProbeConfig(("a", "b"), size=36, patterns=4, colours=4))
    spec = {"image": jax.ShapeDtypeStruct((40, 36, 3), jnp.float32)}
    params, frozen = method.init(jax.random.key(0), spec)
    assert params["backbone"] == {} and set(params) == {"backbone", "head"}
    raw = {"image": jnp.asarray(np.random.default_rng(0).random((40, 36, 3)), jnp.float32)}
    ours = jax.jit(method.prepare)(frozen, raw)["features"]
    theirs = jax.jit(peer.prepare)(peer.init(jax.random.key(0), spec)[1], raw)["features"]
    np.testing.assert_array_equal(ours, theirs)
    batch = jax.tree.map(lambda a: a[None], raw)
    unprepared = jax.jit(method.embed)(params, frozen, batch)["features"]
    np.testing.assert_allclose(unprepared[0], ours, rtol=1e-4, atol=1e-5)


def test_features_are_said_to_come_from_no_patient():
    config = ClassifierConfig(("a",), **SMALL)
    facts = describe(config)
    assert facts["features"] == filters.feature_count(config.design)
    assert "no patient's image shaped them" in facts["note"]


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"backbone": "features", "ndim": 3}, "use ndim 2, and leave weights and freeze out"),
        ({"backbone": "features", "freeze": ("conv1",)}, "leave weights and freeze out"),
        ({"backbone": "features", "size": 50}, "size = 50 must be a multiple of 4"),
        ({"backbone": "feature"}, "backbone = 'feature' is none of .* Did you mean 'features'"),
    ],
)
def test_a_wrong_config_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        EncoderConfig(**fields)


def test_volumes_have_no_fixed_features():
    spec = {"image": jax.ShapeDtypeStruct((8, 8, 8, 1), jnp.float32)}
    with pytest.raises(InputError, match="needs height, width and channels"):
        make_encoder(EncoderConfig(**SMALL)).init(jax.random.key(0), spec)
