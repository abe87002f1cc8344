"""Attempts to make a training say, or release, what is not so; each is refused or told."""

import json
import shutil

import jax
import numpy as np
import pandas as pd
import pytest

from jaxfair import engine
from jaxfair.engine.population import population_from_ids
from jaxfair.errors import InputError
from jaxfair.privacy import sampling
from jaxfair.privacy.verify import verify_run
from jaxfair.run import checkpoint
from jaxfair.run.folder import RunFolder
from jaxfair.tables import MISSING
from tests.engine.toy import FACTS, GROUPED, METHOD, N, loss, open_toy, plan_of, refusal, staged


def test_two_loops_at_once_are_refused(tmp_path):
    with open_toy(tmp_path / "run") as trainer:
        one, two = trainer.steps(), trainer.steps()
        next(one)
        with pytest.raises(InputError, match="another loop"):
            next(two)
        assert [released.step for released in one] == [4, 6, 8]
    assert verify_run(tmp_path / "run") == []


@pytest.mark.parametrize("how", ["closed", "left by an error", "fresh loop", "run again"])
def test_nothing_is_trained_after_the_end(tmp_path, how):
    trainer = open_toy(tmp_path / "run")
    loop = trainer.steps()
    if how == "left by an error":
        with pytest.raises(ZeroDivisionError), trainer:
            next(loop)
            raise ZeroDivisionError
    else:
        with trainer:
            next(loop)
    told = trainer.folder.privacy.exists() and trainer.folder.privacy.read_text()
    with pytest.raises(InputError, match="is closed"):
        trainer.run() if how == "run again" else next(trainer.steps() if "fresh" in how else loop)
    assert trainer.step == 2
    assert (trainer.folder.privacy.exists() and trainer.folder.privacy.read_text()) == told


def test_closing_twice_leaves_a_later_run_in_the_folder_alone(tmp_path):
    old = open_toy(tmp_path / "run")
    old.close()
    shutil.rmtree(tmp_path / "run")
    with open_toy(tmp_path / "run") as new:
        old.close()
        assert not new.folder.trained() and new.folder.secret.exists()
        next(new.steps())


def big_draws(monkeypatch):
    """Every draw is of all units, so that it makes several chunks."""
    monkeypatch.setattr(sampling, "poisson_draw", lambda *a, num_units, **k: np.arange(num_units))


def interrupted_in_a_draw(folder, monkeypatch):
    """A trainer whose first draw stopped after two of five chunks, and whose owner caught it."""
    trainer = open_toy(folder, insecure_seed=1)
    train = engine.Assembly.train

    def stops(self, *arguments):
        for number, found in enumerate(train(self, *arguments)):
            yield found
            if number == 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine.Assembly, "train", stops)
        next(trainer.steps())
    return trainer


def test_a_draw_that_was_cut_off_is_not_added_to_the_next(tmp_path, monkeypatch):
    big_draws(monkeypatch)
    trainer = interrupted_in_a_draw(tmp_path / "cut", monkeypatch)
    with pytest.raises(InputError, match="interrupted inside a draw"):
        next(trainer.steps())
    trainer.close()
    assert not trainer.folder.trained(), "it is no end, and can be resumed"
    whole = open_toy(tmp_path / "whole", insecure_seed=1)
    again = open_toy(tmp_path / "cut", insecure_seed=1)
    first_whole, first_again = next(whole.steps()), next(again.steps())
    np.testing.assert_array_equal(first_whole.params["w"], first_again.params["w"])


