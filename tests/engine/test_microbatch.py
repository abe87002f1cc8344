"""The microbatch search: on made-up data, once, and never larger than a draw has use for."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.engine import books, microbatch
from jaxfair.engine.assembly import assemble
from jaxfair.engine.books import Options
from jaxfair.engine.mesh import make_mesh
from jaxfair.engine.optim import OptimConfig, make_optimizer
from jaxfair.methods.base import Method, Stage
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.run.folder import RunFolder
from tests.privacy.toy import Bench

SPEC = {"image": jax.ShapeDtypeStruct((4, 4, 1), np.float32)}


PLAIN = Method("toy", ("toy",), None, None, None)


def search(monkeypatch, seconds, expected=1000, padded_to=None, trained=PLAIN, devices=1):
    """Runs the search with made-up timings: {size: seconds, or an exception}."""
    tried = []

    class Made:
        """An assembly of which only the microbatch is known."""

        plan = SimpleNamespace(expected_batch_size=expected, padded_to=padded_to)
        mesh = make_mesh(devices)
        method = trained

        def with_microbatch(self, size):
            return SimpleNamespace(made_up_update=lambda: tried.append(size) or size)

    def timed(size):
        if isinstance(seconds[size], Exception):
            raise seconds[size]
        return seconds[size]

    monkeypatch.setattr(microbatch, "_seconds", timed)
    return microbatch.fastest(Made()), tried


def test_the_size_with_the_most_examples_a_second_wins(monkeypatch):
    found, tried = search(monkeypatch, {8: 1.0, 16: 1.5, 32: 2.5, 64: 6.0, 128: 9.0})
    assert (found, tried) == (32, [8, 16, 32, 64])


def test_rows_of_padding_count_as_work(monkeypatch):
    """49 rows are 64 in chunks of 32 and 56 in chunks of 8."""
    seconds = {8: 1.0, 16: 1.95, 32: 3.7, 64: 9.0}
    assert search(monkeypatch, seconds, expected=64)[0] == 32
    assert search(monkeypatch, seconds, expected=64, padded_to=49)[0] == 8


def test_a_size_that_does_not_fit_ends_the_search(monkeypatch):
    too_large = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
    assert search(monkeypatch, {8: 1.0, 16: 1.5, 32: too_large})[0] == 16


def test_sizes_beyond_the_expected_batch_are_not_tried(monkeypatch):
    found, tried = search(monkeypatch, dict.fromkeys(microbatch.CANDIDATES, 1.0), expected=20)
    assert (found, tried) == (16, [8, 16])


def test_where_the_loss_sees_a_microbatch_no_clock_decides_what_is_trained(monkeypatch):
    coupled = PLAIN._replace(batch_loss=lambda *given: 0.0)
    later = PLAIN._replace(stages=(Stage(coupled, None, share=0.5),))
    for method in (coupled, later):
        assert search(monkeypatch, {}, expected=90, trained=method) == (90, [])
        assert search(monkeypatch, {}, expected=91, trained=method, devices=2) == (46, [])


def test_several_hosts_agree_on_the_share_of_the_batch_that_a_loss_sees(monkeypatch, tmp_path):
    monkeypatch.setattr(books.jax, "process_count", lambda: 2)
    made, folder = assembly_of(), RunFolder(tmp_path)
    coupled = made.method._replace(batch_loss=lambda *given: 0.0)
    coupled = dataclasses.replace(made, method=coupled, microbatch=1)
    assert books._chosen_microbatch(coupled, folder, Options()) == 2
    assert books._chosen_microbatch(coupled, folder, Options(microbatch=1)) == 1
    assert books._chosen_microbatch(made, folder, Options()) == made.microbatch == 4


def assembly_of(devices=2):
    def loss(params, frozen, example, key):
        return jnp.sum(example["image"] * params["w"]), {}

    plan = make_plan(PrivacyConfig(), steps=2, expected_batch_size=4, public_size=40)
    variables = ({"w": jnp.ones((4, 4, 1))}, {})
    return assemble(
        plan,
        Method("toy", ("toy",), None, loss, None),
        make_optimizer(OptimConfig()),
        spec=SPEC,
        variables=variables,
        microbatch=4,
        mesh=make_mesh(devices),
    )


def test_a_made_up_update_runs_the_real_step():
    made = assembly_of()
    call = made.made_up_update()
    call()
    call()
    assert made.step.update._cache_size() == 1


def test_what_was_found_is_kept_and_read_back(monkeypatch, tmp_path):
    searches = []
    monkeypatch.setattr(books, "fastest", lambda made: searches.append(1) or 24)
    folder = RunFolder(tmp_path)
    sizes = [books._chosen_microbatch(assembly_of(), folder, Options()) for _ in range(2)]
    assert sizes == [24, 24] and len(searches) == 1
    assert json.loads(folder.microbatch.read_text()) == {"microbatch": 24}


def test_the_step_that_a_search_compiled_is_the_one_that_trains():
    assembly = Bench().assembly
    tried = assembly.with_microbatch(8)
    tried.made_up_update()()
    assert assembly.with_microbatch(8).step is tried.step is not assembly.step
    assert tried.with_microbatch(assembly.microbatch).step is assembly.step
    assert assembly.with_parts(microbatch=8).step is not tried.step
