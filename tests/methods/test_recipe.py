"""What a recipe for private networks rests on: standardised filters and views under one clip."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.methods import fae
from jaxfair.methods.classifier import ClassifierConfig
from jaxfair.methods.fae import FAEConfig, make_fae
from jaxfair.methods.multiplicity import views_of
from jaxfair.models.autoencoder import FeatureAutoencoder
from jaxfair.models.extractors import Extractor
from jaxfair.models.resnet import BasicBlock
from jaxfair.privacy.sums import clipping, fast
from tests.privacy.views import BATCH, KEYS, MASK, PARAMS, inverted, looped, loss_of

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
CLIP = 0.1


@functools.cache
def block(axes):
    """A standardised block and a loss of one image; every leaf of it is trained."""
    module = BasicBlock(8, 2, norm="unscaled", activation="mish", standardise=True)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(4, *(5,) * axes, 4)), jnp.float32)
    params = jax.jit(module.init, compiler_options=QUICK)(jax.random.key(0), x)["params"]

    def loss(params, example, key):
        return jnp.sum(jnp.tanh(module.apply({"params": params}, example[None])) ** 3)

    return loss, params, x


@pytest.mark.parametrize("axes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_standardised_block_is_clipped_as_in_the_loop_whichever_way(axes):
    loss, params, x = block(axes)
    keys, mask = jax.random.split(jax.random.key(0), 4), jnp.asarray([True, True, False, True])
    grad = jax.jit(jax.grad(loss), compiler_options=QUICK)
    total = jax.tree.map(lambda p: np.zeros(p.shape), params)
    for i in (0, 1, 3):
        single = jax.tree.map(lambda g: np.asarray(g, np.float64), grad(params, x[i], keys[i]))
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(single)))
        assert norm > CLIP
        total = jax.tree.map(lambda t, g, n=norm: t + g * CLIP / n, total, single)
    for way in (fast.clipped_sum, clipping.clipped_sum):
        call = jax.jit(functools.partial(way, loss, l2_clip_norm=CLIP), compiler_options=QUICK)
        ours = call(params, x, keys, mask)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(total), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * CLIP)


def test_a_standardised_filter_is_held_per_example_and_none_goes_unrecognised():
    loss, params, x = block(2)
    told = {path: way for path, way, _ in fast.explain(loss, params, x[0], jax.random.key(0))}
    kernels = [way for path, way in told.items() if path.endswith("['kernel']")]
    assert kernels == ["kept"] * 3


def test_one_view_is_the_view_that_the_first_of_its_keys_draws_bit_by_bit():
    key, example = jax.random.key(3), jax.tree.map(lambda a: a[0], BATCH)
    one = jax.jit(loss_of(1))(PARAMS, example, key)
    drawn = inverted(example, jax.random.split(key, 1)[0])
    assert one == jax.jit(loss_of(1, augment=None))(PARAMS, drawn, key)


def test_views_follow_the_key_of_their_unit_and_differ_from_each_other():
    example = jax.tree.map(lambda a: a[0], BATCH)
    drawn = [views_of(shaken, example, 4, key)["image"] for key in KEYS[jnp.array([0, 0, 1])]]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert len({float(view.sum()) for part in drawn[1:] for view in part}) == 8


def shaken(example, key):
    return {**example, "image": example["image"] + jax.random.normal(key, (8, 8, 1))}


@pytest.mark.parametrize("views", [4, 16])
def test_the_views_of_a_unit_are_clipped_as_one_gradient_whichever_way(views):
    for way in (fast.clipped_sum, clipping.clipped_sum):
        call = jax.jit(functools.partial(way, loss_of(views), l2_clip_norm=CLIP))
        ours = call(PARAMS, BATCH, KEYS, MASK)["head"]
        np.testing.assert_allclose(ours, looped(views, CLIP), rtol=1e-3, atol=1e-5 * CLIP)


def test_nobody_elses_views_decide_what_a_unit_adds():
    grads = jax.jit(jax.vmap(jax.grad(loss_of(4)), in_axes=(None, 0, 0)))
    before = grads(PARAMS, BATCH, KEYS)["head"]
    others = jax.tree.map(lambda a: a.at[1:].set(a[:1] * 7), BATCH)
    np.testing.assert_array_equal(grads(PARAMS, others, KEYS)["head"][0], before[0])


def autoencoder(**fields):
    return FAEConfig(hidden_dims=(2,), dropout=0.0, **fields)


def cells(frozen, x):
    """In the place of the extractor, which takes long to compile: means over 4 x 4 pixels."""
    means = x.reshape(len(x), 2, 4, 2, 4, 3).mean((2, 4, 5))
    return means[..., None] * jnp.arange(1.0, 257)


def test_an_autoencoder_averages_the_loss_of_its_views_and_scores_without_them(monkeypatch):
    monkeypatch.setattr(fae, "make_extractor", lambda name: Extractor(256, None, cells))
    method = make_fae(autoencoder(multiplicity=2, standardise=True), augment=shaken)
    plain = make_fae(autoencoder(standardise=True))
    model = FeatureAutoencoder((2,), standardise=True)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 256)), train=False)
    )
    rng = np.random.default_rng(0)
    drawn = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)
    params = jax.tree.map(drawn, shapes["params"])
    example, key = {"image": BATCH["image"][0]}, jax.random.key(5)

    def both(params, example):
        views = views_of(shaken, example, 2, jax.random.fold_in(key, fae.VIEWS))
        prepared = jax.vmap(plain.prepare, (None, 0))({}, views)
        one = jax.vmap(lambda e: plain.loss(params, {}, e, key)[0])
        scores = method.score(params, {}, views), plain.score(params, {}, views | prepared)
        return method.loss(params, {}, example, key)[0], one(prepared), *scores

    ours, singles, *scores = jax.jit(both, compiler_options=QUICK)(params, example)
    assert method.prepare is None and singles[0] != singles[1]
    assert float(ours) == pytest.approx(float(np.mean(singles)), rel=1e-5)
    np.testing.assert_allclose(scores[0]["anomaly"], scores[1]["anomaly"], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: make_fae(autoencoder(multiplicity=2)), "there is no augmentation"),
        (lambda: autoencoder(multiplicity=0), "multiplicity = 0 must be at least 1"),
        (
            lambda: ClassifierConfig(("a",), backbone="densenet121", standardise=True),
            "standardise = True is of residual networks, and the backbone is 'densenet121'",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
