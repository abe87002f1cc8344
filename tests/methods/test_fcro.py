"""FCRO through the engine: its subspace is the SVD's, its stages are private, what is unknown."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import engine
from jaxfair.engine.assembly import join
from jaxfair.engine.chunk import Randomness
from jaxfair.errors import InputError
from jaxfair.methods import moments
from jaxfair.methods.embedder import paired
from jaxfair.methods.fcro import FcroConfig, describe
from jaxfair.privacy.noise import noise_key_data
from jaxfair.privacy.secret import insecure_secret
from jaxfair.privacy.verify import verify_run
from jaxfair.run import checkpoint
from tests.methods.staged import (
    SMALL,
    SPEC,
    N,
    drawn,
    example_of,
    fairread,
    fcro,
    opened,
    plan_of,
    stages_of,
)
from tests.methods.test_moments import worst_angle


def batch():
    return {name: jnp.asarray(values) for name, values in drawn().items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A plain run in which every step draws everybody, at its end."""
    trainer = opened(tmp_path_factory.mktemp("fcro") / "run", fcro())
    trainer.run()
    return trainer


def test_the_subspace_of_a_run_is_that_of_the_svd_of_its_attribute_embeddings(trained):
    assembly = trained.assembly
    x = assembly.method.embed(trained.params(), assembly.frozen, batch())["sensitive"]
    x, label = np.asarray(x, np.float64), drawn()["label"][:, 0]
    asked = drawn()["label_mask"][:, 0]
    for y in (0, 1):
        left, singular, _ = np.linalg.svd(x[asked & (label == y)].T, full_matrices=False)
        basis = np.asarray(assembly.frozen["subspace"]["basis"][y])[:, :2]
        assert singular[1] > 1.05 * singular[2], "the truth is well defined"
        assert worst_angle(basis, left[:, :2]) < 5e-3


def test_the_label_stage_minimises_label_loss_and_weighted_column_loss():
    def loss(weight, **changes):
        method, params, frozen = stages_of(fcro(column_weight=weight))[-1]
        found = method.loss(params, frozen, example_of(**changes), jax.random.key(0))[0]
        return float(found)

    method, params, frozen = stages_of(fcro())[-1]
    z = method.embed(params, frozen, batch())["disease"][5]
    classes = moments.belongs(example_of(), "multi-label")
    column = moments.column_loss(frozen["subspace"]["basis"], z, classes, 1)
    assert loss(80.0) - loss(0.0) == pytest.approx(80 * float(column), rel=1e-4)
    score = float(method.score(params, frozen, batch())["a"][5])
    label = float(drawn()["label"][5, 0])
    assert loss(0.0) == pytest.approx(-np.log(score if label else 1 - score), rel=1e-4)


def test_predictions_rest_on_the_first_embedding():
    method, params, frozen = stages_of(fcro())[-1]
    z = next(iter(method.embed(params, frozen, batch()).values()))
    head = params["head"]["classifier"]
    truth = jax.nn.sigmoid(z @ head["kernel"] + head["bias"])[:, 0]
    np.testing.assert_allclose(method.score(params, frozen, batch())["a"], truth, rtol=1e-5)


@pytest.mark.parametrize("make", [fcro, fairread])
def test_the_column_loss_is_that_of_the_subspace_of_the_examples_own_class(make):
    _, params, frozen = stages_of(make())[-1]
    basis = np.zeros((2, 8, 8), np.float32)
    basis[0, 0, 0] = basis[1, 1, 0] = basis[1, 2, 1] = 1  # axes 0; axes 1 and 2
    frozen = frozen | {"subspace": {"basis": jnp.asarray(basis)}}

    def loss(weight, row):
        method = make(column_weight=weight).stages[-1].method
        return float(method.loss(params, frozen, example_of(row), jax.random.key(0))[0])

    z = make().stages[-1].method.embed(params, frozen, batch())["disease"]
    for row in (5, int(np.flatnonzero(drawn()["label"][:, 0] != drawn()["label"][5, 0])[-1])):
        axes = ([0], [1, 2])[int(drawn()["label"][row, 0])]
        inside = float(np.sum(np.square(z[row][np.array(axes)])))
        assert loss(80.0, row) - loss(0.0, row) == pytest.approx(80 * inside, rel=1e-3)


