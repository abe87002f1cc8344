"""No noise is used again on other inputs: what changed is refused, or paid for afresh."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair.engine.population import population_from_ids
from jaxfair.privacy.ledger import read_entries
from jaxfair.privacy.queries import Query
from tests.engine.toy import (
    FACTS,
    GROUPED,
    METHOD,
    N,
    X,
    open_toy,
    plan_of,
    refusal,
    staged,
    started,
)


def preparing(scale):
    return METHOD._replace(prepare=lambda frozen, raw: {"x": scale * raw["x"]})


def backwards(scale):
    """A loss with a derivative of its own."""

    @jax.custom_vjp
    def square(x):
        return jnp.sum(x**2)

    square.defvjp(lambda x: (square(x), x), lambda x, g: (scale * g * x,))
    return METHOD._replace(loss=lambda p, f, e, k: (square(p["w"] - e["x"]), {}))


def jitted(scale):
    """A loss whose constant lies inside an inner jit."""
    scales = jnp.full(3, scale, jnp.float32)
    inner = jax.jit(lambda v: v * scales)
    return METHOD._replace(loss=lambda p, f, e, k: (jnp.sum(inner(p["w"] - e["x"]) ** 2), {}))


def rated(*probs):
    return plan_of({"group_probs": probs})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"data": X + 1}),
        ({"people": GROUPED, "plan": rated(0.3, 0.3)}, {"people": None}),
        ({"people": GROUPED, "plan": rated(0.3, 0.1)}, {"plan": rated(0.1, 0.3)}),
        ({"method": preparing(1.0)}, {"method": preparing(2.0)}),
        ({"method": backwards(1.0)}, {"method": backwards(2.0)}),
        ({"method": jitted(1.0)}, {"method": jitted(2.0)}),
        ({"method": staged(1.0)}, {"method": staged(2.0)}),
        ({"method": staged(1.0)}, {"method": staged(1.0, share=0.25)}),
        ({"method": staged(1.0)}, {"method": staged(1.0, begin_at=1.0)}),
        ({"method": staged(1.0)}, {"method": staged(1.0, prepare=lambda f, e: {"x": -e["x"]})}),
        ({"optimizer": optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)},
         {"optimizer": optax.inject_hyperparams(optax.sgd)(learning_rate=0.2)}),
        ({}, {"plan": plan_of({"queries": (Query("counts", 1.0, 50.0),)})}),
    ],
    ids=["data without a digest", "groups", "rates of groups", "prepare", "own derivative",
         "constant in a jit", "a later loss", "a later share", "a later begin", "a later prepare",
         "first state of the optimiser", "side queries"],
)  # fmt: skip
def test_no_noise_is_used_again_on_other_inputs(tmp_path, before, after):
    started(tmp_path / "run", **before)
    assert "changed since it began" in refusal(tmp_path / "run", **before | after)
    open_toy(tmp_path / "run", **before)  # and what did not change is resumed


@pytest.mark.parametrize("fact", [{"unit": "patient"}, {"data": "phantom"}])
def test_a_recharged_run_cannot_change_whom_it_covers(tmp_path, fact):
    started(tmp_path / "run")
    people = population_from_ids(range(N), **FACTS | fact)
    assert f"{next(iter(fact))} was" in refusal(tmp_path / "run", people=people, recharge=True)
    assert f"{next(iter(fact))} was" in refusal(tmp_path / "run", people=people)


def test_a_lost_ledger_and_fingerprint_leave_no_secret_to_use_again(tmp_path):
    started(tmp_path / "run")
    old = (tmp_path / "run" / "secret" / "secret.key").read_bytes()
    (tmp_path / "run" / "ledger.jsonl").unlink()
    (tmp_path / "run" / "fingerprint.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    open_toy(tmp_path / "run", data=X + 1)
    assert (tmp_path / "run" / "secret" / "secret.key").read_bytes() != old


def test_a_recharge_draws_a_fresh_secret_where_its_folder_is_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "secret").symlink_to(tmp_path / "elsewhere")
    started(tmp_path / "run")
    old = (tmp_path / "elsewhere" / "secret.key").read_bytes()
    with open_toy(tmp_path / "run", recharge=True, data=X + 1) as trainer:
        assert (tmp_path / "run" / "secret" / "secret.key").read_bytes() != old
        next(trainer.steps())
    assert not (tmp_path / "elsewhere" / "secret.key").exists()
    assert len({e.draws for e in read_entries(tmp_path / "run" / "ledger.jsonl")[0]}) == 2


def test_checkpoints_without_payment_are_no_beginning(tmp_path):
    """Of a plain run, whose other files are gone."""
    started_plain = plan_of(enabled=False)
    with open_toy(tmp_path / "run", plan=started_plain) as trainer:
        next(trainer.steps())
    for name in ("config.json", "privacy.json", "population.json"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    assert "not paid" in refusal(tmp_path / "run")


def from_file(path, part):
    """A Method whose first variables, or whose `prepare`, come from a file."""
    read = lambda: jnp.asarray(np.load(path))
    if part == "prepare":
        return METHOD._replace(prepare=lambda frozen, raw: {"x": raw["x"] * read()})

    def init(key, spec):
        params = {"w": read() if part == "parameters" else jnp.zeros(3)}
        return params, ({"scale": read()} if part == "frozen" else {})

    return METHOD._replace(init=init)


@pytest.mark.parametrize("part", ["parameters", "frozen", "prepare"])
def test_a_file_that_was_overwritten_is_another_input(tmp_path, part):
    """As those behind extractor.weights, method.weights and train.start_from: names stay."""
    path = tmp_path / "weights.npy"
    np.save(path, np.ones(3, np.float32))
    started(tmp_path / "run", method=from_file(path, part))
    np.save(path, np.full(3, 2, np.float32))
    assert "changed since it began" in refusal(tmp_path / "run", method=from_file(path, part))
    np.save(path, np.ones(3, np.float32))
    open_toy(tmp_path / "run", method=from_file(path, part))


@pytest.mark.parametrize("changes", [{"data": X + 1}, {}])
def test_a_lost_fingerprint_beside_a_ledger_is_refused(tmp_path, changes):
    started(tmp_path / "run")
    (tmp_path / "run" / "fingerprint.json").unlink()
    assert "fingerprint.json is gone" in refusal(tmp_path / "run", **changes)


@pytest.mark.parametrize("name", ["XLA_FLAGS", "NVIDIA_TF32_OVERRIDE"])
def test_another_environment_is_another_arithmetic(tmp_path, monkeypatch, name):
    started(tmp_path / "run")
    monkeypatch.setenv(name, "--xla_cpu_enable_fast_math=true")
    assert "changed since it began: environment" in refusal(tmp_path / "run")


def test_another_precision_of_products_is_another_arithmetic(tmp_path):
    started(tmp_path / "run")
    with jax.default_matmul_precision("bfloat16"):
        assert "changed since it began" in refusal(tmp_path / "run")


def test_what_a_callback_computes_is_never_replayed(tmp_path):
    """No equation holds it; it is paid for again, whatever it computes now."""

    def calling(params, frozen, example, key):
        x = jax.lax.stop_gradient(example["x"])
        struct = jax.ShapeDtypeStruct((3,), np.float32)
        seen = jax.pure_callback(lambda x: x, struct, x, vmap_method="sequential")
        return jnp.sum((params["w"] - seen) ** 2), {}

    method = METHOD._replace(loss=calling)
    started(tmp_path / "run", method=method)
    assert "what its callback on the host computes" in refusal(tmp_path / "run", method=method)
    with open_toy(tmp_path / "run", method=method, recharge=True) as trainer:
        next(trainer.steps())
