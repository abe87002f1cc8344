"""Each mistake of the systems that jaxfair rebuilds is impossible or refused here.

The systems: JohannesGetzner/fair-uad-with-dp (feature autoencoder on RSNA, Opacus) and
tayebiarasteh/DP_CXR (chest-radiograph classifiers, Opacus).
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfair.data import manifest
from jaxfair.engine.scan import make_delivery
from jaxfair.errors import InputError
from jaxfair.methods.catalog import METHODS
from jaxfair.models.extractor import FrozenNorm
from jaxfair.privacy import isolation, sampling
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from tests.privacy.test_edges_draws import dataset
from tests.privacy.test_edges_release import SPEC, over_the_batch
from tests.privacy.toy import (
    SECRET,
    Bench,
    C,
    dense_loss,
    dense_params,
    examples_of,
    flat64,
    plan_of,
    without,
)


def minmax_sum(examples):
    """fair-uad-with-dp: losses rescaled by the batch's minimum and maximum, then clipped."""
    params = dense_params()
    value = lambda p, x, s: dense_loss(p, {}, {"x": x, "scale": s}, None)[0]
    losses = jax.vmap(value, (None, 0, 0))

    def one(p, i):
        every = losses(p, examples["x"], examples["scale"])
        return ((every - every.min()) / (every.max() - every.min()))[i]

    grads = [flat64(jax.grad(one)(params, i)) for i in range(len(examples["scale"]))]
    return sum(g * min(1.0, C / max(np.linalg.norm(g), 1e-30)) for g in grads)


def test_batch_minmax_weighting_of_fair_uad_exceeds_c_and_cannot_be_written_here():
    examples = examples_of([0.2, 0.3, 0.25, 0.22, 0.28, 0.24, 0.26, 50.0])
    rest = without(examples, 7)
    assert np.linalg.norm(minmax_sum(examples) - minmax_sum(rest)) > 2 * C
    bench = Bench()
    moved = np.linalg.norm(bench.clipped_sum(examples) - bench.clipped_sum(rest))
    assert moved <= C * (1 + 1e-6)
    squash = over_the_batch(jnp.max)

    def loss(params, frozen, example, key):
        value, aux = dense_loss(params, frozen, example, key)
        return squash(value), aux

    with pytest.raises(InputError, match="examples"):
        isolation.check("fair-uad", loss, None, dense_params(), {}, SPEC)


def test_upsampled_patients_of_fair_uad_are_one_unit_and_copied_rows_are_refused():
    upsampled = dataset(["a", "b", "b", "b"])
    ids, rows = upsampled.units("patient")
    assert ids == ["a", "b"] and [len(own) for own in rows] == [1, 3]
    with pytest.raises(InputError, match="more than once"):
        manifest.check(pd.concat([upsampled.manifest] * 2))


def test_frozen_batchnorm_of_fair_uad_never_uses_the_batch():
    images = jnp.asarray(np.random.default_rng(0).normal(3, 2, (6, 4, 4, 2)), jnp.float32)
    variables = FrozenNorm().init(jax.random.key(0), images[:1])
    together = FrozenNorm().apply(variables, images)
    alone = FrozenNorm().apply(variables, images[2:3])
    np.testing.assert_allclose(together[2:3], alone, atol=1e-6)


def test_the_poisson_loader_that_fair_uad_dropped_is_the_only_one_here():
    bench = Bench(plan=plan_of(prob=0.3))
    read = []
    source = bench.feed(examples_of(np.ones(30)))
    fields = {n: (lambda rows, f=f: read.append(rows) or f(rows)) for n, f in source.fields.items()}
    for step in range(20):
        read.clear()
        list(source._replace(fields=fields).chunks(step, 1))
        drawn = sampling.poisson_draw(SECRET, step, num_units=30, sampling_prob=0.3)
        assert sorted(np.concatenate(read)) == sorted(np.repeat(drawn, len(fields)))
    assert make_delivery(bench.step, source, bench.frozen).arguments == source.chunks


def test_delta_of_one_over_n_as_in_fair_uad_is_refused():
    with pytest.raises(InputError, match=r"above 0\.1 / public_size"):
        make_plan(PrivacyConfig(delta=1 / 6000), steps=1, expected_batch_size=10, public_size=6000)


def test_class_weights_from_private_labels_as_in_dp_cxr_have_no_way_in():
    healthy, ill = dataset(["a", "b", "c"]), dataset(["a", "b", "c"])
    ill.manifest["label_anomaly"] = 1.0
    assert healthy.spec == ill.spec
    for cls, _ in METHODS.values():
        given = inspect.signature(cls).parameters
        assert not {"labels_file", "dataset", "manifest", "prevalence"} & set(given)
    assert METHODS["classifier"][0](labels=("any",)).class_weights == ()
