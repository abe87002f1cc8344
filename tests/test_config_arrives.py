"""What a config says reaches the training, the claim and the scores, and nothing in its place."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxfair import evaluate, start, train
from jaxfair.config import settings_from_config
from jaxfair.engine.optim import OptimConfig, make_optimizer
from jaxfair.engine.stages import stages_of
from jaxfair.errors import InputError
from jaxfair.methods.base import Method, Stage
from jaxfair.start import first_variables, population_of, trained_assembly
from tests.engine.test_resume import ToyDataset, toy_method
from tests.small import small_config


@pytest.fixture
def toy(monkeypatch):
    """The door with a network of a few weights and made-up images; `toy[0]` is the Method."""
    made = [toy_method()]
    monkeypatch.setattr(start, "method_from_settings", lambda settings: made[0])
    monkeypatch.setattr(train, "open_data", lambda *a, **k: ToyDataset())
    monkeypatch.setattr(train.evaluate, "run", lambda *a, **k: None)
    monkeypatch.setattr(train.report, "run", lambda *a, **k: None)
    return made


def asked(tmp_path, **overrides):
    return small_config(tmp_path, **{"data__public_size": 24, "dp__insecure_seed": 4} | overrides)


def handed_on(monkeypatch, config, folder, **arguments):
    """What `train.run` opens a training with."""
    seen = {}

    def caught(assembly, population, fields, path, *, config, options):
        seen.update(assembly=assembly, population=population, config=config, options=options)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "open_assembly", caught)
    with pytest.raises(KeyboardInterrupt):
        train.run(config, folder, progress=False, **arguments)
    return SimpleNamespace(**seen)


def test_every_option_of_the_config_reaches_the_training(toy, tmp_path, monkeypatch):
    config = asked(
        tmp_path, seed=7, dp__microbatch=3, train__checkpoint_every=5, train__tensorboard=True
    )
    seen = handed_on(monkeypatch, config, tmp_path / "run", num_devices=2, recharge=True)
    assert seen.options._asdict() == {
        "save_every": 5, "microbatch": 3, "seed": 7, "insecure_seed": 4, "recharge": True,
        "board": True, "progress": False,
    }  # fmt: skip
    assert (seen.assembly.mesh.size, seen.assembly.microbatch) == (2, 3)
    assert seen.config == config.to_dict()
    assert seen.assembly.plan.public_size == 24


def test_the_optimiser_is_the_one_of_the_config(toy, tmp_path, monkeypatch):
    moved = []
    for rate in (0.25, 0.5):
        config = asked(tmp_path, optim__name="sgd", optim__learning_rate=rate)
        made = handed_on(monkeypatch, config, tmp_path / "run").assembly
        ones = jax.tree.map(np.ones_like, made.params)
        updates, _ = made.optimizer.update(ones, made.optimizer.init(made.params), made.params)
        moved.append(float(updates["b"]))
    assert moved[1] == pytest.approx(2 * moved[0]) and moved[0] < 0


def test_a_method_of_a_config_that_couples_examples_is_refused_before_data_are_read(
    toy, tmp_path, monkeypatch
):
    def loss(params, frozen, example, key):
        return jax.lax.pmean(toy_method().loss(params, frozen, example, key)[0], "data"), {}

    toy[0] = toy_method()._replace(loss=loss)
    monkeypatch.setattr(train, "open_data", lambda *a, **k: 1 / 0)
    with pytest.raises(InputError, match="talks to other examples"):
        train.run(asked(tmp_path), tmp_path / "run", progress=False)


def test_the_first_variables_follow_from_the_seed_of_the_config(toy, tmp_path):
    begun = [
        first_variables(settings_from_config(asked(tmp_path, seed=seed)))[1]["w"]
        for seed in (0, 7, 7)
    ]
    assert np.array_equal(begun[1], begun[2]) and not np.array_equal(begun[0], begun[1])


@pytest.mark.parametrize(("unit", "count"), [("patient", 24), ("image", 32)])
def test_who_is_drawn_is_who_the_claim_names(tmp_path, unit, count):
    class Told(ToyDataset):
        data, selection, population = "phantom", "coupled", "hospital"

        def units(self, asked, split="train"):
            assert split == "train"
            names, rows = super().units(asked, split)
            if asked == "patient":
                return names, rows
            single = np.concatenate(rows)
            return [f"i{row}" for row in single], [np.array([row]) for row in single]

    settings = settings_from_config(asked(tmp_path, dp__unit=unit))
    people = population_of(settings, Told("abc"))
    assert len(people.rows) == len(people.ids) == count
    told = people.unit, people.name, people.data, people.selection, people.digest
    assert told == (unit, "hospital", "phantom", "coupled", "abc")


def staged():
    """The toy, and after it a stage with a head of its own."""

    def begin(params, frozen, key, spec):
        return {"head": params["w"]}, {}

    def loss(params, frozen, example, key):
        return (params["head"] ** 2).sum() * example["image"].mean(), {}

    return toy_method()._replace(
        stages=(Stage(Method("late", ("toy",), None, loss, None), begin, 0.5),)
    )


def test_what_is_scored_is_the_last_stage_of_a_run(toy, tmp_path):
    toy[0] = staged()
    config = asked(tmp_path)
    folder = train.run(config, tmp_path / "run", num_devices=1, progress=False)
    stage, state = trained_assembly(settings_from_config(config), folder)
    assert stage.method.name == "late" and set(state.params) == {"head"}
    assert int(state.step) == 6 and len(stages_of(stage)) == 1


def test_the_average_is_what_is_scored(tmp_path, monkeypatch):
    used = []

    class Stop(Exception):
        """Ends the evaluation where it would score."""

    def score(method, params, *rest, **options):
        used.append(params)
        raise Stop

    optimizer = make_optimizer(OptimConfig("sgd", learning_rate=1.0, average="late"))
    state = optimizer.init({"w": np.zeros(2)})
    _, state = optimizer.update({"w": np.ones(2)}, state, {"w": np.zeros(2)})
    trained = SimpleNamespace(params={"w": np.full(2, 9.0)}, opt_state=state, step=1)
    stage = SimpleNamespace(method=None, frozen={})
    monkeypatch.setattr(evaluate, "open_data", lambda *a, **k: None)
    monkeypatch.setattr(evaluate, "trained_assembly", lambda *a: (stage, trained))
    monkeypatch.setattr(evaluate, "evaluated_rows", lambda *a: {"row": np.zeros(1, int)})
    monkeypatch.setattr(evaluate, "score_rows", score)
    (tmp_path / "run").mkdir()
    with pytest.raises(Stop):
        evaluate.run(asked(tmp_path), tmp_path / "run")
    assert np.abs(used[0]["w"]).max() < 9
