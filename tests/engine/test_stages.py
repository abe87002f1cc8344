"""Stages, batch losses and parts with their own optimiser: what later Methods stand on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import engine
from jaxfair.engine import stages
from jaxfair.engine.assembly import join
from jaxfair.engine.chunk import abstract_randomness, zeros
from jaxfair.engine.optim import OptimConfig, check_parts, make_optimizer
from jaxfair.errors import InputError
from jaxfair.methods.base import Method, Stage, no_loss
from jaxfair.privacy import ledger as ledgers
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.privacy.verify import verify_run
from jaxfair.run import checkpoint
from jaxfair.run.folder import RunFolder

N = 60
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
SPEC = {"x": jax.ShapeDtypeStruct((4,), np.float32)}
FIELDS = {"x": X.__getitem__}


def encoder_loss(params, frozen, example, key):
    return jnp.sum((params["encoder"] @ example["x"] - example["x"][:2]) ** 2), {}


def head_loss(params, frozen, example, key):
    code = jnp.tanh(frozen["encoder"] @ example["x"])
    return (params["head"] @ code - example["x"][3]) ** 2, {}


def first_variables(key, spec):
    return {"encoder": jnp.ones((2, 4)) / 4}, {}


def head_on_the_encoder(params, frozen, key, spec):
    return {"head": jnp.zeros(2)}, {"encoder": params["encoder"]}


HEAD = Method("head", (), None, head_loss, None)
TWO = Method(
    "two", (), first_variables, encoder_loss, None, stages=(Stage(HEAD, head_on_the_encoder, 0.5),)
)


def plan_of(steps=8, **fields):
    config = PrivacyConfig(**{"epsilon": 6.0, "l2_clip_norm": 1.0} | fields)
    return make_plan(config, steps=steps, expected_batch_size=12, public_size=N)


def open_two(folder, method=TWO, plan=None, optimizer=None, **options):
    options = engine.Options(
        **{"save_every": 3, "microbatch": 8, "insecure_seed": 2, "progress": False} | options
    )
    people = engine.population_from_ids(range(N), unit="image")
    made = engine.open(
        plan or plan_of(), method, optimizer or optax.adam(0.05), people, FIELDS, folder, spec=SPEC,
        options=options, mesh=engine.make_mesh(2),
    )  # fmt: skip
    return made


def test_two_stages_share_one_ledger_and_one_count_of_steps(tmp_path):
    trainer = open_two(tmp_path / "run")
    with trainer:
        seen = [(r.step, sorted(r.params)) for r in trainer.steps()]
    assert seen == [(3, ["encoder"]), (4, ["encoder"]), (7, ["head"]), (8, ["head"])]
    entries, _ = ledgers.read_entries(tmp_path / "run" / "ledger.jsonl")
    assert [(e.stage, e.first_step, e.steps) for e in entries] == [
        ("train", 0, 3), ("train", 3, 1), ("train 2", 4, 3), ("train 2", 7, 1),
    ]  # fmt: skip
    assert len({entry.draws for entry in entries}) == 1
    told = json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert told["steps"] == 8 and told["epsilon"] <= 6.0
    assert verify_run(tmp_path / "run") == []


def test_the_later_stage_stands_on_what_the_first_one_ended_with(tmp_path):
    trainer = open_two(tmp_path / "run")
    with trainer:
        ends = {r.step: r.params for r in trainer.steps()}
    frozen = trainer.assembly.frozen["encoder"]
    np.testing.assert_array_equal(frozen, ends[4]["encoder"])
    assert not np.array_equal(frozen, first_variables(None, None)[0]["encoder"])


def test_a_stage_may_stand_on_the_average_that_the_one_before_kept(tmp_path):
    averaged = TWO._replace(stages=(TWO.stages[0]._replace(averaged=True),))
    optimizer = make_optimizer(OptimConfig("sgd", 0.05, average="late"))
    options = {"optimizer": optimizer, "save_every": 1}
    trainer = open_two(tmp_path / "run", averaged, **options)
    with trainer:
        seen = {r.step: r.params for r in trainer.steps()}
    mean = np.mean([seen[step]["encoder"] for step in (1, 2, 3, 4)], axis=0)
    np.testing.assert_allclose(trainer.assembly.frozen["encoder"], mean, rtol=1e-5)
    assert not np.allclose(mean, seen[4]["encoder"], rtol=1e-3)
    assert verify_run(tmp_path / "run") == []
    fresh = join(
        plan_of(), averaged, optimizer, spec=SPEC, variables=first_variables(None, None),
        microbatch=8, mesh=engine.make_mesh(1),
    )  # fmt: skip
    ledger = fresh.plan.open_ledger(tmp_path / "run" / "ledger.jsonl", writes=False)
    _, here, _ = stages.restore(stages.stages_of(fresh), RunFolder(tmp_path / "run"), ledger)
    np.testing.assert_array_equal(here.frozen["encoder"], trainer.assembly.frozen["encoder"])


def test_the_last_stage_is_found_again_with_what_was_frozen(tmp_path):
    trainer = open_two(tmp_path / "run")
    with trainer:
        *_, last = trainer.steps()
    fresh = join(
        plan_of(), TWO, optax.adam(0.05), spec=SPEC, variables=first_variables(None, None),
        microbatch=8, mesh=engine.make_mesh(1),
    )  # fmt: skip
    ledger = fresh.plan.open_ledger(tmp_path / "run" / "ledger.jsonl", writes=False)
    folder = RunFolder(tmp_path / "run")
    number, here, state = stages.restore(stages.stages_of(fresh), folder, ledger)
    assert number == 1 and int(state.step) == 8
    np.testing.assert_array_equal(state.params["head"], last.params["head"])
    np.testing.assert_array_equal(here.frozen["encoder"], trainer.assembly.frozen["encoder"])


@pytest.mark.parametrize("saves", [1, 2, 3, 4])
def test_a_run_killed_in_any_stage_ends_bit_equal(tmp_path, monkeypatch, saves):
    whole = open_two(tmp_path / "whole")
    whole.run()
    count, save = [0], checkpoint.save

    def stop(*arguments):
        save(*arguments)
        count[0] += 1
        if count[0] == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            open_two(tmp_path / "cut").run()
    resumed = open_two(tmp_path / "cut")
    resumed.run()
    np.testing.assert_array_equal(resumed.params()["head"], whole.params()["head"])
    ours, theirs = ((tmp_path / n / "ledger.jsonl").read_bytes() for n in ("cut", "whole"))
    assert ours == theirs


def test_a_later_stage_that_couples_examples_is_refused_before_anything_is_trained(tmp_path):
    def over_devices(params, frozen, example, key):
        return jax.lax.pmean(jnp.sum(params["head"] * example["x"][:2]), "data"), {}

    bad = TWO._replace(stages=(TWO.stages[0]._replace(method=HEAD._replace(loss=over_devices)),))
    with pytest.raises(InputError, match="'head' talks to other examples"):
        open_two(tmp_path / "run", bad)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, 0.01])
def test_a_stage_without_a_step_is_refused(tmp_path, share):
    bad = TWO._replace(stages=(TWO.stages[0]._replace(share=share),))
    said = f"stages after the first of 'two' have the shares 'head' {share:.3g}, which leaves one"
    with pytest.raises(InputError, match=said):
        open_two(tmp_path / "run", bad)
    assert not (tmp_path / "run").exists()


def spread(params, frozen, batch, mask, keys):
    """Mean over the batch of the squared distance to the batch's own mean: it couples examples."""
    codes = batch["x"] @ params["encoder"].T
    count = jnp.maximum(jnp.sum(mask), 1)
    center = jnp.sum(jnp.where(mask[:, None], codes, 0), axis=0) / count
    return jnp.sum(jnp.where(mask, jnp.sum((codes - center) ** 2, axis=1), 0)) / count


