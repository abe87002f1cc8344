"""The commands that score and report a trained run, and what they show of patients' images."""

import dataclasses
import json
import pathlib
import shutil
import types

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxfair import evaluate, train
from jaxfair.errors import InputError
from jaxfair.fairness.table import fit_thresholds
from jaxfair.files import slug
from jaxfair.report import load_run
from jaxfair.report.__main__ import main as report_main
from jaxfair.run.folder import RunFolder
from tests.made_runs import make_run
from tests.small import CONFIG, OVERRIDES, small_config

MADE = ("predictions.parquet", "thresholds.json", "fairness.csv", "report.md", "report.html")
WARNING = "Images of patients: do not pass on"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def trained(home):
    """A finished plain run; its images are phantoms."""
    train.run(small_config(home, dp__enabled=False), home / "run", num_devices=1, progress=False)
    return home / "run"


@pytest.fixture
def real(trained, tmp_path, monkeypatch):
    """The run as if its images were of patients: trained, and not scored yet."""
    folder = tmp_path / "real"
    shutil.copytree(trained, folder)
    for name in MADE:
        (folder / name).unlink()
    shutil.rmtree(folder / "maps")
    shutil.rmtree(folder / "plots", ignore_errors=True)
    claim = json.loads((folder / "privacy.json").read_text())
    (folder / "privacy.json").write_text(json.dumps(claim | {"data": "real"}))
    opened = evaluate.open_data
    monkeypatch.setattr(
        evaluate,
        "open_data",
        lambda *args, **kwargs: dataclasses.replace(opened(*args, **kwargs), data="real"),
    )
    return folder


def images_shown(folder: pathlib.Path) -> bool:
    """Whether the report shows anomaly maps, and says whose they are."""
    text = (folder / "report.md").read_text()
    pictures = "anomaly maps" in text
    assert pictures == (WARNING in text)
    return pictures


def test_maps_of_images_of_any_name_are_files_of_their_own(tmp_path):
    """An image of a table is called by its path."""
    ids = ["film/a.png", "film_a.png", "../a", "A", "a"]
    manifest = pd.DataFrame({"image_id": ids})
    images = lambda rows: np.zeros((len(rows), 4, 4, 1), dtype=np.float32)
    dataset = types.SimpleNamespace(manifest=manifest, images=images)
    scored = manifest.assign(split="test", y_score=range(5))
    run = make_run(tmp_path / "run", n=100, maps=False)
    folder = RunFolder(run)
    evaluate._write_maps(folder, dataset, scored, np.arange(5), np.ones((5, 4, 4)))
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert found == sorted(f"run/maps/{slug(image)}.png" for image in ids)
    rows = pd.read_parquet(run / "predictions.parquet")
    rows["image_id"] = [*ids, *rows["image_id"][5:]]
    rows.to_parquet(run / "predictions.parquet")
    assert set(load_run(run).maps()) == set(ids)


@pytest.mark.parametrize("name", ["", "a/b", "..", "Ä b"])
def test_a_run_is_kept_in_one_folder_below_runs_whatever_its_config_is_called(name):
    path = pathlib.PurePath(train._default_workdir(name))
    assert path.parts[0] == "runs" and len(path.parts) == 2 and path.name.isascii()


def test_scoring_again_by_the_command_makes_the_same_files(trained, tmp_path, capsys):
    again = tmp_path / "again"
    shutil.copytree(trained, again)
    for name in MADE:
        (again / name).unlink()
    assert evaluate.main(["evaluate", f"--workdir={again}", "--calibrate-by=sex"]) == 0
    for name in MADE:
        assert (again / name).is_file(), name
    assert set(json.loads((again / "scales.json").read_text())) == {"anomaly"}
    assert (again / "calibrated.parquet").is_file() and not (trained / "scales.json").exists()
    assert "must know a patient's sex at test time" in (again / "report.md").read_text()
    pd.testing.assert_frame_equal(
        *(pd.read_parquet(folder / "predictions.parquet") for folder in (trained, again))
    )
    assert (again / "fairness.csv").read_text() == (trained / "fairness.csv").read_text()
    assert capsys.readouterr().err.count("Traceback") == 0


