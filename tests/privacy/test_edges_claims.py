"""Sharp edges of claims: over several stages, about other parameters, and side by side."""

import shutil

import numpy as np
import pandas as pd
import pytest

from jaxfair.data.overlap import Places, check_places
from jaxfair.errors import InputError
from jaxfair.files import write_text
from jaxfair.privacy import verify
from jaxfair.privacy.accounting import Event, epsilon
from jaxfair.privacy.study import Fold, Trained, joint_cost
from tests.privacy.chains import change, made, read


def two_stages(home, **first):
    return made(home / "second", made(home / "first", **first), sigma=9.0)


def test_edge_78_a_claim_has_the_worst_words_of_its_stages(tmp_path):
    weak = {"unit": "image", "selection": "coupled", "insecure_seed": 1}
    told = read(two_stages(tmp_path, **weak))
    words = {name: told[name] for name in ("unit", "selection", "grade", "noise_source")}
    assert words == {
        "unit": "image",
        "selection": "coupled",
        "grade": "research",
        "noise_source": "insecure_seed",
    }


def test_edge_79_the_tuning_of_all_stages_adds_up(tmp_path):
    told = read(two_stages(tmp_path, tuning_runs=4))["tuning"]
    assert told["runs"] == 5
    assert told["epsilon"] == epsilon([Event(0.1, 8.0, 16), Event(0.1, 9.0, 4)], 1e-5)


def test_edge_80_nobody_trains_in_one_stage_and_tests_in_another():
    def places(*split):
        ids = [f"i{n}" for n in range(3)]
        table = pd.DataFrame({"patient_id": ids, "image_id": ids, "split": split})
        return Places(table.assign(also_test=False), "clinic", "image")

    first, second = places("train", "test", "train"), places("train", "train", "train")
    check_places(first, first, where="run")
    for before, now in ((second, first), (first, second)):
        with pytest.raises(InputError, match=r"train\.start_from is run"):
            check_places(before, now, where="run")


def test_edge_81_the_parameters_are_those_of_the_claim(tmp_path):
    ours = made(tmp_path / "private", checkpoint=True)
    plain = made(tmp_path / "plain", enabled=False, checkpoint=True)
    assert verify.verify_run(ours) == []
    shutil.rmtree(ours / "checkpoints")
    shutil.copytree(plain / "checkpoints", ours / "checkpoints")
    assert any("parameters_digest" in fault for fault in verify.verify_run(ours))


def test_edge_82_the_metrics_are_those_of_the_claim(tmp_path):
    folder = made(tmp_path / "run")
    assert verify.verify_run(folder) == []
    write_text(folder / "metrics.jsonl", '{"step": 4, "params_norm": 1.0}\n')
    assert any("metrics_digest" in fault for fault in verify.verify_run(folder))


def test_edge_83_who_is_protected_is_compared_with_who_was_drawn(tmp_path):
    folder = made(tmp_path / "run", unit="image")
    change(folder, "config", dp={k: v for k, v in read(folder, "config")["dp"].items()
                                 if k != "unit"})  # fmt: skip
    change(folder, unit="patient", covered=read(folder)["covered"].replace("image", "patient"))
    assert any("unit is 'patient'" in fault for fault in verify.verify_run(folder))


def test_edge_84_the_earlier_stage_is_the_one_that_was_begun_with(tmp_path):
    second = two_stages(tmp_path)
    assert verify.verify_run(second) == []
    shutil.rmtree(tmp_path / "first")
    made(tmp_path / "first", epsilon=7.0)
    assert any("another digest" in fault for fault in verify.verify_run(second))


def test_edge_85_runs_side_by_side_are_one_release():
    folds = [Trained((Event(1.0, 20.0, 5),), Fold(("p", 5), 5, n)) for n in range(5)]
    assert joint_cost(folds, 1e-5) == epsilon([Event(1.0, 20.0, 20)], 1e-5)
    assert joint_cost(folds, 1e-5) > joint_cost(folds[:1], 1e-5) * np.sqrt(3)


def test_edge_86_a_plain_run_on_patients_is_no_beginning_of_a_private_one(tmp_path):
    plain = made(tmp_path / "plain", enabled=False)
    with pytest.raises(InputError, match="a run without privacy"):
        made(tmp_path / "second", plain)


def test_edge_131_a_curation_that_counts_is_coupled_whatever_the_claim_says(tmp_path):
    for number, (rules, word) in enumerate((
        ({"split": "random", "curate": "counted"}, "coupled"),
        ({"split": "thesis", "curate": ""}, "coupled"),
        ({"split": "random", "curate": "public"}, "independent"),
        ({"split": "validation_folds"}, "independent"),
    )):  # fmt: skip
        run = made(tmp_path / str(number), checkpoint=True, split=rules, selection=word)
        assert verify.verify_run(run) == []
        other = {"coupled": "independent", "independent": "coupled"}[word]
        for file in ("privacy", "population"):  # the claim, and the people it was taken for
            change(run, file, selection=other)
        assert any(f"selection is {other!r}" in fault for fault in verify.verify_run(run))