def coupled(loss=no_loss):
    return Method("spread", (), first_variables, loss, None, batch_loss=spread)


def test_a_batch_loss_is_refused_by_name_under_privacy(tmp_path):
    with pytest.raises(InputError, match=r"'spread' couples .* \(has a batch_loss\)") as caught:
        open_two(tmp_path / "run", coupled())
    assert "dp.enabled=False" in str(caught.value) and not (tmp_path / "run").exists()


def gradient_of_one_draw(method):
    """The plain sum of a draw of everybody in one chunk, by the step."""
    plan = make_plan(PrivacyConfig(enabled=False), steps=1, expected_batch_size=N, public_size=N)
    keep = optax.GradientTransformation(
        lambda p: jax.tree.map(jnp.zeros_like, p),
        lambda g, state, params=None: (jax.tree.map(jnp.zeros_like, g), g),
    )
    made = join(
        plan, method, keep, spec=SPEC, variables=first_variables(None, None), microbatch=64,
        mesh=engine.make_mesh(1),
    )  # fmt: skip
    keys = zeros(abstract_randomness(made.num_leaves))
    state, _ = made.update(made.begin(), made.chunk(FIELDS, range(N)), keys)
    return np.asarray(state.opt_state["encoder"]) * N


def test_a_batch_loss_trains_beside_or_instead_of_a_loss_and_padding_is_nobody():
    params = first_variables(None, None)[0]
    batch, mask = {"x": jnp.asarray(X)}, jnp.ones(N, bool)
    wanted = jax.grad(lambda p: spread(p, {}, batch, mask, None))(params)["encoder"]
    instead, beside = (gradient_of_one_draw(coupled(loss)) for loss in (no_loss, encoder_loss))
    np.testing.assert_allclose(instead, N * wanted, rtol=1e-4)
    own = gradient_of_one_draw(Method("own", (), first_variables, encoder_loss, None))
    np.testing.assert_allclose(beside, own + N * wanted, rtol=1e-4)