def test_a_run_that_paid_more_than_it_made_is_told_and_holds(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def stop(*arguments):
            raise KeyboardInterrupt

        patch.setattr(checkpoint, "save", stop)
        open_toy(tmp_path / "run").run()
    with open_toy(tmp_path / "run"):
        pass
    told = json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert told["steps"] == 0 and told["epsilon"] > 0
    assert verify_run(tmp_path / "run") == []


def test_a_secret_that_a_crash_left_in_a_finished_folder_is_removed(tmp_path, monkeypatch):
    trainer = open_toy(tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def stop(folder):
            raise KeyboardInterrupt

        patch.setattr(RunFolder, "forget_secret", stop)
        trainer.close()
    assert trainer.folder.trained() and trainer.folder.secret.exists()
    assert "finished" in refusal(tmp_path / "run")
    assert not trainer.folder.secret.exists() and not trainer.folder.fingerprint.exists()


def test_a_config_cannot_say_otherwise_than_the_plan(tmp_path):
    assert "config names 'dp'" in refusal(tmp_path / "run", config={"dp": {"epsilon": 1.0}})


@pytest.mark.parametrize("name", ["steps", "expected_batch_size", "public_size"])
def test_a_size_is_a_whole_number(name):
    for wrong in (10.5, 40.0, True):
        with pytest.raises(InputError, match=f"{name} is {wrong}; it must be a whole number"):
            plan_of({name: wrong} | ({"expected_batch_size": 1} if name == "public_size" else {}))
    plan = plan_of({name: np.int64(20)})
    assert type(getattr(plan, name)) is int and plan.private


def test_a_run_without_a_step_holds(tmp_path):
    with open_toy(tmp_path / "run"):
        pass
    assert verify_run(tmp_path / "run") == []


def test_a_coupled_selection_holds_when_it_is_recomputed(tmp_path):
    people = population_from_ids(range(N), **FACTS, selection="coupled")
    with open_toy(tmp_path / "run", people=people) as trainer:
        next(trainer.steps())
    assert verify_run(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("people", "sentence"),
    [
        (population_from_ids(range(N), **FACTS)._replace(unit="person"), "'unit'"),
        (population_from_ids(range(N), **FACTS)._replace(name=None), "'population'"),
        (population_from_ids(range(N), **FACTS)._replace(data="fake"), "'data'"),
        (GROUPED, "group code"),
        (GROUPED._replace(groups=np.full(N + 1, -1)), "41 group codes for 40 units"),
        (GROUPED._replace(ids=np.zeros(3, np.uint32)), "3 ids for 40 units"),
    ],
)
def test_what_a_claim_cannot_say_is_refused_before_anything_is_paid(tmp_path, people, sentence):
    assert sentence in refusal(tmp_path / "run", people=people)
    ledger = RunFolder(tmp_path / "run").ledger
    assert not ledger.exists()


def test_several_rows_of_one_id_are_no_image(tmp_path):
    people = population_from_ids(np.arange(N) // 2, unit="image")
    assert "unit is 'image'" in refusal(tmp_path / "run", people=people)


@pytest.mark.parametrize("missing", [*sorted(MISSING), "NA", " N/A ", None, float("nan"), pd.NA])
def test_a_missing_id_is_found_also_as_text(missing):
    with pytest.raises(InputError, match="every row needs one"):
        population_from_ids(["a", missing], unit="patient")


def test_ids_that_are_no_single_values_are_refused():
    with pytest.raises(InputError, match="one number or one text"):
        population_from_ids(np.zeros((3, 2)), unit="patient")


def test_a_number_is_one_id_however_it_is_written():
    people = population_from_ids([1, 1.0, "1", " 1", np.float64(1), b"1"], unit="patient")
    assert [rows.tolist() for rows in people.rows] == [[0, 1, 2, 3, 4, 5]]


def test_a_loss_that_prints_is_refused(tmp_path):
    def prints(params, frozen, example, key):
        jax.debug.print("{}", example["x"])
        return loss(params, frozen, example, key)

    assert "out of the step" in refusal(tmp_path / "run", method=METHOD._replace(loss=prints))


@pytest.mark.parametrize(
    "part", ["prepare", "stage", "prepare of a stage", "batch_loss of a stage"]
)
def test_coupling_in_any_part_is_refused(tmp_path, part):
    over = lambda x: jax.lax.pmean(x, "data")
    prepare = lambda frozen, raw: {"x": over(raw["x"])}
    coupled = lambda p, f, e, k: (over(loss(p, f, e, k)[0]), {})
    stage = staged(1.0).stages[0]
    inner = {
        "stage": {"loss": coupled},
        "prepare of a stage": {"prepare": prepare},
        "batch_loss of a stage": {"batch_loss": lambda *arguments: 0.0},
    }.get(part)
    later = stage._replace(method=stage.method._replace(**inner or {}))
    method = METHOD._replace(stages=(later,)) if inner else METHOD._replace(prepare=prepare)
    told = refusal(tmp_path / "run", method=method)
    assert "talks to other examples" in told or "has a batch_loss" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{}, {"recharge": True}])
def test_a_second_writer_is_told_and_takes_nothing(tmp_path, options):
    with open_toy(tmp_path / "run") as trainer:
        next(trainer.steps())
        before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
        assert "Another process" in refusal(tmp_path / "run", **options)
        assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
        for _ in trainer.steps():
            pass
    assert verify_run(tmp_path / "run") == []


def test_who_waited_for_the_end_of_a_run_does_not_begin_it_again(tmp_path, monkeypatch):
    """It ends after the second writer looked, and before it has the lock."""
    told = iter([False])
    monkeypatch.setattr(RunFolder, "trained", lambda self: next(told, self.privacy.exists()))
    with open_toy(tmp_path / "run"):
        pass
    told = iter([False])
    assert "finished run" in refusal(tmp_path / "run", recharge=True)
    assert not (tmp_path / "run" / "secret").exists()