@pytest.mark.slow
def test_the_column_loss_leads_the_embedding_out_of_the_subspace(tmp_path):
    def inside(trainer):
        here = trainer.assembly
        z = here.method.embed(trainer.params(), here.frozen, batch())["disease"]
        basis, label = here.frozen["subspace"]["basis"], drawn()["label"][:, 0].astype(int)
        return np.mean(np.sum(np.einsum("nde,nd->ne", basis[label], z) ** 2, axis=1))

    free, held = (opened(tmp_path / f"{w}", fcro(column_weight=w), steps=80) for w in (0.0, 80.0))
    for trainer in (free, held):
        trainer.run()
    assert inside(held) < 0.5 * inside(free)


@pytest.mark.slow
def test_a_private_run_trains_the_same_stages_with_one_ledger(tmp_path):
    trainer = opened(tmp_path / "run", fcro(), private=True)
    trainer.run()
    told = json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert told["steps"] == 8 and told["epsilon"] <= 8.0
    assert [stage["stage"] for stage in told["stages"]["apart"]] == ["train", "train 2", "train 3"]
    assert verify_run(tmp_path / "run") == []
    assert np.isfinite(trainer.params()["head"]["projection"]["kernel"]).all()


@pytest.mark.slow
def test_the_noise_on_a_moment_is_that_of_the_plan_and_of_nothing_else():
    """Three steps with everybody drawn: private minus plain is the noise of three steps."""
    method, params, frozen = stages_of(fcro(embedding=32))[1]
    readers = {name: values.__getitem__ for name, values in drawn().items()}
    found = {}
    for private in (False, True):
        made = join(
            plan_of(enabled=private), method, fcro().stages[0].optimizer, spec=SPEC,
            variables=(params, frozen), microbatch=N, mesh=engine.make_mesh(1),
        )  # fmt: skip
        state = made.begin()
        for step in range(3):
            words = noise_key_data(insecure_secret(0), step, made.num_leaves)
            keys = Randomness(np.zeros(2, np.uint32), words)
            state, _ = made.update(state, made.chunk(readers, range(N)), keys)
        found[private] = np.asarray(state.params["moment"], np.float64)
        plan = made.plan
    margin = 1e-3 * np.abs(found[False]).max()  # the clip leaves room for rounding
    stddev = plan.noise_stddev() / plan.expected_batch_size
    assert stddev > 20 * margin
    noise = (found[True] - found[False]).std()
    assert noise == pytest.approx(stddev * np.sqrt(3), rel=0.06)


@pytest.mark.slow
def test_a_run_killed_after_its_moment_ends_bit_equal(tmp_path, monkeypatch):
    method = fcro()
    whole = opened(tmp_path / "whole", method, private=True)
    whole.run()
    count, save = [0], checkpoint.save

    def stop(*arguments):
        save(*arguments)
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path / "cut", method, private=True).run()
    resumed = opened(tmp_path / "cut", method, private=True)
    resumed.run()
    jax.tree.map(np.testing.assert_array_equal, resumed.params(), whole.params())


def test_the_row_loss_is_refused_under_privacy_by_name_before_anything_is_trained(tmp_path):
    with pytest.raises(InputError, match="'fcro, row_weight 500' couples the examples"):
        opened(tmp_path / "run", fcro(row_weight=500.0), private=True)
    assert not (tmp_path / "run").exists()


def test_the_row_loss_is_that_of_a_batch_against_the_attribute_encoder():
    method, params, frozen = stages_of(fcro(row_weight=500.0))[-1]
    rows, mask = {name: values[:20] for name, values in batch().items()}, jnp.arange(20) < 15
    both = method.embed(params, frozen, rows)
    classes = moments.belongs(rows, "multi-label")[:15]
    wanted = 500 * moments.row_loss(both["disease"][:15], both["sensitive"][:15], classes)
    found = method.batch_loss(params, frozen, rows, mask, None)
    assert float(found) == pytest.approx(float(wanted), rel=1e-4) and float(wanted) > 0