PARAMS = {"encoder": {"conv": jnp.ones(3), "norm": jnp.ones(2)}, "head": jnp.ones(2)}


def moved(**fields):
    optimizer = make_optimizer(OptimConfig("sgd", learning_rate=1.0, momentum=0.0, **fields))
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = optimizer.update(ones, optimizer.init(PARAMS), PARAMS)
    return jax.tree.map(lambda u: -float(u[0]), updates)


def test_each_part_of_the_parameters_has_its_own_optimiser():
    parts = {"encoder": {"learning_rate": 0.5}, "encoder/norm": {"learning_rate": 0.25}}
    assert moved(parts=parts) == {"encoder": {"conv": 0.5, "norm": 0.25}, "head": 1.0}


def test_an_average_is_kept_over_all_parts():
    parts = {"head": {"name": "adam", "learning_rate": 0.5}}
    found = moved(parts=parts, average="late")
    assert found["encoder"] == {"conv": 1.0, "norm": 1.0}
    assert found["head"] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"hea": {"learning_rate": 1.0}}, "optim.parts.hea is no part of the parameters"),
        ({"head": {"rate": 1.0}}, "sets 'rate'; a part has name, learning_rate"),
        ({"head": 0.5}, "optim.parts.head is 0.5; it must be what differs there of name"),
        ({"head": {"learning_rate": "x"}}, "optim.parts.head.learning_rate is 'x'; it must be"),
        ({"head": {"every": 1.5}}, "optim.parts.head.every is 1.5; it must be int"),
        ({"head": {"learning_rate": -1.0}}, "optim.parts.head: optim.learning_rate is -1.0"),
    ],
)
def test_a_wrong_part_ends_in_one_sentence(parts, sentence):
    with pytest.raises(InputError) as caught:
        moved(parts=parts)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_part_of_one_stage_has_its_optimiser_there_and_one_of_no_stage_is_refused():
    config = OptimConfig("sgd", learning_rate=1.0, parts={"head": {"learning_rate": 0.25}})
    trees = [p for p, _ in stages.shapes_of_stages(TWO, first_variables(None, None), SPEC)]
    assert [sorted(tree) for tree in trees] == [["encoder"], ["head"]]
    check_parts(config, trees)
    plain, part = (first_move(make_optimizer(c, everywhere=False)) for c in (
        OptimConfig("sgd", learning_rate=1.0), config
    ))  # fmt: skip
    np.testing.assert_allclose(part, 0.25 * plain, rtol=1e-6)
    with pytest.raises(InputError, match=r"parts\.heads is no .* begin with encoder, head\.$"):
        check_parts(OptimConfig(parts={"heads": {}}), trees)


def test_stages_of_shapes_are_the_shapes_of_the_stages():
    variables = first_variables(None, None)
    made = lambda given: join(
        plan_of(enabled=False), TWO, optax.sgd(1.0), spec=SPEC, variables=given, microbatch=4,
        mesh=engine.make_mesh(1),
    )  # fmt: skip
    of_shapes = stages.stages_of(made(jax.eval_shape(lambda: variables)))
    for ours, theirs in zip(of_shapes, stages.stages_of(made(variables)), strict=True):
        shapes = jax.eval_shape(lambda stage=theirs: (stage.params, stage.frozen))
        assert jax.tree.map(lambda s: (s.shape, s.dtype), (ours.params, ours.frozen)) == (
            jax.tree.map(lambda s: (s.shape, s.dtype), shapes)
        )


def first_move(optimizer):
    """How far the head of stage 2 goes in its first step, when the run's optimiser is sgd(1)."""
    stage = TWO.stages[0]._replace(optimizer=optimizer)
    method = TWO._replace(stages=(stage,))
    variables = first_variables(None, None)
    made = join(
        plan_of(enabled=False), method, optax.sgd(1.0), spec=SPEC, variables=variables,
        microbatch=64, mesh=engine.make_mesh(1),
    )  # fmt: skip
    second = stages.stages_of(made)[1]
    keys = zeros(abstract_randomness(second.num_leaves))
    state, _ = second.update(second.begin(), second.chunk(FIELDS, range(N)), keys)
    return np.asarray(state.params["head"])


def test_a_stage_may_have_an_optimiser_of_its_own():
    plain, own = first_move(None), first_move(optax.sgd(0.25))
    assert np.abs(plain).max() > 0
    np.testing.assert_allclose(own, 0.25 * plain, rtol=1e-6)
