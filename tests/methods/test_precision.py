"""Convolutions in bfloat16: float32 around them, near float32, and clipped as strictly."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.methods.classifier import ClassifierConfig, make_classifier
from jaxfair.methods.fae import FAEConfig, make_fae
from jaxfair.methods.precision import rounded_kernels
from jaxfair.models.autoencoder import FeatureAutoencoder
from jaxfair.privacy.sums import choice, fast, formats
from tests.methods.made import made
from tests.privacy.contributions import QUICK, contributing, norms_of
from tests.privacy.test_fast import difference, loop_clipped_sum, norm, run

ENDS = ("['scale']", "['bias']")
LOW = np.dtype(jnp.bfloat16)
SUMS = ("reduce_sum", "rsqrt", "exp", "log", "integer_pow", "square", "cumsum")
WAYS = {
    "vmap": choice.How("vmap"),
    "loop": choice.How("fast", way="loop"),
    "batched": choice.How("fast", way="accelerator"),
    "batched bfloat16": choice.How("fast", "bfloat16", "accelerator"),
}


def autoencoder(precision, **fields):
    return make_fae(FAEConfig(hidden_dims=(8,), precision=precision, **fields))


def classifier(precision):
    return make_classifier(ClassifierConfig(labels=("a", "b"), channels=1, precision=precision))


@functools.cache
def drawn(make, rows=5):
    """Parameters, frozen ones and a batch as the loss gets it: of features, or of images."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal((rows, *shape)), jnp.float32)
    if make is autoencoder:
        model, batch = FeatureAutoencoder((8,)), {"features": draw(8, 8, 6)}
        init = lambda key, spec: (model.init(key, batch["features"], train=False)["params"], {})
        return *made(SimpleNamespace(init=init), {}), batch
    batch = {"image": draw(16, 16, 1), "label": (draw(2) > 0).astype(jnp.float32)}
    spec = {"image": jax.ShapeDtypeStruct((16, 16, 1), jnp.float32)}
    return *made(classifier("float32"), spec), batch


def loss_in(make, precision):
    method, frozen = make(precision), drawn(make)[1]
    return lambda params, example, key: method.loss(params, frozen, example, key)[0]


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for one in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(one, "jaxpr", one)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


@pytest.mark.parametrize("make", [autoencoder, classifier])
def test_convolutions_multiply_in_bfloat16_and_what_is_summed_is_float32(make):
    params, _, batch = drawn(make)
    example = jax.tree.map(lambda x: x[0], batch)
    traced = jax.make_jaxpr(loss_in(make, "bfloat16"))(params, example, jax.random.key(0))
    count = sum(p.ndim > 2 for p in jax.tree.leaves(params))
    rounded, low = 0, []
    for eqn in equations(traced.jaxpr):
        kinds = {v.aval.dtype for v in eqn.invars}
        if eqn.primitive.name in ("conv_general_dilated", "dot_general"):
            assert len(kinds) == 1
            rounded += LOW in kinds
        elif LOW in kinds and eqn.primitive.name in SUMS:
            low.append(eqn)
    assert rounded == count, "each convolution once, and no other product"
    assert not low
    assert traced.out_avals[0].dtype == jnp.float32


@pytest.mark.parametrize("make", [autoencoder, classifier])
def test_the_gradient_is_float32_and_near_that_of_float32(make):
    params, _, batch = drawn(make)
    example = jax.tree.map(lambda x: x[0], batch)
    grads = {}
    for precision in ("float32", "bfloat16"):
        call = jax.jit(jax.grad(loss_in(make, precision)), compiler_options=QUICK)
        grads[precision] = jax.tree.map(np.asarray, call(params, example, jax.random.key(0)))
    assert all(g.dtype == np.float32 for g in jax.tree.leaves(grads["bfloat16"]))
    assert 1e-5 < difference(grads["bfloat16"], grads["float32"]) < 0.2


@pytest.mark.parametrize("make", [autoencoder, classifier])
@pytest.mark.parametrize("way", ["loop", "batched"])
def test_every_kernel_is_recognised_still(make, way):
    params, _, batch = drawn(make)
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)
    given = (loss_in(make, "bfloat16"), params, example, jax.random.key(0))
    rows = fast.explain(*given, choice.rule(WAYS[way]))
    assert not [path for path, way, _ in rows if way == "vmap" and not path.endswith(ENDS)]


def summed(how):
    return lambda *given, l2_clip_norm: choice.clipped_sum(how, *given, l2_clip_norm=l2_clip_norm)


def hostile():
    """One example is huge, one not a number."""
    return {"features": drawn(autoencoder)[2]["features"].at[1].mul(300.0).at[2].set(jnp.nan)}


@functools.cache
def truth_of(clip):
    """The sum of one example after the other, without the one that is not a number."""
    loss, counted = loss_in(autoencoder, "bfloat16"), np.arange(5) != 2
    given = (loss, drawn(autoencoder)[0], hostile(), counted)
    return run(loop_clipped_sum, *given, l2_clip_norm=clip)


@pytest.mark.parametrize("way", WAYS)
def test_a_private_sum_is_that_of_the_loop_and_each_contribution_at_most_c(way):
    params, _, batch = drawn(autoencoder)
    loss, batch, clip = loss_in(autoencoder, "bfloat16"), hostile(), 1e-3
    call = functools.partial(run, summed(WAYS[way]), loss, params, batch, l2_clip_norm=clip)
    assert difference(call(), truth_of(clip)) < (3e-2 if "bfloat16" in way else 1e-2)
    sizes = [norm(call(np.arange(5) == i)) for i in range(5)]
    assert sizes[2] == 0 and max(sizes) <= clip
    assert min(sizes[i] for i in (0, 3, 4)) > 0.99 * clip, "clipped, or the bound holds of nothing"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_contribution_of_rounded_operands_recomputed_in_float64_is_at_most_c(precision):
    params, _, batch = drawn(autoencoder)
    loss = lambda params, x, key: loss_in(autoencoder, "bfloat16")(params, {"features": x}, key)
    call = contributing(loss, formats.FORMATS[precision])
    found, _, _ = call(params, batch["features"], jnp.ones(5, bool), 1e-3)
    sizes = norms_of(found)
    assert sizes.min() > 0.99e-3 and sizes.max() <= 1e-3


def test_scores_and_a_standardised_kernel_are_made_of_float32_parameters():
    for fields in ({}, {"standardise": True}):
        methods = [autoencoder(precision, **fields) for precision in ("float32", "bfloat16")]
        assert methods[0].score.func is methods[1].score.func
        assert methods[0].loss is not methods[1].loss
    kernel = jnp.ones((3, 3, 1, 1))
    params = rounded_kernels({"kernel": kernel, "scale": kernel[0, 0, 0], "head": kernel[0, 0]})
    kinds = jax.tree.map(lambda p: p.dtype, params)
    assert kinds == {"kernel": jnp.bfloat16, "scale": jnp.float32, "head": jnp.float32}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"precision": "float16"}, "'float16' is none of 'float32', 'bfloat16'"),
        ({"precision": "bfloat16", "backbone": "densenet121"}, "trained residual networks"),
        ({"precision": "bfloat16", "last_layer": True}, "with last_layer"),
    ],
)
def test_a_precision_is_refused_where_nothing_holds_it(fields, words):
    with pytest.raises(InputError, match=words):
        ClassifierConfig(labels=("a",), **fields)


def test_the_autoencoder_refuses_an_unknown_precision():
    with pytest.raises(InputError, match="precision = 'half' is none of"):
        FAEConfig(precision="half")
