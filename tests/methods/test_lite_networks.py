"""EfficientNet-Lite in the Methods: as extractor, and as backbone frozen, in part, or whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.methods import fae
from jaxfair.methods.classifier import ClassifierConfig, describe, make_classifier
from jaxfair.methods.fae import FAEConfig, make_fae
from jaxfair.privacy.sums import clipping, fast

LITE = {"backbone": "lite0", "norm": "frozen"}
FIRST = ("conv_stem", "bn0", "blocks_0", "blocks_10", "blocks_11", "blocks_12", "blocks_13")
SPEC = {"image": jax.ShapeDtypeStruct((32, 32, 1), jnp.float32)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    twins = pytest.importorskip("tests.models.torch_lite", reason="torch writes the weights")
    path = tmp_path_factory.mktemp("lite") / "w.pth"
    twins.saved(path)
    return str(path)


def images(count):
    return jnp.asarray(np.random.default_rng(0).random((count, 32, 32, 1)), jnp.float32)


def test_a_head_on_a_frozen_network_is_all_that_is_trained(weights):
    config = ClassifierConfig(("a",), **LITE, weights=weights, last_layer=True)
    method = make_classifier(config)
    params, frozen = jax.jit(lambda key: method.init(key, SPEC))(jax.random.key(0))
    assert params["backbone"] == {} and params["head"]["kernel"].shape == (1280, 1)
    found = jax.jit(method.prepare)(frozen, {"image": images(1)[0]})["features"]
    assert found.shape == (1280,) and float(found.std()) > 0
    assert describe(config)["initial_sha256"] in describe(config)["note"]


@pytest.mark.slow
def test_last_blocks_train_and_their_statistics_stay(weights):
    """Gradients of the last blocks, clipped the fast way, are those of the plain one."""
    method = make_classifier(ClassifierConfig(("a",), **LITE, weights=weights, freeze=FIRST))
    params, frozen = jax.jit(lambda key: method.init(key, SPEC))(jax.random.key(0))
    assert set(params["backbone"]) == {"blocks_14", "blocks_15", "conv_head", "bn1"}
    assert "mean" in frozen["stats"]["backbone"]["blocks_15"]["bn2"]
    batch = {"image": images(3), "label": jnp.asarray([[1.0], [0.0], [1.0]])}
    loss = lambda p, e, key: method.loss(p, frozen, e, key)[0]
    given = (params, batch, jax.random.split(jax.random.key(0), 3), jnp.ones(3, bool))
    sums = [
        jax.jit(lambda *a, way=way: way.clipped_sum(loss, *a, l2_clip_norm=0.1))(*given)
        for way in (clipping, fast)
    ]
    for truth, ours in zip(*map(jax.tree.leaves, sums)):
        assert np.isfinite(truth).all()
        np.testing.assert_allclose(ours, truth, atol=2e-5)
    assert any(np.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(sums[0]))


def test_public_weights_in_another_network_are_refused():
    with pytest.raises(InputError, match=r"use backbone 'lite0' and norm 'frozen', not 'resnet9'"):
        ClassifierConfig(("a",), weights="lite0")
    with pytest.raises(InputError, match="not 'lite0' and 'group'"):
        ClassifierConfig(("a",), backbone="lite0", weights="lite0")
    with pytest.raises(InputError, match="use ndim 2"):
        ClassifierConfig(("a",), **LITE, weights="lite0", ndim=3)


SLICES = {"backbone": "slices", "ndim": 3, "channels": 1, "slice_network": "lite0"}
VOLUME = {"image": jax.ShapeDtypeStruct((2, 32, 32, 1), jnp.float32)}


def test_what_reads_slices_has_every_weight_and_statistic_of_the_lite_of_that_file(weights):
    config = ClassifierConfig(
        ("a",), **SLICES, norm="frozen", weights=weights, freeze=("backbone",)
    )
    method = make_classifier(config)
    params, frozen = jax.jit(lambda key: method.init(key, VOLUME))(jax.random.key(0))
    assert set(params["backbone"]) == {"project", "attention"}
    assert params["backbone"]["project"]["kernel"].shape == (1280, 512)
    alone = make_classifier(ClassifierConfig(("a",), **LITE, weights=weights))
    trained, kept = jax.jit(lambda key: alone.init(key, SPEC))(jax.random.key(1))
    for own, theirs in (
        (frozen["backbone"]["backbone"], trained["backbone"]),
        (frozen["stats"]["backbone"]["backbone"], kept["stats"]["backbone"]),
    ):
        jax.tree.map(np.testing.assert_array_equal, own, theirs)
    assert describe(config)["initial_sha256"] in describe(config)["note"]


def test_the_first_blocks_of_what_reads_slices_can_stay(weights):
    first = tuple(f"backbone/{name}" for name in FIRST)
    config = ClassifierConfig(("a",), **SLICES, norm="frozen", weights=weights, freeze=first)
    params, frozen = jax.eval_shape(
        lambda key: make_classifier(config).init(key, VOLUME), jax.random.key(0)
    )
    last = {"blocks_14", "blocks_15", "conv_head", "bn1"}
    assert set(params["backbone"]["backbone"]) == last
    assert not last & set(frozen["backbone"]["backbone"])


def test_public_weights_of_slices_belong_to_what_reads_them():
    with pytest.raises(
        InputError, match=r"use slice_network 'lite1' and norm 'frozen', not 'lite0'"
    ):
        ClassifierConfig(("a",), **SLICES, norm="frozen", weights="lite1")
    with pytest.raises(InputError, match="slice_network = 'resnet9' is none of 'resnet18'"):
        ClassifierConfig(("a",), **{**SLICES, "slice_network": "resnet9"})
    config = ClassifierConfig(("a",), **SLICES, norm="frozen", weights="lite0")
    assert config.reader == "lite0"


def test_the_feature_autoencoder_rebuilds_the_maps_of_a_lite(weights, monkeypatch):
    monkeypatch.setattr("jaxfair.models.extractors.TEXTURES", 4)
    monkeypatch.setattr("jaxfair.models.extractors.SIDE", 32)
    config = FAEConfig((4,), extractor_name="lite0", extractor_weights=weights)
    method = make_fae(config)
    params, frozen = method.init(jax.random.key(0), SPEC)
    example = jax.jit(method.prepare)(frozen, {"image": images(1)[0]})
    assert example["features"].shape == (8, 8, 176)
    loss = jax.jit(method.loss)(params, frozen, example, jax.random.key(0))[0]
    assert np.isfinite(float(loss))
    assert fae.describe(config)["extractor"] == "pretrained"
    assert "EfficientNet-Lite0" in fae.describe(config)["note"]
