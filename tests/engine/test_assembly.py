"""The parts of a training are joined rightly: each fault of the wiring here fails a test."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import engine
from jaxfair.engine import books
from jaxfair.engine.feed import Feed
from jaxfair.errors import InputError
from jaxfair.methods.base import Method, Stage
from jaxfair.privacy import ledger as ledgers
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.run import checkpoint

N = 40
SPEC = {"x": jax.ShapeDtypeStruct((4,), np.float32)}
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
PEOPLE = engine.population_from_ids(
    range(N), unit="lesion", name="moles", data="phantom", selection="coupled", digest="1"
)


def encoder_loss(params, frozen, example, key):
    return jnp.sum((params["encoder"] @ example["x"]) ** 2), {}


def head_loss(params, frozen, example, key):
    code = jnp.tanh(frozen["encoder"] @ example["x"])
    return (params["head"] @ code - example["x"][3]) ** 2, {}


def first_variables(key, spec):
    return {"encoder": jax.random.normal(key, (2, 4))}, {"scale": jnp.ones(2)}


def begin_head(params, frozen, key, spec):
    return {"head": jnp.zeros(2)}, {"encoder": params["encoder"]}


ONE = Method("one", (), first_variables, encoder_loss, None)
HEAD = Method("head", (), None, head_loss, None)


def two(head=HEAD):
    return ONE._replace(name="two", stages=(Stage(head, begin_head, 0.5),))


def promise(steps=4, expected_batch_size=10, public_size=N, **fields):
    config = PrivacyConfig(**{"epsilon": 6.0, "l2_clip_norm": 1.0, "insecure_seed": 2} | fields)
    sizes = {"expected_batch_size": expected_batch_size, "public_size": public_size}
    return make_plan(config, steps=steps, **sizes)


def opened(folder, method=ONE, *, plan=None, fields=None, devices=1, people=PEOPLE, **options):
    options = {"save_every": 2, "microbatch": 4, "insecure_seed": 2, "progress": False} | options
    return engine.open(
        plan or promise(), method, optax.sgd(0.1), people, fields or {"x": X.__getitem__}, folder,
        spec=SPEC, options=engine.Options(**options), mesh=engine.make_mesh(devices),
    )  # fmt: skip


def left(folder, method=ONE, **changes):
    """A training that was opened and left by an interrupt, before a step."""
    with pytest.raises(KeyboardInterrupt), opened(folder, method, **changes):
        raise KeyboardInterrupt


def refusal(folder, method=ONE, **changes):
    with pytest.raises(InputError) as caught:
        opened(folder, method, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("seed", [0, 5])
def test_a_method_makes_its_first_variables_from_the_seed_of_the_options(tmp_path, seed):
    left(tmp_path / "run")
    with opened(tmp_path / str(seed), seed=seed) as trainer:
        begun = np.asarray(trainer.params()["encoder"])
    np.testing.assert_array_equal(begun, first_variables(jax.random.key(seed), None)[0]["encoder"])


def test_a_training_runs_on_the_devices_that_it_was_given(tmp_path):
    left(tmp_path / "run", devices=2)
    assert len(json.loads((tmp_path / "run" / "env.json").read_text())["devices"]) == 2
    with opened(tmp_path / "run", devices=2) as trainer:
        assert trainer.assembly.mesh.size == 2


def test_every_stage_has_the_microbatch_that_the_folder_keeps(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "microbatch.json").write_text('{"microbatch": 5}')
    with opened(tmp_path / "run", two(), microbatch=0, save_every=9) as trainer:
        seen = [(r.step, trainer.assembly.microbatch) for r in trainer.steps()]
    assert seen == [(2, 5), (4, 5)]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"plan": promise(steps=5)}, "train.steps was 4, now 5"),
        ({"plan": promise(expected_batch_size=8)}, "train.expected_batch_size was 10, now 8"),
        ({"plan": promise(public_size=45)}, "data.public_size was 40, now 45"),
        ({"plan": promise(epsilon=3.0)}, "dp.epsilon was 6.0, now 3.0"),
        ({"plan": promise(delta=1e-6)}, "dp.delta was"),
        ({"plan": promise(l2_clip_norm=2.0)}, "dp.l2_clip_norm was 1.0, now 2.0"),
        ({"plan": promise(clipping="vmap")}, "dp.clipping was 'fast', now 'vmap'"),
        ({"plan": promise(tuning_runs=3)}, "dp.tuning_runs was 1, now 3"),
        ({"plan": promise(enabled=False)}, "dp.enabled was True, now False"),
        ({"insecure_seed": 3}, "dp.insecure_seed was 2, now 3"),
        ({"seed": 1}, "seed was 0, now 1"),
    ],
)
def test_a_folder_of_another_promise_is_refused_by_the_name_of_the_difference(
    tmp_path, changes, named
):
    left(tmp_path / "run")
    assert named in refusal(tmp_path / "run", **changes)


def spread(params, frozen, batch, mask, keys):
    return jnp.mean((batch["x"] @ params["encoder"].T) ** 2)


def doubled(frozen, raw):
    return {"x": 2 * raw["x"]}


def other_scale(key, spec):
    return first_variables(key, spec)[0], {"scale": 2 * jnp.ones(2)}


def other_head(params, frozen, example, key):
    return 2 * head_loss(params, frozen, example, key)[0], {}


PLAIN = {"plan": promise(enabled=False)}


@pytest.mark.parametrize(
    ("before", "after", "changes", "named"),
    [
        (ONE, ONE._replace(init=other_scale), {}, "first parameters"),
        (ONE, ONE._replace(prepare=doubled), {}, "prepare"),
        (two(), two(HEAD._replace(loss=other_head)), {}, "loss of stage 2"),
        (two(), two(HEAD._replace(prepare=doubled)), {}, "prepare of stage 2"),
        (ONE, ONE._replace(batch_loss=spread), PLAIN, "batch_loss"),
    ],
)
def test_what_a_method_is_made_of_may_not_change_before_a_resume(
    tmp_path, before, after, changes, named
):
    left(tmp_path / "run", before, **changes)
    assert f"changed since it began: {named}." in refusal(tmp_path / "run", after, **changes)


def test_other_devices_are_refused_on_a_resume(tmp_path):
    left(tmp_path / "run")
    assert "changed since it began: devices" in refusal(tmp_path / "run", devices=2)


def test_other_versions_are_refused_on_a_resume(tmp_path, monkeypatch):
    left(tmp_path / "run")
    there = books.environment
    changed = lambda devices: there(devices) | {"versions": {"jax": "0.0.1"}}
    monkeypatch.setattr(books, "environment", changed)
    assert "changed since it began: versions" in refusal(tmp_path / "run")


def test_other_numerics_are_refused_on_a_resume(tmp_path):
    left(tmp_path / "run")
    with jax.default_matmul_precision("bfloat16"):
        assert "numerics" in refusal(tmp_path / "run")


def test_a_config_that_was_edited_in_the_folder_is_refused_on_a_resume(tmp_path):
    left(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    config["dp"]["l2_clip_norm"] = 2.0
    path.write_text(json.dumps(config))
    found = refusal(tmp_path / "run", plan=promise(l2_clip_norm=2.0))
    assert re.search(r"changed since it began: .*\bconfig\b", found), found


def test_a_training_that_cannot_be_opened_leaves_the_folder_free(tmp_path, monkeypatch):
    left(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(engine.trainer.Trainer, "__init__", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError) as held:  # and with it all that it refers to
            opened(tmp_path / "run")
    with opened(tmp_path / "run") as trainer:
        assert trainer.step == 0 and held.traceback


def test_a_training_that_is_left_gives_its_folder_free(tmp_path):
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "run") as first:
        raise KeyboardInterrupt
    with opened(tmp_path / "run") as second:
        assert second is not first


@pytest.mark.parametrize("method", [ONE, two()], ids=["one", "two"])
def test_the_steps_that_are_drawn_are_those_that_are_paid_for(tmp_path, monkeypatch, method):
    drawn, draw = [], Feed.draw
    monkeypatch.setattr(Feed, "draw", lambda self, n: drawn.append(n) or draw(self, n))
    opened(tmp_path / "run", method, save_every=3).run()
    entries, _ = ledgers.read_entries(tmp_path / "run" / "ledger.jsonl")
    paid = [e.first_step + step for e in entries for step in range(e.steps)]
    assert drawn == paid == [0, 1, 2, 3]


def test_nothing_is_read_for_a_step_that_is_not_paid_for(tmp_path):
    paid = []

    def read(rows):
        entries, _ = ledgers.read_entries(tmp_path / "run" / "ledger.jsonl")
        paid.append(sum(entry.steps for entry in entries))
        return X[rows]

    with opened(tmp_path / "run", fields={"x": read}) as trainer:
        for released in trainer.steps():
            assert paid and min(paid) >= released.step
            paid.clear()


def test_ledger_and_statement_name_the_population_that_was_drawn_from(tmp_path):
    with opened(tmp_path / "run", seed=4) as trainer:
        next(trainer.steps())
    entries, _ = ledgers.read_entries(tmp_path / "run" / "ledger.jsonl")
    assert {entry.population for entry in entries} == {"moles"}
    told = json.loads((tmp_path / "run" / "privacy.json").read_text())
    names = ("population", "unit", "data", "selection", "seed")
    assert [told[n] for n in names] == ["moles", "lesion", "phantom", "coupled", 4]


def test_a_later_stage_trains_on_what_its_own_frozen_part_prepares(tmp_path):
    """Features by the encoder that the first stage ended with: as if nothing were cached."""

    def prepare(frozen, raw):
        return {"code": jnp.tanh(frozen["encoder"] @ raw["x"]), "y": raw["x"][3]}

    def loss(params, frozen, example, key):
        return (params["head"] @ example["code"] - example["y"]) ** 2, {}

    ends = []
    for name, head in (("direct", HEAD), ("cached", HEAD._replace(loss=loss, prepare=prepare))):
        trainer = opened(tmp_path / name, two(head))
        trainer.run()
        ends.append(np.asarray(trainer.params()["head"]))
    np.testing.assert_allclose(*ends, rtol=1e-4)


def test_a_resumed_training_logs_each_step_once(tmp_path, monkeypatch):
    """Interrupted after a line was written, before its checkpoint was."""

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path / "run").run()
    opened(tmp_path / "run").run()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]


def test_the_logged_norm_is_that_of_the_parameters_after_the_step(tmp_path):
    with opened(tmp_path / "run") as trainer:
        released = next(trainer.steps())
    norm = float(optax.tree.norm(released.params))
    assert released.metrics["params_norm"] == pytest.approx(norm, rel=1e-5)
