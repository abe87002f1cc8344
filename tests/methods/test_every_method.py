"""One suite that every Method passes; a newcomer adds itself to CASES."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.data.transforms import AugmentConfig, make_augment
from jaxfair.errors import InputError
from jaxfair.methods import catalog
from jaxfair.methods.adversarial import AdversarialConfig
from jaxfair.methods.classifier import ClassifierConfig
from jaxfair.methods.deepsvdd import DeepSVDDConfig
from jaxfair.methods.distillation import DistillationConfig
from jaxfair.methods.fae import FAEConfig
from jaxfair.methods.fairread import FairreadConfig
from jaxfair.methods.fcro import FcroConfig
from jaxfair.methods.gaussian import GaussianConfig
from jaxfair.methods.pca import PCAConfig
from jaxfair.methods.probe import ProbeConfig
from jaxfair.methods.ssim_autoencoder import SSIMAutoencoderConfig
from jaxfair.privacy.sums import clipping
from tests.methods.made import made

B = 3


def image_spec(*shape):
    return {"image": jax.ShapeDtypeStruct(shape, jnp.float32)}


def labelled_spec(labels, *shape):
    label = jax.ShapeDtypeStruct((labels,), jnp.float32)
    return {**image_spec(*shape), "label": label, "label_mask": label}


def grouped_spec(labels, *shape):
    return {**labelled_spec(labels, *shape), "group": jax.ShapeDtypeStruct((2,), jnp.int32)}


def classifier(labels, **fields):
    """A classifier of which only the last stage and the head train: quick to compile."""
    frozen = ("conv1", "bn1", "layer1", "layer2", "layer3")
    names = tuple(f"finding{i}_{s}" for i in range(labels) for s in ("left", "right"))[:labels]
    return ClassifierConfig(names, channels=1, **{"freeze": frozen, **fields})


ATTRIBUTES = {"sex": 2, "age_group": 3}
HEADS = {"hidden": 6, "embedding": 4}
FEATURES = {"backbone": "features", "size": 36, "patterns": 4, "colours": 4}
STAGED = {
    "attributes": ATTRIBUTES,
    "channels": 1,
    "freeze": ("conv1", "bn1", "layer1", "layer2", "layer3"),
    "embedding": 4,
    "directions": 2,
    "row_weight": 0.0,
}
FILTERS = {**FEATURES, "freeze": ()}
CASES = {
    "fae": ("fae", FAEConfig(hidden_dims=(8,), dropout=0.2), image_spec(16, 16, 1)),
    "fae-mse": (
        "fae",
        FAEConfig((8,), loss="mse", feature_dtype="bfloat16", score_region="foreground"),
        image_spec(16, 16, 1),
    ),
    "classifier": ("classifier", classifier(2), labelled_spec(2, 16, 16, 1)),
    "classifier-head": (
        "classifier",
        classifier(3, target="multi-class", last_layer=True, activation="mish"),
        labelled_spec(3, 16, 16, 1),
    ),
    "adversarial": (
        "adversarial",
        AdversarialConfig(
            ("a", "b"),
            ATTRIBUTES,
            channels=1,
            orthogonality="example",
            **HEADS,
            freeze=("conv1", "bn1", "layer1", "layer2", "layer3"),
        ),
        grouped_spec(2, 16, 16, 1),
    ),
    "adversarial-features": (
        "adversarial",
        AdversarialConfig(
            ("a", "b", "c"), ATTRIBUTES, "multi-class", adversary_on="logit", **HEADS, **FEATURES
        ),
        grouped_spec(3, 20, 16, 3),
    ),
    "fcro": (
        "fcro",
        FcroConfig(labels=("a", "b", "c"), target="multi-class", **STAGED | FILTERS),
        grouped_spec(3, 36, 36, 1),
    ),
    "fairread-published": (
        "fairread",
        FairreadConfig(labels=("a", "b"), arm="published", width=4, **STAGED),
        grouped_spec(2, 64, 64, 1),
    ),
    "fairread-disentangled": (
        "fairread",
        FairreadConfig(labels=("a",), width=4, blocks=1, dropout=0.0, **STAGED | FILTERS),
        grouped_spec(1, 36, 36, 1),
    ),
    "gaussian": ("gaussian", GaussianConfig(grid=2, dims=4), image_spec(16, 16, 1)),
    "pca": ("pca", PCAConfig(grid=2, dims=4, passes=1, directions=2), image_spec(16, 16, 1)),
    "deepsvdd": ("deepsvdd", DeepSVDDConfig((4, 6), dims=5), image_spec(16, 16, 1)),
    "reverse_distillation": (
        "reverse_distillation",
        DistillationConfig(width=4, feature_dtype="bfloat16"),
        image_spec(64, 64, 1),
    ),
    "ssim_autoencoder": (
        "ssim_autoencoder",
        SSIMAutoencoderConfig((4, 8), dropout=0.1),
        image_spec(16, 16, 1),
    ),
    "linear_probe": (
        "linear_probe",
        ProbeConfig(("a", "b"), size=36, patterns=4, colours=4),
        labelled_spec(2, 20, 16, 3),
    ),
    "linear_probe-cells": (
        "linear_probe",
        ProbeConfig(("a", "b"), "multi-class", size=36, patterns=4, colours=4, symmetric=False),
        labelled_spec(2, 36, 36, 1),
    ),
}
PARTS = {
    "classifier": {"augment": make_augment(AugmentConfig(0.5, 10, 0.1, 0.1), ("a_left", "a_right"))}
}


@functools.cache
def built(case):
    """Returns (method, params, frozen, batch) of a case, the batch merged from raw and prepared.

    Of several stages it is the last, which predicts.
    """
    method, spec = first_of(case), CASES[case][2]
    params, frozen = made(method, spec, method.stages)
    method = method.stages[-1].method if method.stages else method
    raw = raw_batch(spec)
    if method.prepare is None:
        return method, params, frozen, raw
    prepared = jax.jit(jax.vmap(method.prepare, in_axes=(None, 0)))(frozen, raw)
    return method, params, frozen, {**raw, **prepared}


def first_of(case):
    name, config, _ = CASES[case]
    return catalog.make_method(name, config, **PARTS.get(case, {}))


def raw_batch(spec):
    rng = np.random.default_rng(1)
    batch = {
        name: jnp.asarray(rng.random((B, *leaf.shape)), leaf.dtype) for name, leaf in spec.items()
    }
    if "label" in batch:
        count = batch["label"].shape[1]
        batch["label"] = jax.nn.one_hot(jnp.arange(B) % count, count)
        batch["label_mask"] = jnp.ones((B, count), bool).at[0, 0].set(count > 2)
    if "group" in batch:
        batch["group"] = jnp.asarray([[1, -1], [0, 2], [-1, -1]], jnp.int32)
    return batch


def row(batch, i):
    return jax.tree.map(lambda a: a[i], batch)


def loss_of(method, frozen):
    return lambda params, example, key: method.loss(params, frozen, example, key)[0]


@functools.cache
def compiled_grads(case):
    """The jitted per-example gradients of a case, compiled once for the tests that need them."""
    method, _, frozen, _ = built(case)
    return jax.jit(jax.vmap(jax.grad(loss_of(method, frozen)), in_axes=(None, 0, 0)))


SLOW = ("fairread-published",)
BEGINS_AT_ZERO = ("gaussian", "pca")
"""Methods that add up sums: nothing in them is drawn."""

MARKED = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES]


@pytest.fixture(params=MARKED)
def name(request):
    return request.param


@pytest.fixture
def case(name):
    return built(name)


def test_the_loss_of_one_example_is_a_finite_float32_scalar(case):
    method, params, frozen, batch = case
    loss, aux = jax.jit(method.loss)(params, frozen, row(batch, 0), jax.random.key(1))
    assert loss.shape == () and loss.dtype == jnp.float32 and jnp.isfinite(loss)
    assert isinstance(aux, dict)


def test_parameters_are_float32_and_frozen_arrays_are_not_among_them(case):
    _, params, frozen, _ = case
    assert jax.tree.leaves(params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert not {id(a) for a in jax.tree.leaves(params)} & {id(a) for a in jax.tree.leaves(frozen)}


def test_initialisation_is_a_function_of_its_key(name, case):
    params, method, spec = case[1], first_of(name), CASES[name][2]

    @jax.jit
    def init(key):
        variables = method.init(key, spec)
        for stage in method.stages:
            variables = stage.begin(*variables, jax.random.key(1), spec)
        return variables[0]

    first, again, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert jax.tree.map(jnp.shape, first) == jax.tree.map(jnp.shape, params)
    largest = lambda tree: max(jax.tree.leaves(tree), key=jnp.size)
    differ = not np.array_equal(largest(first), largest(other))
    assert differ == (CASES[name][0] not in BEGINS_AT_ZERO)


def test_scores_have_one_float_per_row_and_task_and_are_deterministic(case):
    method, params, frozen, batch = case
    score = jax.jit(method.score)
    first, second = score(params, frozen, batch), score(params, frozen, batch)
    assert set(first) - {"maps"} == set(method.tasks)
    for task in method.tasks:
        assert first[task].shape == (B,) and first[task].dtype == jnp.float32
        assert jnp.isfinite(first[task]).all()
        np.testing.assert_array_equal(first[task], second[task])
    if "maps" in first:
        assert first["maps"].shape == batch["image"].shape[:3]


@pytest.mark.parametrize("case", CASES)
def test_what_predictions_rest_on_is_the_first_embedding_for_jax_too(case):
    """jit, vmap and tree maps hand the names of a mapping on in the order of the alphabet."""
    method = first_of(case)
    method = method.stages[-1].method if method.stages else method
    if method.embed is None:
        return
    _, params, frozen, batch = built(case)
    named = []

    def embed(*given):
        found = method.embed(*given)
        named.extend(found)
        return found

    assert next(iter(jax.eval_shape(embed, params, frozen, batch))) == named[0]


def test_the_score_of_a_row_does_not_depend_on_another_row(case):
    method, params, frozen, batch = case
    score = jax.jit(method.score)
    changed = jax.tree.map(lambda a: a.at[1:].set(jnp.asarray(0.37).astype(a.dtype)), batch)
    before, after = score(params, frozen, batch), score(params, frozen, changed)
    for task in method.tasks:
        np.testing.assert_allclose(before[task][0], after[task][0], rtol=1e-6)


def test_per_example_gradients_under_vmap_equal_a_loop(name, case):
    method, params, frozen, batch = case
    keys = jax.random.split(jax.random.key(2), B)
    inputs = training_part(method, batch)
    together = compiled_grads(name)(params, inputs, keys)
    one = jax.jit(jax.grad(loss_of(method, frozen)))
    for i in range(B):
        for ours, truth in zip(
            jax.tree.leaves(row(together, i)), jax.tree.leaves(one(params, row(inputs, i), keys[i]))
        ):
            np.testing.assert_allclose(ours, truth, atol=1e-5 * max(np.abs(truth).max(), 1e-8))


def test_padding_rows_contribute_exactly_zero_even_as_nan(case):
    method, params, frozen, batch = case
    keys = jax.random.split(jax.random.key(3), B)
    inputs = training_part(method, batch)
    mask = jnp.arange(B) < 2
    spoilt = jax.tree.map(
        lambda a: a.at[2].set(jnp.nan) if jnp.issubdtype(a.dtype, jnp.floating) else a, inputs
    )
    total = jax.jit(
        functools.partial(clipping.clipped_sum, loss_of(method, frozen), l2_clip_norm=0.5)
    )
    clean = total(params, inputs, keys, mask)
    jax.tree.map(np.testing.assert_array_equal, clean, total(params, spoilt, keys, mask))
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(clean))


def test_isolation_no_example_changes_the_gradient_of_another(name, case):
    method, params, _, batch = case
    assert not method.couples_examples
    keys = jax.random.split(jax.random.key(4), B)
    inputs = training_part(method, batch)
    changed = jax.tree.map(lambda a: a.at[1:].set(jnp.zeros_like(a[:1])), inputs)
    grads = compiled_grads(name)
    before, after = grads(params, inputs, keys), grads(params, changed, keys)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[0]), before, after)


def test_every_method_in_the_catalog_has_a_case():
    assert {name for name, *_ in CASES.values()} == set(catalog.METHODS)


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match=r"no method 'fea'; known are .* Did you mean 'fae'"):
        catalog.make_method("fea", None)


def training_part(method, batch):
    """What the step is given: prepared arrays where the Method prepares, else the raw ones."""
    if method.prepare is None:
        return batch
    return {name: value for name, value in batch.items() if name != "image"}
