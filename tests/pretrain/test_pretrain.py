"""Pretraining on drawn images: what is drawn, what is compared, and the weights that come of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.config import load_config
from jaxfair.errors import InputError
from jaxfair.methods.classifier import ClassifierConfig, make_classifier
from jaxfair.pretrain import (
    ContrastConfig,
    alignment_and_uniformity,
    draw,
    main,
    make_contrast,
    run,
    view,
)
from jaxfair.pretrain.__main__ import weights_file
from jaxfair.pretrain.config import read_config

CONFIG = "configs/pretrain_drawn.py:quick"


@pytest.mark.parametrize("ndim, channels", [(2, 3), (3, 1)])
def test_images_are_drawn_from_their_seed_alone(ndim, channels):
    drawn = jax.jit(lambda key: draw(key, 16, ndim, channels))
    image = np.asarray(drawn(jax.random.key(1)))
    assert image.shape == (16,) * ndim + (channels,) and np.isfinite(image).all()
    assert 0 <= image.min() < image.max() <= 1
    np.testing.assert_array_equal(image, drawn(jax.random.key(1)))
    assert np.abs(image - drawn(jax.random.key(2))).mean() > 0.02
    looked = jax.jit(lambda key: view(key, jnp.asarray(image), 12))
    first, second = looked(jax.random.key(3)), looked(jax.random.key(4))
    assert first.shape == (12,) * ndim + (channels,)
    assert np.isfinite(first).all() and np.abs(first - second).mean() > 0.02


def test_alignment_and_uniformity_are_those_of_the_paper_and_padding_counts_nowhere():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 7, 5))
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    mask = np.array([True, True, False, True, True, False, True])
    apart, uneven = alignment_and_uniformity(*jnp.asarray(z, jnp.float32), jnp.asarray(mask))
    real = z[:, mask]
    square = lambda x: np.sum(x**2, axis=-1)
    told = [
        np.log(
            np.mean(
                [np.exp(-2 * square(v[i] - v[j])) for i in range(5) for j in range(5) if i != j]
            )
        )
        for v in real
    ]
    assert apart == pytest.approx(square(real[0] - real[1]).mean(), rel=1e-5)
    assert uneven == pytest.approx(np.mean(told), rel=1e-5)


def test_a_loss_is_of_two_different_views_of_each_image_and_of_nobody_else():
    """With the second term left out it is 0 where both views are one; padding changes nothing."""
    method = make_contrast(ContrastConfig(pixels=16, uniformity=0.0))
    params, _ = jax.jit(lambda key: method.init(key, {}))(jax.random.key(5))
    loss = jax.jit(lambda *given: method.batch_loss(params, {}, *given))
    keys, mask = jax.random.split(jax.random.key(1), 3), jnp.array([True, True, False])
    told = [loss({"number": jnp.array([1, 2, n])}, mask, keys) for n in (3, 4)]
    assert told[0] == told[1] > 1e-3
    assert loss({"number": jnp.array([7, 2, 3])}, mask, keys) != told[0]
    assert loss({"number": jnp.array([1, 2, 3])}, mask, keys[::-1]) != told[0]


def began(file):
    """The backbone of a classifier of grey images that begins with the weights of a file."""
    config = ClassifierConfig(("a",), activation="mish", weights=str(file))
    spec = {"image": jax.ShapeDtypeStruct((16, 16, 3), jnp.float32)}
    return make_classifier(config).init(jax.random.key(0), spec)[0]["backbone"]


def test_a_classifier_begins_with_every_weight_that_was_learned(tmp_path):
    method = make_contrast(ContrastConfig(pixels=16))
    params, _ = jax.jit(lambda key: method.init(key, {}))(jax.random.key(5))
    backbone = jax.tree.map(lambda leaf: leaf + 0.125, params["backbone"])
    file = tmp_path / "drawn.safetensors"
    file.write_bytes(weights_file(backbone))
    for theirs, ours in zip(*map(jax.tree.leaves, (began(file), backbone)), strict=True):
        np.testing.assert_array_equal(theirs, ours.astype(jnp.bfloat16).astype(jnp.float32))


@pytest.mark.slow
def test_the_command_trains_and_its_weights_begin_a_classifier(tmp_path, capsys):
    file = tmp_path / "drawn.safetensors"
    told = main(["pretrain", "--config", CONFIG, f"--out={file}", f"--workdir={tmp_path / 'run'}"])
    assert told == 0 and capsys.readouterr().out.strip() == str(file)
    first = make_contrast(read_config(load_config(CONFIG)).network).init(jax.random.key(1), {})[0]
    for theirs, before in zip(*map(jax.tree.leaves, (began(file), first["backbone"])), strict=True):
        assert np.isfinite(theirs).all()
        if theirs.ndim > 1:
            assert 1e-4 < np.abs(theirs - before).max() < 0.5, (
                "four steps move every filter a little"
            )


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"network.backbone": "lite0"}, "backbone = 'lite0' is none of 'resnet9'"),
        ({"network.pixels": 4}, "network.pixels is 4; at least 16"),
        ({"network.uniformity": float("nan")}, "network.uniformity is nan"),
        ({"train.start_from": "runs/a"}, "train.start_from is of trainings on patients"),
        ({"train.expected_batch_size": 1}, "views are compared with other images"),
        ({"images": 3}, "images is 3; draw at least two batches"),
    ],
)
def test_a_wrong_pretraining_is_refused_in_one_sentence(changes, sentence):
    config = load_config(CONFIG)
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=sentence):
        read_config(config)


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_trained(tmp_path):
    (tmp_path / "a").write_text("a file")
    for out in (tmp_path / "w.pth", tmp_path / "a" / "w.safetensors"):
        with pytest.raises(InputError, match="--out"):
            run(load_config(CONFIG), out, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