def gradient(stage, **changes):
    method, params, frozen = stages_of(fcro())[stage]
    example = example_of(**changes)
    grad = jax.grad(lambda p: method.loss(p, frozen, example, jax.random.key(0))[0])
    return jax.device_get(grad(params))


def test_an_unknown_attribute_teaches_the_encoder_nothing():
    silent = gradient(0, group=jnp.array([-1, -1]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(silent))
    kernel = gradient(0, group=jnp.array([1, -1]))["head"]["classifier"]["kernel"]
    assert kernel[:, 0].any() and not kernel[:, 1:].any()


def test_a_label_that_was_not_asked_has_no_loss_and_no_class():
    asked_nothing = {"label_mask": jnp.zeros(1, bool)}
    for stage in (1, 2):
        silent = gradient(stage, **asked_nothing)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(silent))
        heard = gradient(stage)
        assert any(np.any(leaf) for leaf in jax.tree.leaves(heard))


def test_an_attribute_of_two_values_has_one_output_as_published():
    logits = paired(jnp.array([2.0, 0.1, 0.2, 0.3, -1.0]), (2, 3, 2))
    np.testing.assert_allclose(logits, [0, 2.0, 0.1, 0.2, 0.3, 0, -1.0])
    _, params, _ = stages_of(fcro())[0]
    assert params["head"]["classifier"]["bias"].shape == (1 + 3,)


def test_each_run_and_each_stage_begins_with_weights_of_its_own():
    kernels = [
        stages_of(fcro(), seed)[place][1]["head"]["projection"]["kernel"]
        for seed in (0, 1)
        for place in (0, 2)
    ]
    assert len({np.asarray(kernel).tobytes() for kernel in kernels}) == 4


def turned(example, key):
    return example | {"image": example["image"] * jax.random.normal(key)}


@pytest.mark.parametrize("make", [fcro, functools.partial(fairread, attribute_dropout=0.0)])
def test_losses_see_augmented_images_and_the_second_moment_sees_them_as_they_are(make):
    for place, (_, params, frozen) in enumerate(stages_of(make())):
        changed = make(augment=turned)
        method = changed.stages[place - 1].method if place else changed
        first, second = (
            float(method.loss(params, frozen, example_of(), jax.random.key(i))[0]) for i in (0, 1)
        )
        assert (first == second) == (place == 1) and method.prepare is None


def test_a_stage_that_predicts_nothing_yet_says_so():
    with pytest.raises(InputError, match="has not come to its last stage"):
        fcro().score({}, {}, {})


def test_a_method_without_attributes_is_refused_in_one_sentence():
    with pytest.raises(InputError, match=r"'fcro' needs at least one .* data\.groups"):
        FcroConfig(**SMALL | {"attributes": {}})
    spec = {name: leaf for name, leaf in SPEC.items() if name != "group"}
    with pytest.raises(InputError, match=r"carries 0 attributes .* data\.groups"):
        fcro().init(jax.random.key(0), spec)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"energy": 1.0}, "energy = 1.0 must be in"),
        ({"directions": 8}, "directions = 8 must be from 0 to below"),
        ({"row_weight": -1.0}, "row_weight = -1.0 must be"),
        ({"moment_share": 0.0}, "moment_share = 0.0 must be"),
        ({"target_share": 0.8}, "moment_share = 0.25, target_share = 0.8 add up to 1.05; it must"),
        ({"target": "many"}, "target = 'many' is none of"),
    ],
)
def test_a_wrong_field_ends_in_one_sentence(fields, sentence):
    with pytest.raises(InputError) as caught:
        FcroConfig(**SMALL | fields)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_report_is_told_what_the_embedding_was_held_out_of():
    told = describe(FcroConfig(**SMALL))
    assert "2 directions" in told["note"] and "sex, age_group" in told["note"]
    assert told["needs"] == []
