"""A run begins with what another one learned: its network, its frozen part, its debts."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
import pytest

from jaxfair import train
from jaxfair.config import (
    load_config,
    method_from_settings,
    plan_from_settings,
    settings_from_config,
)
from jaxfair.errors import InputError
from jaxfair.methods.base import Method, Stage
from jaxfair.methods.labels import check_one_true
from jaxfair.privacy.verify import verify_run
from jaxfair.start import check_stages, description, first_variables, open_data, optimizer_of
from tests.test_configs import FOLDER
from tests.test_phantoms import FILMS

LABELS = ("cardiomegaly", "pleural_effusion_right", "pleural_effusion_left")


def config_of(home, **overrides):
    """The smallest classifier: a head on a ResNet9 that stays as it is."""
    config = load_config(f"{FOLDER / 'table_resnet.py'}:phantom")
    changed = FILMS | {"data.root": str(home / "phantoms"), "method.last_layer": True}
    changed["data.table.labels"] = LABELS[:1]
    with config.unlocked():
        config.update_from_flattened_dict(changed)
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
    return config


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("start")


@pytest.fixture(scope="module")
def private(home):
    config = config_of(home, seed=3)
    return train.run(config, home / "private", num_devices=1, progress=False).path


@pytest.fixture(scope="module")
def plain(home):
    config = config_of(home, dp__enabled=False)
    return train.run(config, home / "plain", num_devices=1, progress=False).path


def first_update(config):
    """What the optimiser of a config does to a parameter whose gradient is 1."""
    settings, params = settings_from_config(config), {"w": np.ones(1, np.float32)}
    optimizer = optimizer_of(settings, method_from_settings(settings), (params, {}))
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    return float(updates["w"][0])


@pytest.mark.parametrize(("enabled", "moved"), [(True, -0.25), (False, -1.0)])
def test_a_unit_normed_rate_is_divided_by_the_clip_of_a_private_run_alone(home, enabled, moved):
    fields = {"name": "sgd", "momentum": 0.0, "learning_rate": 1.0, "average": "none"}
    chosen = {f"optim__{name}": value for name, value in {**fields, "unit_normed": True}.items()}
    config = config_of(home, dp__enabled=enabled, dp__l2_clip_norm=4.0, **chosen)
    assert first_update(config) == pytest.approx(moved)


@pytest.mark.parametrize(("enabled", "moved"), [(True, -0.5), (False, -1.0)])
def test_a_rate_that_was_chosen_at_one_epsilon_follows_that_of_a_private_run(home, enabled, moved):
    fields = {"name": "sgd", "momentum": 0.0, "learning_rate": 1.0, "average": "none"}
    chosen = {f"optim__{name}": value for name, value in {**fields, "rate_at_epsilon": 8.0}.items()}
    config = config_of(home, dp__enabled=enabled, dp__epsilon=4.0, **chosen)
    assert first_update(config) == pytest.approx(moved)


def variables(config):
    _, params, frozen = first_variables(settings_from_config(config))
    return jax.tree.map(np.asarray, (params, frozen))


def test_parameters_and_the_frozen_part_come_from_the_run_before(home, private):
    _, theirs = variables(config_of(home, seed=3))
    params, frozen = variables(config_of(home, train__start_from=str(private)))
    jax.tree.map(np.testing.assert_array_equal, frozen["backbone"], theirs["backbone"])
    fresh, _ = variables(config_of(home, seed=3))
    assert not np.array_equal(params["head"]["kernel"], fresh["head"]["kernel"]), "it was trained"


def test_what_was_frozen_may_be_trained_next(home, private):
    _, theirs = variables(config_of(home, seed=3))
    params, frozen = variables(
        config_of(home, train__start_from=str(private), method__last_layer=False)
    )
    jax.tree.map(np.testing.assert_array_equal, params["backbone"], theirs["backbone"])
    assert not frozen["backbone"]


def test_a_head_for_other_labels_begins_anew(home, private):
    fewer = {"data__table__labels": LABELS[1:], "train__start_from": str(private)}
    params, frozen = variables(config_of(home, **fewer))
    _, theirs = variables(config_of(home, seed=3))
    assert params["head"]["kernel"].shape[-1] == 2
    jax.tree.map(np.testing.assert_array_equal, frozen["backbone"], theirs["backbone"])


def test_another_network_is_refused_in_one_sentence(home, private):
    config = config_of(home, train__start_from=str(private), method__backbone="resnet18")
    with pytest.raises(InputError, match="Start from a run of the same network") as caught:
        variables(config)
    assert "layer1_1" in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_of_several_stages_is_no_beginning(home, tmp_path):
    """By their names alone the parameters of jtt would fit, those of its two models exchanged."""
    twice = {"mitigation__name": "jtt"}
    saved = config_of(home, **twice).to_dict()
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(InputError, match="trained in 2 stages") as caught:
        variables(config_of(home, train__start_from=str(tmp_path), **twice))
    assert "\n" not in str(caught.value)


def test_a_second_stage_pays_for_both_and_says_where_it_began(home, private):
    config = config_of(
        home, train__start_from=str(private), dp__epsilon=12.0, data__table__labels=LABELS[1:]
    )
    run = train.run(config, home / "second", num_devices=1, progress=False)
    first, second = (
        json.loads((path / "privacy.json").read_text()) for path in (private, run.path)
    )
    assert second["inherited"] == 2 and first["epsilon"] < second["epsilon"] <= 12.0
    assert verify_run(run.path) == []
    assert (
        "random initial weights. So began a run of table_resnet_phantom" in run.report.read_text()
    )


def test_drawn_images_hold_nobody_and_need_no_guarantee(home, plain):
    settings = settings_from_config(config_of(home, train__start_from=str(plain)))
    assert plan_from_settings(settings).prior == ()
    assert "without privacy" in description(settings)["note"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"data": "real"}, "a run without privacy"), ({"start_from": "else"}, "whose config is not")],
)
def test_a_plain_run_of_patients_or_of_unknown_descent_is_refused(
    home, plain, tmp_path, change, sentence
):
    shutil.copytree(plain, tmp_path / "run")
    for name, section in (("privacy.json", None), ("config.json", "train")):
        path = tmp_path / "run" / name
        told = json.loads(path.read_text())
        part = told if section is None else told[section]
        part.update({key: value for key, value in change.items() if key in part})
        path.write_text(json.dumps(told))
    config = config_of(home, train__start_from=str(tmp_path / "run"))
    with pytest.raises(InputError, match=sentence):
        plan_from_settings(settings_from_config(config))


@pytest.mark.parametrize(
    ("split", "refused"),
    [({}, False), ({"data__split_salt": "other"}, True), ({"data__split": "folds"}, True)],
)
def test_a_stage_in_which_the_earlier_ones_people_are_held_out_is_refused(
    home, private, split, refused
):
    settings = settings_from_config(config_of(home, train__start_from=str(private), **split))
    dataset = open_data(settings, progress=False)
    if not refused:
        return check_stages(settings, dataset)
    with pytest.raises(InputError, match=r"Use the same data\.split"):
        check_stages(settings, dataset)


def test_people_of_another_drawing_or_population_are_others(home, private):
    drawn = {"data__split_salt": "other", "data__phantom__seed": 5}
    settings = settings_from_config(config_of(home, train__start_from=str(private), **drawn))
    check_stages(settings, open_data(settings, progress=False))


def test_an_earlier_stage_that_is_gone_is_said_in_a_sentence(home, private, tmp_path):
    gone = settings_from_config(config_of(home, train__start_from=str(tmp_path / "gone")))
    with pytest.raises(InputError, match="holds no finished run"):
        plan_from_settings(gone)
    with pytest.raises(InputError, match="which is not there"):
        description(gone)


def test_parameters_in_the_folder_of_a_claim_about_others_are_refused(home, private, plain):
    """Checkpoints of the run without privacy, put where the private ones were."""
    copy = home / "exchanged"
    shutil.copytree(private, copy)
    shutil.rmtree(copy / "checkpoints")
    shutil.copytree(plain / "checkpoints", copy / "checkpoints")
    assert any("parameters_digest" in fault for fault in verify_run(copy))
    with pytest.raises(InputError, match="not the one that its privacy"):
        first_variables(settings_from_config(config_of(home, train__start_from=str(copy))))


def made_assembly(stages=()):
    return SimpleNamespace(method=Method("toy", ("toy",), None, None, None, stages=stages))


def test_a_training_asks_about_its_earlier_stages_before_it_opens_anything(monkeypatch):
    def refuses(settings, dataset):
        raise InputError(f"{dataset} was held out.")

    made, settings = made_assembly(), SimpleNamespace(train=SimpleNamespace(steps=2))
    monkeypatch.setattr(train, "assembly_of", lambda *given: made)
    monkeypatch.setattr(train, "open_data", lambda *given, **how: "somebody")
    monkeypatch.setattr(train, "check_stages", refuses)
    monkeypatch.setattr(train, "open_assembly", None)
    options = train.Options(progress=False)
    with pytest.raises(InputError, match="somebody was held out"):
        train.open_training(None, settings, None, options, num_devices=1)


def test_too_few_steps_for_the_stages_are_refused_before_data_are_read(monkeypatch):
    stages = (Stage(made_assembly().method, None, share=0.25),) * 2
    made = made_assembly(stages=stages)
    monkeypatch.setattr(train, "assembly_of", lambda *given: made)
    monkeypatch.setattr(train, "open_data", None)
    settings = SimpleNamespace(train=SimpleNamespace(steps=2))
    with pytest.raises(InputError, match="leaves one without a step"):
        train.open_training(None, settings, None, train.Options(progress=False), num_devices=1)


def test_a_class_of_many_is_refused_where_two_labels_or_none_are_true(home):
    config = config_of(home, data__table__labels=LABELS, method__target="multi-class")
    told = "have not exactly one true label, first .* leave a cell empty"
    with pytest.raises(InputError, match=told):
        open_data(settings_from_config(config), progress=False)
    with config.unlocked():
        config.method.target = "multi-label"
    assert len(open_data(settings_from_config(config), progress=False))


def test_one_true_label_is_asked_of_those_in_a_split_whose_labels_were_all_asked():
    rows = [("a", "train", 1, 0), ("b", "test", 0, 1), ("c", "", 1, 1), ("d", "test", 1, np.nan)]
    manifest = pd.DataFrame(rows, columns=["image_id", "split", "label_x", "label_y"])
    check_one_true("multi-class", manifest, ("x", "y"))
    for wrong in ((1, 1), (0, 0)):
        manifest.loc[1, ["label_x", "label_y"]] = wrong
        with pytest.raises(InputError, match=f"1 of 3 images .* first 'b' with {sum(wrong)}:"):
            check_one_true("multi-class", manifest, ("x", "y"))
        check_one_true("multi-label", manifest, ("x", "y"))
