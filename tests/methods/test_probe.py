"""The linear probe: bounded gradients, masks, refused configs, and that a private head learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.methods import probe
from jaxfair.methods.probe import ProbeConfig, make_probe
from jaxfair.models import filters

SPEC = {"image": jax.ShapeDtypeStruct((36, 36, 3), jnp.float32)}
SMALL = {"size": 36, "patterns": 4, "colours": 4}


@functools.cache
def built(labels=("a",), **fields):
    method = make_probe(ProbeConfig(labels, **SMALL, **fields))
    return method, *method.init(jax.random.key(0), SPEC)


def prepared(label, image, method, frozen, **fields):
    raw = {"image": jnp.asarray(image, jnp.float32), "label": jnp.asarray(label), **fields}
    return jax.jit(method.prepare)(frozen, raw)


def grads_of(method, params, frozen, example):
    fun = lambda p: method.loss(p, frozen, example, jax.random.key(0))[0]
    return jax.jit(jax.grad(fun))(params)


@pytest.mark.parametrize("target", probe.TARGETS)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_gradient_of_one_image_has_at_most_the_stated_norm(target, scale):
    method, params, frozen = built(("a", "b"), target=target)
    params = jax.tree.map(lambda p: p * scale, params)
    image = np.random.default_rng(0).random((36, 36, 3))
    for label in ([1.0, 0.0], [0.0, 1.0]):
        grads = grads_of(method, params, frozen, prepared(label, image, method, frozen))
        norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(grads)))
        errors = np.sqrt(2) if target == "multi-class" else np.sqrt(2) / 2  # of the two logits
        assert norm <= np.sqrt(2) * errors * (1 + 1e-5)


def test_a_label_not_asked_has_no_gradient():
    method, params, frozen = built(("a", "b"))
    image = np.random.default_rng(0).random((36, 36, 3))
    mask = jnp.asarray([True, False])
    for example in (
        prepared([1.0, jnp.nan], image, method, frozen),
        prepared([1.0, 0.0], image, method, frozen, label_mask=mask),
    ):
        kernel = np.asarray(grads_of(method, params, frozen, example)["head"]["kernel"])
        assert np.isfinite(kernel).all() and kernel[:, 0].any() and not kernel[:, 1].any()


def test_only_the_head_is_trained():
    _, params, frozen = built(("a", "b"))
    count = filters.feature_count(ProbeConfig(("a", "b"), **SMALL).design)
    assert jax.tree.map(jnp.shape, params) == {"head": {"kernel": (count, 2), "bias": (2,)}}
    assert set(frozen) == {"shrink2_kernel5", "shrink4_kernel5", "shrink2_kernel1", "features"}


def test_full_batch_noisy_steps_learn_to_tell_stripes_from_dots():
    method, params, frozen = built()
    rng = np.random.default_rng(0)
    waves = 0.5 + 0.4 * np.sin(np.arange(36) * 1.5)
    stripes = np.broadcast_to(waves[:, None], (36, 36))
    dots = 0.5 + 0.8 * (stripes - 0.5) * (stripes.T - 0.5) / 0.4
    label = np.arange(60) % 2.0
    images = np.where(label[:, None, None] == 1, stripes, dots)[..., None]
    images = np.repeat(images, 3, -1) + 0.1 * rng.standard_normal((60, 36, 36, 3))
    prepare = jax.jit(jax.vmap(method.prepare, (None, 0)))
    batch = prepare(frozen, {"image": jnp.asarray(images, jnp.float32), "label": label[:, None]})
    loss = lambda p, e: method.loss(p, frozen, e, jax.random.key(0))[0]
    mean = jax.jit(jax.grad(lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, batch))))
    for step in range(40):
        noise = lambda g, k=step: g + 0.02 * jax.random.normal(jax.random.key(k), g.shape)
        params = jax.tree.map(lambda p, g, n=noise: p - 5 * n(g), params, mean(params))
    scores = np.asarray(method.score(params, frozen, batch)["a"])
    assert scores[label == 1].min() > scores[label == 0].max()


def test_describe_says_that_no_patient_shaped_the_features():
    facts = probe.describe(ProbeConfig(("a",)))
    assert facts["features"] == 960 and "no patient's image shaped them" in facts["note"]


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"labels": ()}, r"labels = \(\) must be at least 1 different names"),
        ({"target": "multi-clas"}, "target = 'multi-clas' is none of .* Did you mean"),
        ({"class_weights": (1.0, 2.0)}, "class_weights has 2 entries for 1 labels"),
        ({"size": 32}, "size = 32 must be a multiple of 4 and at least 36"),
        ({"size": 50}, "size = 50 must be a multiple of 4"),
        ({"patterns": 0}, "patterns = 0 must lie in 1 to 4096"),
        ({"colours": 5000}, "colours = 5000 must lie in 1 to 4096"),
    ],
)
def test_a_wrong_config_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        ProbeConfig(**{"labels": ("a",), **fields})


def test_volumes_are_refused():
    spec = {"image": jax.ShapeDtypeStruct((8, 8, 8, 1), jnp.float32)}
    with pytest.raises(InputError, match="needs height, width and channels"):
        make_probe(ProbeConfig(("a",))).init(jax.random.key(0), spec)
