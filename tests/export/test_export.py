"""From a run to a model file: what may leave, what may not, and that it says what the run said."""

import dataclasses
import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pandas as pd
import pytest

from jaxfair import train
from jaxfair.config import settings_from_config
from jaxfair.errors import InputError
from jaxfair.export import __main__ as command
from jaxfair.export.about import Trained
from jaxfair.export.compare import check_scores
from jaxfair.files import write_json
from jaxfair.model_file.container import is_model_file
from jaxfair.model_file.evaluation import people, performance, ranges, thresholds
from jaxfair.model_file.model import EVALUATION, load_model
from jaxfair.schema import NOT_COVERED
from tests.made_runs import PRIVACY, make_run
from tests.model_file.made import PARAMS, SPEC, made_file, tiny
from tests.small import small_config

CLAIM = PRIVACY | {"population": "rsna", "not_covered": NOT_COVERED}


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A run folder made by hand: everything but a network."""
    return make_run(tmp_path_factory.mktemp("export") / "run", attributes=("sex", "age_group"))


@pytest.fixture
def exported(scored, tmp_path, monkeypatch):
    """Exports the run as if its claim were another and its network that of the model file's tests.

    Nothing is trained, and its data have gone.
    """
    config = small_config(tmp_path, data__groups=("sex",), data__image_size=8)
    network = Trained(tiny(), PARAMS, {"offset": np.zeros((), np.float32)}, SPEC)
    monkeypatch.setattr(command, "config_of_run", lambda folder: config)
    monkeypatch.setattr(command, "verify_run", lambda folder: [])
    monkeypatch.setattr(command, "trained_network", lambda settings, folder: network)

    def gone(settings, progress):
        raise InputError("The data have gone.")

    monkeypatch.setattr(command, "open_data", gone)

    def export(claim, **options):
        write_json(scored / "privacy.json", CLAIM | claim)
        return command.run(scored, tmp_path / "m.jaxfair", progress=False, **options)

    return export


def test_of_patients_nothing_but_parameters_claim_and_settings_leaves_the_house(exported):
    """Protocol P7: thresholds, tables and counts are exact functions of people not covered."""
    model = exported({"data": "real"})
    assert model.evaluation == {} and model.thresholds == {}
    assert model.about["passing_on"].startswith("May be passed on")
    assert "AUROC" not in model.card and "auroc" not in model.card
    assert "validation and test patients, whom the guarantee does not cover" in model.card


def test_in_house_and_of_drawn_images_the_file_holds_thresholds_and_says_so(exported):
    house, drawn = exported({"data": "real"}, in_house=True), exported({"data": "phantom"})
    for model in (house, drawn):
        assert set(model.evaluation) == {"thresholds", "performance", "people", "ranges"}
        assert isinstance(model.thresholds["anomaly"]["youden"], float)
        assert "the guarantee does not cover" in model.card and "auroc" in model.card
    assert house.about["passing_on"].startswith("In-house: not for publication")
    assert drawn.about["passing_on"].startswith("PHANTOM")


@pytest.mark.parametrize("grade", ["none", "research"])
def test_parameters_that_no_guarantee_covers_stay_in_the_house(exported, grade):
    with pytest.raises(InputError, match="--in-house"):
        exported({"data": "real", "grade": grade})
    model = exported({"data": "real", "grade": grade}, in_house=True)
    assert "training was not private" in model.about["passing_on"]


def test_a_claim_that_does_not_hold_is_not_exported(exported, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "verify_run", lambda folder: ["epsilon is not what it says"])
    with pytest.raises(InputError, match="epsilon is not what it says"):
        exported({})
    assert not (tmp_path / "m.jaxfair").exists()


def test_no_path_and_no_count_of_the_training_is_in_a_file(exported, scored, tmp_path):
    exported({"data": "real"})
    content = (tmp_path / "m.jaxfair").read_bytes()
    code = str(pathlib.Path(train.__file__).parent)
    for word in (str(tmp_path), str(scored.parent), code, str(pathlib.Path.home()), __file__,
                 "n_positive", "patient_id", EVALUATION):  # fmt: skip
        assert word.encode() not in content


def test_a_card_answers_what_cards_are_asked(exported):
    card = exported({"data": "phantom"}, intended="Research on drawn films.").card
    for title in ("What it is", "Intended use", "Privacy", "Thresholds", "Performance by group",
                  "Who validated and tested", "Limits"):  # fmt: skip
        assert f"\n## {title}\n" in card
    assert "not for diagnosis" in card and "Research on drawn films." in card
    assert all(line in card for line in NOT_COVERED)


def test_a_group_that_the_report_hides_is_hidden_here(scored):
    rows = pd.read_parquet(scored / "predictions.parquet")
    few = (rows["sex"] == "F") & (rows["patient_id"].astype(int) > 20)
    table = pd.read_csv(scored / "fairness.csv")
    found = performance(table[table["attribute"] == "sex"], rows[~few])
    assert {row["group"] for row in found if row["too_few"]} == {"F", "M"}  # and its complement
    assert all(row["value"] is None for row in found)
    whole = performance(table[table["attribute"] == "sex"], rows)
    assert not any(row["too_few"] for row in whole) and {r["metric"] for r in whole} >= {"auroc"}


def test_thresholds_keep_those_of_a_group_s_own_and_no_count():
    told = {"min_gap": 0.4, "youden": 0.5, "g_means": 0.6, "n_positive": 3, "n_negative": 9}
    fitted = {
        "a": told | {"groups": {"sex": {"F": told | {"own": True}, "M": told | {"own": False}}}}
    }
    found = thresholds(fitted)["a"]
    assert found["groups"] == {"sex": {"F": {"min_gap": 0.4, "youden": 0.5, "g_means": 0.6}}}
    assert "n_positive" not in json.dumps(found)


def test_small_counts_are_not_told_and_follow_from_no_difference():
    rows = pd.DataFrame({"image_id": range(57), "split": "test", "sex": ["F"] * 53 + ["M"] * 4})
    told = {row["group"]: row["images"] for row in people(rows, ["sex"])}
    assert told == {"all": "60", "F": "50", "M": "fewer than 10"}


def test_ranges_are_those_of_many_images_or_none():
    rng = np.random.default_rng(0)
    images = rng.integers(100, 120, (150, 4, 4, 1), dtype=np.uint8)
    found = ranges(images)
    means = images.reshape(150, -1).mean(1) / 255
    assert found["mean"][0] >= means.min() - 1e-3 and found["mean"][1] <= means.max() + 1e-3
    assert ranges(images[:99]) == {}


@pytest.fixture
def compared(tmp_path):
    """A model, the data of its run, and what the run said of them."""
    model = load_model(made_file(tmp_path / "m.jaxfair"))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    manifest = pd.DataFrame({"image_id": list("abcde"), "sex": ["F", "M", "F", "M", "unknown"]})

    class Data(types.SimpleNamespace):
        def __len__(self):
            return 5

    dataset = Data(manifest=manifest, pixels=pixels)
    scores = model.score(pixels, {"sex": list(manifest["sex"])})["mass"].astype(float)
    return model, dataset, manifest.assign(task="mass", y_score=scores)


def test_a_file_that_scores_otherwise_than_the_run_is_refused(compared):
    model, dataset, run = compared
    check_scores(model, dataset, run)
    for far in (3e-5, np.nan, np.inf):
        other = run.assign(y_score=run["y_score"] + [0, 0, 0, far, 0])
        with pytest.raises(InputError, match="apart from the run's"):
            check_scores(model, dataset, other)


def test_a_program_without_a_number_is_refused(compared):
    model, dataset, run = compared

    def program(leaves, given):
        found = model.program(leaves, given)
        return found | {"mass": found["mass"].at[3].set(np.nan)}

    with pytest.raises(InputError, match="apart from the run's"):
        check_scores(dataclasses.replace(model, program=program), dataset, run)


@pytest.mark.parametrize("change", [{"image_id": list("vwxyz")}, {"task": "other"}])
def test_a_file_of_which_nothing_can_be_compared_is_refused(compared, change):
    """To compare nothing is not to be equal."""
    model, dataset, run = compared
    with pytest.raises(InputError, match="no score of mass for an image of its data"):
        check_scores(model, dataset, run.assign(**change))


def test_images_that_have_gone_leave_others_to_be_compared(compared, monkeypatch):
    """The first 64 of a table may all have gone."""
    model, dataset, run = compared
    monkeypatch.setattr("jaxfair.export.compare.COMPARED", 2)
    gone = run.assign(image_id=list("vwxyz"))
    check_scores(model, dataset, pd.concat([gone, run]))
    with pytest.raises(InputError, match="apart from the run's"):
        check_scores(model, dataset, pd.concat([gone, run.assign(y_score=0.0)]))


def test_parameters_that_are_not_finite_are_not_exported(exported, monkeypatch, tmp_path):
    weight = np.array(PARAMS["weight"])
    weight[5] = np.nan
    network = Trained(tiny(), PARAMS | {"weight": weight}, {"offset": np.float32(0)}, SPEC)
    monkeypatch.setattr(command, "trained_network", lambda settings, folder: network)
    with pytest.raises(InputError, match="'params/weight' holds numbers that are not finite"):
        exported({"data": "phantom"})
    assert not (tmp_path / "m.jaxfair").exists()


def test_a_line_without_a_run_is_one_sentence(capsys, tmp_path):
    assert command.main(["export"]) == 2 and "Which run?" in capsys.readouterr().err
    assert command.main(["export", str(tmp_path)]) == 2
    assert "no run folder" in capsys.readouterr().err


FRESH = """
import sys
import numpy as np, pandas as pd
from jaxfair import load_model
model = load_model(sys.argv[1])
rows = np.load(sys.argv[2])
found = model.score(rows)
np.savez(sys.argv[3], **{task: found[task] for task in model.tasks})
assert "jaxfair.engine" not in sys.modules and "jaxfair.methods.fae" not in sys.modules
"""


@pytest.mark.slow
def test_a_private_run_scores_alike_in_a_fresh_process_and_from_its_files(tmp_path):
    """All of it: train, export, load in another process, and predict the run's own files."""
    config = small_config(tmp_path)
    train.run(config, tmp_path / "run", num_devices=1, progress=False)
    model = command.run(tmp_path / "run", tmp_path / "m.jaxfair", progress=False)
    dataset = command.open_data(settings_from_config(config), progress=False)
    scored = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    theirs = scored.drop_duplicates("image_id").set_index("image_id")["y_score"]
    rows = [i for i, name in enumerate(dataset.manifest["image_id"]) if name in theirs.index]
    names = dataset.manifest["image_id"].iloc[rows]
    np.save(tmp_path / "rows.npy", dataset.pixels[rows])
    line = [
        sys.executable,
        "-c",
        FRESH,
        *(str(tmp_path / n) for n in ("m.jaxfair", "rows.npy", "f")),
    ]
    subprocess.run(line, check=True, cwd=pathlib.Path(train.__file__).parents[1])
    with np.load(tmp_path / "f.npz") as found:
        assert np.abs(found["anomaly"] - theirs[names]).max() <= 1e-5
    from jaxfair.predict.cases import cases_of
    from jaxfair.predict.scoring import run as predict

    cases = cases_of([config.data.root], "picture", model.groups)
    session = predict(model, cases, tmp_path / "out", progress=False)
    files = pd.DataFrame(session.rows)
    mine = files.set_index(files["image_id"].map(lambda name: pathlib.PurePath(name).stem))["score"]
    both = mine.index.intersection(theirs.index)
    assert len(both) == len(theirs) and np.abs(mine[both] - theirs[both]).max() <= 1e-5


def test_a_file_that_is_no_model_file_is_never_written_over(scored, tmp_path, capsys):
    for name, content in {
        "cases.csv": b"path\n",
        "empty": b"",
        "a.zip": b"PK\x03\x04" * 90,
    }.items():
        (tmp_path / name).write_bytes(content)
        assert command.main(["export", str(scored), f"--out={tmp_path / name}"]) == 2
        assert f"{tmp_path / name} is there and is no model file" in capsys.readouterr().err
        assert (tmp_path / name).read_bytes() == content
    assert is_model_file(made_file(tmp_path / "m.jaxfair"))