def test_scales_for_groups_that_nobody_has_are_refused_before_anything_is_written(
    trained, monkeypatch, capsys
):
    rows = pd.read_parquet(trained / "predictions.parquet")
    scored = evaluate._Scored(rows, None, np.arange(0), 0, {})
    monkeypatch.setattr(evaluate, "_scored", lambda *given, **fields: scored)
    monkeypatch.setattr(evaluate.files, "write_json", None)
    assert evaluate.main(["evaluate", f"--workdir={trained}", "--calibrate-by=shoe_size"]) == 2
    assert "shoe_size" in capsys.readouterr().err


def test_images_of_patients_stay_where_they_are_unless_asked_for(real):
    assert evaluate.main(["evaluate", f"--workdir={real}"]) == 0
    assert not (real / "maps").exists()
    assert not images_shown(real)


def test_evaluate_with_images_writes_maps_of_patients_and_shows_them(real):
    assert evaluate.main(["evaluate", f"--workdir={real}", "--with-images"]) == 0
    rows = pd.read_parquet(real / "predictions.parquet")
    highest = rows[rows["split"] == "test"].nlargest(12, "y_score")["image_id"]
    assert {path.stem for path in (real / "maps").glob("*.png")} == set(highest)
    assert images_shown(real)


def command(home, folder, *more):
    overrides = OVERRIDES | {"data.root": home / "phantoms", "dp.enabled": False}
    line = [f"--config.{name}={value}" for name, value in overrides.items()]
    return ["train", f"--config={CONFIG}", *line, f"--workdir={folder}", "--devices=1", *more]


@pytest.mark.parametrize("asked", [False, True])
def test_train_with_images_scores_and_shows_maps_of_patients(home, real, asked):
    """The run is trained already: the command scores and reports it."""
    assert train.main(command(home, real, *(["--with-images"] if asked else []))) == 0
    assert (real / "maps").exists() == asked
    assert images_shown(real) == asked


@pytest.mark.parametrize("asked", [False, True])
def test_report_with_images_shows_what_maps_there_are(tmp_path, asked):
    run = make_run(tmp_path / "run", n=200, data="real")
    flags = ["--with-images"] if asked else []
    assert report_main(["report", str(run), "--out", str(tmp_path / "out"), *flags]) == 0
    assert images_shown(tmp_path / "out") == asked
    assert (tmp_path / "out" / "plots" / "run._map.i7.png").exists() == asked


def test_a_map_is_the_image_beside_its_heat(trained):
    pixels = np.asarray(Image.open(next(iter(sorted((trained / "maps").glob("*.png"))))))
    side = OVERRIDES["data.image_size"]
    assert pixels.shape == (side, 2 * side) and pixels.dtype == np.uint8
    assert pixels[:, :side].std() > 0 and pixels[:, side:].std() > 0


@pytest.mark.parametrize(
    ("prepare", "flags", "sentence"),
    [
        ("nothing", [], "is no run folder: it has no config.json"),
        ("untrained", [], "holds no checkpoint"),
        ("nothing", ["--colour=red"], "colour"),
    ],
)
def test_a_folder_that_cannot_be_scored_ends_in_one_sentence(
    trained, tmp_path, capsys, prepare, flags, sentence
):
    if prepare == "untrained":
        shutil.copytree(trained, tmp_path / "run")
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        (tmp_path / "run" / "ledger.jsonl").unlink(missing_ok=True)
    assert evaluate.main(["evaluate", f"--workdir={tmp_path / 'run'}", *flags]) == 2
    printed = capsys.readouterr().err.strip()
    assert sentence in printed and "Traceback" not in printed


def test_thresholds_are_those_of_the_validation_images(trained):
    table = pd.read_parquet(trained / "predictions.parquet")
    told = json.loads((trained / "thresholds.json").read_text())
    groups = told[next(iter(told))]["groups"]
    assert set(groups) == {"sex", "age_group", "view", "sex x age_group"}
    validation = table[table["split"] == "validation"]
    fitted = fit_thresholds(validation, attributes=list(groups))
    assert told == json.loads(json.dumps(fitted))


def test_a_run_is_not_evaluated_while_somebody_works_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "open_data", lambda *a, **k: None)
    with RunFolder(tmp_path).locked(), pytest.raises(InputError, match="Another process"):
        evaluate.run(small_config(tmp_path), tmp_path)
    with pytest.raises(InputError, match="holds no run"):
        evaluate.run(small_config(tmp_path), tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
