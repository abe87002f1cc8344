"""What a network is given: images at another side, and maps of blocks that were read before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxfair.data.transforms import AugmentConfig, make_augment
from jaxfair.errors import InputError
from jaxfair.methods.classifier import ClassifierConfig, make_classifier
from jaxfair.methods.encoder import EncoderConfig, make_encoder
from jaxfair.methods.reading import Reading
from jaxfair.models.heads import Network

BEFORE = ("conv_stem", "bn0", "blocks_0", "blocks_10", "blocks_11", "blocks_12", "blocks_13")
LITE = {"backbone": "lite0", "freeze": (*BEFORE, "blocks_14")}
SPEC = {"image": jax.ShapeDtypeStruct((40, 40, 3), jnp.float32)}


@pytest.fixture(scope="module")
def begun():
    method = make_classifier(ClassifierConfig(("a",), **LITE, side=64))
    return method, *jax.jit(lambda key: method.init(key, SPEC))(jax.random.key(0))


def examples(count):
    draw = np.random.default_rng(0)
    return {
        "image": jnp.asarray(draw.random((count, 40, 40, 3)), jnp.float32),
        "label": jnp.asarray(np.arange(count)[:, None] % 2, jnp.float32),
        "label_mask": jnp.ones((count, 1), bool),
    }


def test_maps_that_were_computed_once_give_the_loss_and_gradient_of_the_images(begun):
    method, params, frozen = begun
    raw = examples(4)
    ready = jax.jit(jax.vmap(method.prepare, (None, 0)))(frozen, raw)
    assert set(ready) == {"maps", "label", "label_mask"} and ready["maps"].shape == (4, 2, 2, 192)
    keys = jax.random.split(jax.random.key(1), 4)
    total = lambda p, batch: jnp.sum(
        jax.vmap(lambda e, key: method.loss(p, frozen, e, key)[0])(batch, keys)
    )
    truth, ours = (jax.jit(jax.value_and_grad(total))(params, batch) for batch in (raw, ready))
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(truth[1]["backbone"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), truth, ours)
    scores = [jax.jit(method.score)(params, frozen, batch) for batch in (raw, ready)]
    np.testing.assert_allclose(*[found["a"] for found in scores], atol=1e-6)
    assert np.ptp(scores[0]["a"]) > 0


def test_a_view_that_is_drawn_anew_is_read_from_the_first_block_on():
    augment = make_augment(AugmentConfig(flip=0.5), ("a",))
    config = ClassifierConfig(("a",), **LITE)
    assert make_classifier(config, augment).prepare is None
    assert make_classifier(config).prepare is not None


@pytest.mark.parametrize(
    "fields",
    [
        {"freeze": BEFORE[:-3]},  # the maps before it are larger than most images
        {"freeze": BEFORE[1:]},  # the first filters are trained
        {"freeze": ("conv_stem", "bn0", "blocks_00", "blocks_14", "blocks_15")},
        {"freeze": ()},
        {"backbone": "resnet9", "freeze": ("conv1",)},
    ],
)
def test_where_little_is_saved_or_something_is_trained_nothing_is_read_before(fields):
    assert make_encoder(EncoderConfig(**{"backbone": "lite0", **fields})).prepare is None


def test_a_network_whose_blocks_all_stay_reads_the_maps_of_the_last_one():
    freeze = (*BEFORE, "blocks_14", "blocks_15", "conv_head")
    encoder = make_encoder(EncoderConfig(backbone="lite0", freeze=freeze))
    params, frozen = jax.eval_shape(lambda key: encoder.init(key, SPEC), jax.random.key(0))
    assert set(params) == {"bn1"}
    found = jax.eval_shape(encoder.prepare, frozen, {"image": SPEC["image"]})
    assert found["maps"].shape == (2, 2, 320)


class Seen(nn.Module):
    """Gives the pixels as they are."""

    width: int = 1

    def __call__(self, x):
        return x


def test_images_are_brought_to_the_side_as_they_are_read():
    network, image = Network(Seen(), 0), examples(2)["image"]
    found = Reading(network, side=48).features({}, {"image": image.astype(jnp.float16)})
    assert found.shape == (2, 48, 48, 3) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, jax.image.resize(image, found.shape, "linear"), atol=1e-3)
    np.testing.assert_array_equal(Reading(network).features({}, {"image": image}), image)
    encoder = make_encoder(EncoderConfig(backbone="resnet9", side=48))
    assert encoder.embed.args[0].side == 48


@pytest.mark.parametrize(
    "fields",
    [{"side": -1}, {"side": 4097}, {"side": 64, "ndim": 3}, {"side": 64, "backbone": "features"}],
)
def test_a_side_of_what_has_none_is_refused(fields):
    with pytest.raises(InputError, match=r"side = .* for a network with ndim 2"):
        EncoderConfig(**fields)
