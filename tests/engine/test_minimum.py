"""The minimum of a convex objective as the one step of a run: paid, saved, replayed, verified."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import engine
from jaxfair.engine import minimum as engine_minimum
from jaxfair.errors import InputError
from jaxfair.methods.base import Linear, Method
from jaxfair.methods.labels import label_loss
from jaxfair.privacy.perturbation import Perturbation, minimum
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.privacy.queries import REST
from jaxfair.privacy.verify import verify_run
from jaxfair.privacy.verify_asked import asked_faults

UNITS, FEATURES = 40, 3


ONE = Linear((1.0,))


def head(linear=ONE):
    """A linear head on the features of an example."""

    def loss(params, frozen, example, key):
        logits = example["features"] @ params["head"]["kernel"] + params["head"]["bias"]
        return label_loss(logits[None], {"label": example["label"][None]}, "multi-label"), {}

    def init(key, spec):
        return {"head": {"kernel": jnp.zeros((FEATURES, 1)), "bias": jnp.zeros(1)}}, {}

    return Method("head", ("yes",), init, loss, lambda *given: {}, linear=linear)


def made_up():
    """Two images of each unit, of which one takes part."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * UNITS, FEATURES)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, (x[:, :1] > 0).astype(np.float32)


def opened(folder, mechanism="objective", method=None, **fields):
    x, y = made_up()
    config = PrivacyConfig(epsilon=3.0, mechanism=mechanism, ridge=0.1, **fields)
    sizes = {"expected_batch_size": UNITS, "public_size": UNITS}
    plan = make_plan(config, steps=7, **sizes, linear=lambda: Linear((1.0,)))
    struct = jax.ShapeDtypeStruct
    return engine.open(
        plan,
        method or head(),
        optax.sgd(0.1),
        engine.population_from_ids(np.arange(2 * UNITS) // 2, unit="patient"),
        {"features": x.__getitem__, "label": y.__getitem__},
        folder,
        spec={"features": struct((FEATURES,), np.float32), "label": struct((1,), np.float32)},
        options=engine.Options(progress=False, insecure_seed=5),
    )


@pytest.mark.parametrize("mechanism", ["objective", "output"])
def test_a_minimum_is_paid_for_saved_and_verified(mechanism, tmp_path):
    with opened(tmp_path, mechanism) as trainer:
        released = list(trainer.steps())
    assert [one.step for one in released] == [1]
    told = json.loads((tmp_path / "privacy.json").read_text())
    assert 2.98 < told["epsilon"] <= 3.0 and told["steps"] == 1 and told["sampling_prob"] == 1.0
    assert verify_run(tmp_path) == []


@pytest.mark.parametrize("mechanism", ["objective", "output"])
def test_all_noise_that_was_paid_for_goes_into_the_minimum(mechanism, tmp_path, monkeypatch):
    given, real = {}, engine_minimum.released_minimum
    record = lambda *data, **named: given.update(named) or real(*data, **named)
    monkeypatch.setattr(engine_minimum, "released_minimum", record)
    with opened(tmp_path, mechanism) as trainer:
        list(trainer.steps())
        plan = trainer._feed().plan
    rest = [query.noise_stddev for query in plan.queries if query.name == REST]
    assert given["secret"] is not None
    assert given["noise_multiplier"] == plan.noise_multiplier > 0
    assert [given["rest_stddev"]] == (rest if mechanism == "objective" else [0.0])
    assert mechanism == "output" or given["rest_stddev"] > 0


def test_what_a_crash_lost_is_computed_again_bit_by_bit(tmp_path, monkeypatch):
    with opened(tmp_path / "whole") as trainer:
        whole = list(trainer.steps())[-1].params

    def killed(*given, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine_minimum, "released_minimum", killed)
        with pytest.raises(KeyboardInterrupt), opened(tmp_path / "run") as trainer:
            list(trainer.steps())
    with opened(tmp_path / "run") as trainer:
        again = list(trainer.steps())[-1].params
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    assert len((tmp_path / "run" / "ledger.jsonl").read_text().splitlines()) == 1


def test_without_privacy_it_is_the_minimum_of_one_image_of_each(tmp_path):
    with opened(tmp_path, enabled=False) as trainer:
        found = list(trainer.steps())[-1].params["head"]
        feed = trainer._feed()
    draw = feed.draw(0)
    assert len(draw) == UNITS
    rows = engine_minimum.sampling.draw_images(
        feed.secret, 0, draw, feed.population.rows, feed.population.ids
    )
    assert np.array_equal(np.unique(rows // 2), np.arange(UNITS))
    x, y = made_up()
    asked = Perturbation("objective", 1, 1.0, 0.1, UNITS, 1.0)
    theta = minimum(asked, x[rows], y[rows], np.zeros((FEATURES + 1, 1)), np.ones(1))
    np.testing.assert_allclose(found["kernel"], theta[:-1], atol=1e-5)
    np.testing.assert_allclose(found["bias"], theta[-1], atol=1e-5)


def test_another_network_than_was_priced_is_refused(tmp_path):
    for linear in (None, Linear((1.0, 1.0))):
        with pytest.raises(InputError, match="not the linear head"):
            opened(tmp_path, method=head(linear))


def test_noise_and_payments_that_the_config_does_not_ask_for_are_found(tmp_path):
    with opened(tmp_path) as trainer:
        list(trainer.steps())
    told = json.loads((tmp_path / "privacy.json").read_text())
    config = {
        "data": {"split": "random", "public_size": UNITS},
        "dp": {"mechanism": "objective", "ridge": 0.1, "l2_clip_norm": 1.0},
        "method": {},
    }
    assert asked_faults(told, config) == []
    less = [told["queries"][0], told["queries"][-1]]
    for change, other in (
        ({"queries": less}, {}),
        ({"noise_multiplier": told["noise_multiplier"] / 2}, {}),
        ({}, {"ridge": 0.2}),
        ({}, {"mechanism": "output"}),
    ):
        assert asked_faults(told | change, config | {"dp": config["dp"] | other})
