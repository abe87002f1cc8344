"""A private training of one's own in one call: what it promises, and what it refuses."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfair
from jaxfair.errors import InputError
from jaxfair.privacy import ledger as ledgers
from jaxfair.privacy.verify import verify_run
from jaxfair.run import checkpoint

ROWS, PATIENTS = 240, 80
rng = np.random.default_rng(0)
X = rng.normal(size=(ROWS, 3)).astype(np.float32)
Y = X @ np.array([1.0, -2.0, 0.5], np.float32)
IDS = np.arange(ROWS) % PATIENTS
START = {"w": np.zeros(3, np.float32)}


def loss(params, example, key):
    return (example["x"] @ params["w"] - example["y"]) ** 2


def options(folder, **changes):
    return {
        "patient": IDS, "epsilon": 6.0, "public_size": 80, "steps": 12,
        "expected_batch_size": 20, "optimizer": optax.sgd(0.2), "folder": folder,
        "devices": 2, "microbatch": 8, "save_every": 4, "progress": False,
    } | changes  # fmt: skip


def fit(folder, loss_fn=loss, params=START, arrays=None, **changes):
    arrays = {"x": X, "y": Y} if arrays is None else arrays
    return jaxfair.fit_private(loss_fn, params, arrays, **options(folder, **changes))


def refusal(folder, *args, **changes):
    with pytest.raises(InputError) as caught:
        fit(folder, *args, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("fit") / "run")


def test_the_statement_is_whole_and_holds_when_it_is_recomputed(fitted):
    told = fitted.privacy
    assert json.loads(fitted.folder.privacy.read_text()) == told
    assert 0 < told["epsilon"] <= 6.0 and told["steps"] == 12
    assert (told["unit"], told["grade"], told["noise_source"]) == ("patient", "private", "os")
    assert told["sampling_prob"] == 20 / 80 and told["public_size"] == 80
    assert verify_run(fitted.folder.path) == []


def test_a_training_that_goes_on_from_another_one_claims_and_pays_for_both(tmp_path):
    """Else a known seed and 8 of epsilon would be private at 1, one call later."""
    first = fit(tmp_path / "a", insecure_seed=3, steps=4, epsilon=2.0)
    asked = {"params": first.params, "start_from": tmp_path / "a", "steps": 4}
    second = fit(tmp_path / "b", epsilon=3.0, **asked).privacy
    assert (second["grade"], second["tuning"]["runs"], second["inherited"]) == ("research", 2, 1)
    assert first.privacy["epsilon"] < second["epsilon"] <= 3.0
    assert verify_run(tmp_path / "b") == []
    assert "start_from is" in refusal(tmp_path / "c", start_from=tmp_path / "nothing")
    plain = fit(tmp_path / "plain", enabled=False, steps=4)
    refused = refusal(tmp_path / "d", **asked | {"start_from": plain.folder.path})
    assert "cannot be private" in refused


def test_every_step_that_was_made_was_paid(fitted):
    entries, _ = ledgers.read_entries(fitted.folder.ledger)
    assert sum(entry.steps for entry in entries) == 12
    assert {entry.sampling_prob for entry in entries} == {0.25}


def test_it_learns(tmp_path):
    learned = fit(tmp_path / "run", insecure_seed=3).params["w"]
    before, after = (np.mean((X @ w - Y) ** 2) for w in (START["w"], learned))
    assert after < before / 4


def test_nothing_random_is_left_behind(fitted):
    names = {path.name for path in fitted.folder.path.rglob("*")}
    assert not names & {"secret", "secret.key", "fingerprint.json"}


def test_a_finished_folder_is_not_trained_again(fitted):
    assert "holds a finished run" in refusal(fitted.folder.path)


def test_rows_of_one_patient_are_one_unit(tmp_path):
    """A patient with all rows but a few counts once: nearly every draw is of a few rows."""
    patient = np.where(np.arange(ROWS) < 230, 0, np.arange(ROWS))
    trainer = jaxfair.open_fit(
        loss, START, {"x": X, "y": Y}, **options(tmp_path / "run", patient=patient)
    )
    with trainer:
        feed = trainer._feed()
        assert len(feed.population.rows) == 11
        assert max(len(feed.draw(n)) for n in range(200)) <= 11


def test_the_loop_of_ones_own_is_the_same_training(tmp_path, monkeypatch):
    whole = fit(tmp_path / "whole", insecure_seed=3)
    seen = []
    with jaxfair.open_fit(
        loss, START, {"x": X, "y": Y}, **options(tmp_path / "own", insecure_seed=3)
    ) as trainer:
        for released in trainer.steps():
            seen.append((released.step, released.epsilon))
            assert trainer.statement()["steps"] == released.step
    np.testing.assert_array_equal(released.params["w"], whole.params["w"])
    assert [step for step, _ in seen] == [4, 8, 12]
    assert [e for _, e in seen] == sorted(e for _, e in seen)
    assert verify_run(tmp_path / "own") == []


def test_what_was_yielded_is_still_there_at_the_end(tmp_path):
    """The states between are given back to the devices; copies of them are not."""
    changes = {"population": "clinic", "devices": 2}
    with jaxfair.open_fit(
        loss, START, {"x": X, "y": Y}, **options(tmp_path / "run", **changes)
    ) as trainer:
        seen = [released.params for released in trainer.steps()]
    assert len({np.asarray(params["w"]).tobytes() for params in seen}) == 3
    assert trainer.assembly.mesh.size == 2
    assert trainer.statement()["population"] == "clinic"


def test_a_loop_that_stops_early_claims_what_it_made(tmp_path):
    with jaxfair.open_fit(loss, START, {"x": X, "y": Y}, **options(tmp_path / "run")) as trainer:
        next(trainer.steps())
    told = json.loads(trainer.folder.privacy.read_text())
    assert told["steps"] == 4 and verify_run(tmp_path / "run") == []


def interrupted(folder, monkeypatch, **changes):
    with monkeypatch.context() as patch:
        save = checkpoint.save

        def stop(*args):
            save(*args)
            raise KeyboardInterrupt

        patch.setattr(checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(folder, **changes)


def test_an_interrupted_training_resumes_bit_by_bit_and_pays_once(tmp_path, monkeypatch):
    whole = fit(tmp_path / "whole", insecure_seed=3)
    interrupted(tmp_path / "cut", monkeypatch, insecure_seed=3)
    resumed = fit(tmp_path / "cut", insecure_seed=3)
    np.testing.assert_array_equal(resumed.params["w"], whole.params["w"])
    assert resumed.privacy["ledger_head"] == whole.privacy["ledger_head"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"arrays": {"x": X + 1, "y": Y}}, "data"),
        ({"patient": IDS // 2}, "data"),
        ({"loss_fn": lambda p, e, k: 2 * loss(p, e, k)}, "loss"),
        ({"optimizer": optax.sgd(0.1)}, "optimizer"),
        ({"params": {"w": np.ones(3, np.float32)}}, "first parameters"),
        ({"microbatch": 4}, "clipping"),
    ],
)
def test_what_a_step_reads_may_not_change_before_a_resume(tmp_path, monkeypatch, change, named):
    interrupted(tmp_path / "run", monkeypatch)
    assert f"changed since it began: {named}" in refusal(tmp_path / "run", **change)


def test_a_lost_fingerprint_is_refused_like_a_changed_one(tmp_path, monkeypatch):
    interrupted(tmp_path / "run", monkeypatch)
    (tmp_path / "run" / "fingerprint.json").unlink()
    assert "its fingerprint.json is gone" in refusal(tmp_path / "run")


def test_a_folder_of_other_settings_is_refused_with_the_difference(tmp_path, monkeypatch):
    interrupted(tmp_path / "run", monkeypatch)
    assert "dp.epsilon was 6.0, now 3.0" in refusal(tmp_path / "run", epsilon=3.0)


def test_two_trainings_in_one_folder_are_refused(tmp_path):
    with jaxfair.open_fit(loss, START, {"x": X, "y": Y}, **options(tmp_path / "run")) as trainer:
        assert "Another process is training" in refusal(tmp_path / "run")
        next(trainer.steps())


def test_a_loss_that_couples_examples_is_refused(tmp_path):
    def over_devices(params, example, key):
        return jax.lax.pmean(loss(params, example, key), "data")

    assert "talks to other examples" in refusal(tmp_path / "run", over_devices)


def test_a_loss_that_is_no_number_is_refused(tmp_path):
    assert "float32[3] for one example" in refusal(tmp_path / "run", lambda p, e, k: p["w"])


def test_a_loss_that_gives_more_than_a_number_is_refused(tmp_path):
    assert "gives tuple for one example" in refusal(tmp_path / "run", lambda p, e, k: (0.0, {}))


def test_parameters_that_are_no_floats_are_refused(tmp_path):
    assert "hold a int32 at ['n']" in refusal(tmp_path / "run", loss, START | {"n": np.int32(3)})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patient": None}, "patient is None, so nobody knows which rows belong to one patient"),
        ({"patient": IDS[:-1]}, "patient has 239 ids for 240 rows"),
        ({"patient": [*IDS[:-1], None]}, "Row 239 has the id None"),
        ({"patient": [*IDS[:-1], float("nan")]}, "Row 239 has the id nan"),
        ({"patient": [*map(str, IDS[:-1]), " "]}, "Row 239 has the id ' '"),
        ({"expected_batch_size": 81}, "a batch must be between 1 and the public size"),
        ({"public_size": None}, "declare the size of the training population"),
        ({"epsilon": 0.0}, "dp.epsilon is 0.0"),
        ({"unit": "person"}, "dp.unit is 'person'"),
        ({"l2_clip": 1.0}, "Did you mean 'l2_clip_norm'?"),
        ({"arrays": {"x": X, "y": Y[:5]}}, "x 240, y 5"),
        ({"arrays": {"x": X, "y": np.float32(1)}}, "y None"),
        ({"arrays": {}}, "there are none"),
        ({"devices": 99}, "99 devices were asked for"),
    ],
)
def test_wrong_input_ends_in_one_sentence_and_makes_no_folder(tmp_path, changes, sentence):
    assert sentence in refusal(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_rows_without_patients_are_protected_one_by_one_and_it_is_said(tmp_path):
    told = fit(tmp_path / "run", patient=None, unit="image", public_size=240).privacy
    assert told["unit"] == "image" and told["covered"].startswith("each image ")


def test_a_plain_training_claims_nothing(tmp_path):
    told = fit(tmp_path / "run", enabled=False).privacy
    assert told["epsilon"] is None and told["grade"] == "none"
    assert verify_run(tmp_path / "run") == []


def test_a_research_seed_is_stamped(tmp_path):
    assert fit(tmp_path / "run", insecure_seed=1).privacy["grade"] == "research"


def test_the_steps_end_where_the_budget_ends(tmp_path, monkeypatch, capsys):
    """After a recharge the lost steps are paid for again, so the last ones cannot be."""
    interrupted(tmp_path / "run", monkeypatch)
    save = checkpoint.save
    (tmp_path / "run" / "checkpoints" / "seal-4.json").unlink()
    told = fit(tmp_path / "run", recharge=True).privacy
    assert checkpoint.save is save
    assert told["epsilon"] <= told["budget"] == 6.0 and told["steps"] < 12
    assert "above the budget" in capsys.readouterr().err


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=True):
        return nn.Dense(1)(nn.tanh(nn.Dense(4)(x)))[0]


def test_a_flax_model_in_the_lines_of_the_readme(tmp_path):
    model = Dense()
    params = model.init(jax.random.key(0), X[0])
    square = lambda p, example, key: (model.apply(p, example["x"]) - example["y"]) ** 2
    told = fit(tmp_path / "run", square, params, steps=4).privacy
    assert told["steps"] == 4


class Line:
    """A model in the manner of Equinox: a pytree whose leaves are its parameters."""

    def __init__(self, w):
        self.w = w

    def __call__(self, x):
        return x @ self.w


jax.tree_util.register_pytree_node(Line, lambda m: ((m.w,), None), lambda _, leaves: Line(*leaves))


def test_a_model_that_is_a_pytree_keeps_its_class(tmp_path):
    square = lambda model, example, key: (model(example["x"]) - example["y"]) ** 2
    found = fit(tmp_path / "run", square, Line(jnp.zeros(3)), steps=4)
    assert isinstance(found.params, Line) and found.params(X).shape == (ROWS,)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"public_size": 80.5}, "public_size is 80.5"),
        ({"public_size": True}, "public_size is True"),
        ({"expected_batch_size": 5.5}, "expected_batch_size is 5.5"),
        ({"epsilon": "3"}, "epsilon is '3'"),
        ({"optimizer": None}, "optimizer is None"),
        ({"optimizer": optax.adam}, "optax.adam(1e-3)"),
        ({"folder": 3}, "folder is 3"),
        ({"patient": 3}, "one id for each of 240 rows"),
        ({"patient": IDS[:, None]}, "one id for each of 240 rows"),
        ({"params": {}}, "params hold no array"),
        ({"params": {"w": object()}}, "pytree of floating-point arrays"),
        ({"loss_fn": lambda params, example: 0.0}, "(params, example, key)"),
        ({"loss_fn": None}, "loss_fn is None"),
        ({"arrays": (X, Y)}, "must map names to arrays"),
        ({"arrays": {"x": X, 0: Y}}, "must map names to arrays"),
        ({"arrays": {"x": X[:0], "y": Y[:0]}}, "no rows"),
        ({"arrays": {"x": X, "y": Y.astype(object)}}, "arrays['y'] is no array of numbers"),
        ({"arrays": {"x": X, "y": Y.astype(str)}}, "arrays['y'] is no array of numbers"),
        ({"arrays": {"x": [[1], [1, 2]] * 120}}, "arrays['x'] is no array of numbers"),
        ({"arrays": {"x": X, "y": np.full(ROWS, 2**40)}}, "beyond int32"),
        ({"arrays": {"x": X, "y": np.ma.array(Y, mask=Y > 0)}}, "masked entries"),
    ],
)
def test_what_is_of_a_wrong_kind_is_refused_before_anything_is_written(tmp_path, changes, sentence):
    folder = tmp_path / "run"
    assert sentence in refusal(**{"folder": folder, **changes})
    assert not folder.exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    assert "it must be the path of a folder" in refusal(tmp_path / "run")


def test_numbers_of_numpy_are_numbers(tmp_path):
    whole = {name: np.int64(n) for name, n in [("steps", 2), ("public_size", 80)]}
    told = fit(tmp_path / "run", epsilon=np.float32(6.0), **whole).privacy
    assert (told["steps"], told["public_size"]) == (2, 80)


@pytest.mark.parametrize("ids", [["1", "1.0"], ["p1", "P 1"], ["7", "007"]])
def test_ids_that_look_alike_are_refused(tmp_path, ids):
    told = refusal(tmp_path / "run", patient=[*ids, *range(100, ROWS + 98)])
    assert "look like one" in told and repr(ids[0]) in told


def test_a_declared_size_far_from_the_truth_is_said_to_the_terminal_alone(tmp_path, capsys):
    fit(tmp_path / "run", public_size=800, steps=2, save_every=2, progress=True)
    told = capsys.readouterr().err
    assert "public_size is 800 and 80 patients train: a step draws 2 of them" in told
    assert "not 20" in told
    assert "compiling:" in told and told.rindex("training:") > told.rindex("compiling:")
    saved = [path for path in (tmp_path / "run").rglob("*.json*") if path.is_file()]
    assert saved and not any("patients train" in path.read_text() for path in saved)


def test_a_declared_size_near_the_truth_needs_no_remark(tmp_path, capsys):
    fit(tmp_path / "run", public_size=90, steps=2, save_every=2, progress=True)
    assert "public_size" not in capsys.readouterr().err
