"""The microbatch search: on made-up data, once, and never larger than a draw has use for."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import train
from jaxfair.engine import microbatch
from jaxfair.engine.mesh import make_mesh
from jaxfair.methods.base import Method
from tests.small import small_config

SPEC = {"image": jax.ShapeDtypeStruct((4, 4, 1), np.float32)}


def search(monkeypatch, seconds, expected=1000):
    """Runs the search with made-up timings: {size: seconds, or an exception}."""
    tried = []

    def made_up_call(step, *rest):
        tried.append(step)
        return step

    def timed(size):
        if isinstance(seconds[size], Exception):
            raise seconds[size]
        return seconds[size]

    monkeypatch.setattr(microbatch, "made_up_call", made_up_call)
    monkeypatch.setattr(microbatch, "_seconds", timed)
    method = Method("toy", (), None, None, None)
    found = microbatch.fastest(
        lambda size: size, method, make_mesh(1), {}, {}, SPEC, expected_batch_size=expected
    )
    return found, tried


def test_the_size_with_the_most_examples_a_second_wins(monkeypatch):
    found, tried = search(monkeypatch, {8: 1.0, 16: 1.5, 32: 2.5, 64: 6.0, 128: 9.0})
    assert (found, tried) == (32, [8, 16, 32, 64])


def test_a_size_that_does_not_fit_ends_the_search(monkeypatch):
    too_large = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
    assert search(monkeypatch, {8: 1.0, 16: 1.5, 32: too_large})[0] == 16


def test_sizes_beyond_the_expected_batch_are_not_tried(monkeypatch):
    found, tried = search(monkeypatch, dict.fromkeys(microbatch.CANDIDATES, 1.0), expected=20)
    assert (found, tried) == (16, [8, 16])


def test_a_made_up_call_runs_the_real_step():
    from jaxfair.engine.optim import OptimConfig, make_optimizer
    from jaxfair.engine.step import make_step
    from jaxfair.privacy.plan import PrivacyConfig, make_plan

    def loss(params, frozen, example, key):
        return jnp.sum(example["image"] * params["w"]), {}

    method = Method("toy", ("toy",), None, loss, None)
    plan = make_plan(PrivacyConfig(), steps=2, expected_batch_size=4, public_size=40)
    mesh = make_mesh(2)
    step = make_step(method, plan, make_optimizer(OptimConfig()), mesh, microbatch=4)
    params = {"w": jnp.ones((4, 4, 1))}
    call = microbatch.made_up_call(step, method, mesh, params, {}, SPEC, 4)
    call()
    call()
    assert step.update._cache_size() == 1


@pytest.fixture
def searched(monkeypatch, tmp_path):
    """A run folder in which the search has found 24, and how often it searched."""
    searches = []
    monkeypatch.setattr(train, "fastest_microbatch", lambda *a, **k: searches.append(1) or 24)
    config = small_config(tmp_path, dp__microbatch=0)
    folder = train.RunFolder(tmp_path / "run")
    size = lambda: train._microbatch(
        train.settings_from_config(config), folder, make_mesh(1), None, None, {}, {}
    )
    return size, searches, folder


def test_what_was_found_is_kept_and_read_back(searched):
    size, searches, folder = searched
    assert size() == size() == 24
    assert len(searches) == 1
    assert json.loads(folder.microbatch.read_text()) == {"microbatch": 24}
