"""Each mistake of the systems that jaxfair rebuilds is impossible or refused here.

The systems: JohannesGetzner/fair-uad-with-dp (feature autoencoder on RSNA, Opacus) and
tayebiarasteh/DP_CXR (chest-radiograph classifiers, Opacus).
"""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfair import evaluate, report, train
from jaxfair.config import load_config, plan_from_settings, settings_from_config
from jaxfair.data import manifest
from jaxfair.data.dataset import Dataset
from jaxfair.errors import InputError
from jaxfair.methods.catalog import METHODS
from jaxfair.models.extractor import FrozenNorm
from jaxfair.privacy import isolation, sampling
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.privacy.secret import insecure_secret
from jaxfair.start import open_data
from tests.privacy.test_edges_draws import dataset
from tests.privacy.test_edges_release import SPEC, over_the_batch
from tests.privacy.toy import (
    Bench,
    C,
    dense_loss,
    dense_params,
    examples_of,
    flat64,
    without,
)
from tests.test_phantoms import FILMS
from tests.test_phantoms import FOLDER as CONFIGS


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


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A small private training of a head on raw images: what it read, and in which order.

    Attributes: plan, dataset, patients (of every image read), happened (what came when).
    """
    folder, happened, read = tmp_path_factory.mktemp("raw"), [], []
    config = load_config(str(CONFIGS / "table_resnet.py") + ":phantom")
    with config.unlocked():
        config.data.root = str(folder / "phantoms")
        config.update_from_flattened_dict(FILMS | {"method.last_layer": True})
        config.augment.intensity = 0.1  # so images are read in every step, and nothing is cached
        config.dp.insecure_seed, config.train.steps = 5, 4
        config.data.public_size = 75  # unlike the true number of patients
    settings = settings_from_config(config)
    dataset = open_data(settings, progress=False)
    images, labels = Dataset.images, Dataset.labels
    entry = METHODS["classifier"]

    @functools.wraps(entry.make)
    def spy_make(*args, **parts):
        happened.append("method made")
        return entry.make(*args, **parts)

    def spy_images(self, rows):
        read.append(np.asarray(rows))
        return images(self, rows)

    def spy_labels(self, rows):
        happened.append("labels read")
        return labels(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "classifier", entry._replace(make=spy_make))
        patch.setattr(Dataset, "images", spy_images)
        patch.setattr(Dataset, "labels", spy_labels)
        patch.setattr(evaluate, "run", lambda *args, **kwargs: None)  # it reads other patients
        patch.setattr(report, "run", lambda *args, **kwargs: None)
        train.run(config, folder / "run", num_devices=1, progress=False)
    patients = dataset.manifest["patient_id"].astype(str).iloc[np.concatenate(read)]
    return types.SimpleNamespace(
        plan=plan_from_settings(settings),
        dataset=dataset,
        patients=list(patients),
        happened=happened,
    )


def test_the_poisson_loader_that_fair_uad_dropped_is_what_training_reads_by(training):
    """Whoever is read in a whole training was drawn by Poisson at the plan's rate."""
    ids, _ = training.dataset.units("patient")
    prob, left = training.plan.sampling_prob, training.patients
    for step in range(training.plan.steps):
        drawn = sampling.poisson_draw(
            insecure_secret(5), step, num_units=len(ids), sampling_prob=prob
        )
        now, left = left[: len(drawn)], left[len(drawn) :]
        assert sorted(now) == sorted(ids[unit] for unit in drawn)
    assert left == [], "nobody is read who was not drawn"


def test_delta_of_one_over_n_as_in_fair_uad_is_refused():
    with pytest.raises(InputError, match=r"above 0\.1 / public_size"):
        make_plan(PrivacyConfig(delta=1 / 6000), steps=1, expected_batch_size=10, public_size=6000)


def test_class_weights_from_private_labels_as_in_dp_cxr_have_no_way_into_an_example():
    """What anybody's example holds is the same whatever the labels of all others are."""
    healthy, ill = dataset(["a", "b", "c"]), dataset(["a", "b", "c"])
    for data in (healthy, ill):
        data.manifest["label_anomaly"] = [1.0, 0.0, 0.0]
    ill.manifest.loc[1:, "label_anomaly"] = 1.0
    healthy, ill = (dataclasses.replace(data, tasks=("anomaly",)) for data in (healthy, ill))
    assert healthy.spec == ill.spec and set(healthy.fields) == set(healthy.spec)
    first = np.array([0])
    for name, read in healthy.fields.items():
        np.testing.assert_array_equal(read(first), ill.fields[name](first), err_msg=name)
    assert not np.array_equal(healthy.labels([1]), ill.labels([1])), "the others do differ"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_no_numbers_by_label_but_public_class_weights(name):
    """A new field that could hold counts of labels has to be argued for here."""
    cls = METHODS[name].config
    many = {f.name: str(f.type) for f in dataclasses.fields(cls) if not _one_choice(f.type)}
    known = {"labels", "freeze", "hidden_dims", "class_weights", "attributes", "sizes"}
    assert set(many) <= known, many  # sizes: sides of images
    assert many.get("labels", "tuple[str, ...]") == "tuple[str, ...]"
    # How many values each of data.groups may have: the lengths of declared lists, not of data.
    given = {"attributes": {"sex": 2}} if "attributes" in many else {}
    if "class_weights" in many:
        assert cls(labels=("any",), **given).class_weights == ()
        with pytest.raises(InputError, match="never computed from private labels"):
            cls(labels=("any",), class_weights="balanced", **given)


def _one_choice(kind):
    return kind in (int, float, str, bool, str | None)


def test_the_method_is_made_before_anybodys_labels_are_read(training):
    assert set(training.happened) == {"method made", "labels read"}
    assert "method made" not in training.happened[training.happened.index("labels read") :]
