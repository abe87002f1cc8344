"""A trained run on a second site's data, by the command: phantoms of CheXpert, MIMIC and others."""

import json
import shutil

import pandas as pd
import pytest

from jaxfair import evaluate, train
from jaxfair.config import settings_from_config
from jaxfair.engine.books import Options
from jaxfair.errors import InputError
from jaxfair.experiment import experiment
from jaxfair.files import write_json
from jaxfair.report import load_run
from jaxfair.run.folder import RunFolder
from tests.made_runs import make_run

LABELS = ("edema", "pleural_effusion")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def trained(home):
    """A finished plain probe of two labels on a drawn CheXpert."""
    config = experiment(
        "site",
        data={
            "source": "chexpert", "labels": LABELS, "groups": ("sex", "race"), "image_size": 32,
            "public_size": 60, "root": str(home / "phantoms"), "views": ("AP", "PA"),
            "phantom": {"n_images": 80, "seed": 0, "pixels": 32},
        },
        method={"name": "linear_probe", "patterns": 8, "colours": 8, "symmetric": False},
        optim={"name": "sgd", "learning_rate": 0.1},
        dp={"enabled": False, "microbatch": 32},
        train={"steps": 2, "expected_batch_size": 32},
    )  # fmt: skip
    settings, run = settings_from_config(config), RunFolder(home / "run")
    train.open_training(config, settings, run, Options(progress=False), num_devices=1).run()
    evaluate.run(config, run.path, progress=False)
    return run.path


def command(run, out, *more):
    return ["evaluate", f"--workdir={run}", f"--out={out}", *more]


def told(capsys):
    return " ".join(capsys.readouterr().err.split())


def content(folder):
    """Bytes and times of every file of a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def mimic(home, trained):
    """The same run on a drawn MIMIC-CXR of other people, and the run as it was before."""
    before = content(trained)
    line = command(trained, home / "mimic", "--config.data.source=mimic_cxr",
                   "--config.data.phantom.seed=1")  # fmt: skip
    assert evaluate.main(line) == 0
    return home / "mimic", before


def test_nothing_in_the_run_is_changed(trained, mimic):
    assert content(trained) == mimic[1]


def test_everybody_of_the_second_site_is_scored_under_the_runs_labels(mimic):
    rows = pd.read_parquet(mimic[0] / "predictions.parquet")
    assert set(rows["split"]) == {"test"} and set(rows["task"]) == set(LABELS)
    assert set(rows["view"]) <= {"AP", "PA"} and rows["patient_id"].nunique() > 20
    assert rows["y_score"].between(0, 1).all() and rows["race"].nunique() > 2


def test_thresholds_are_the_runs_and_intervals_are_of_the_realised_rate(trained, mimic):
    own = (trained / "thresholds.json").read_bytes()
    assert (mimic[0] / "thresholds.json").read_bytes() == own
    table = pd.read_csv(mimic[0] / "fairness.csv")
    assert set(table["covers"].dropna()) == {"realised"}
    rows = pd.read_parquet(mimic[0] / "predictions.parquet").query("task == 'edema'")
    called = rows["y_score"] >= json.loads(own)["edema"]["youden"]
    row = table.query("task == 'edema' and attribute == 'overall' and metric == 'accuracy'")
    assert row["value"].item() == pytest.approx((called == rows["y_true"]).mean(), abs=1e-9)


def test_the_first_lines_say_what_was_trained_and_scored_and_whom_the_guarantee_covers(mimic):
    lines = load_run(mimic[0]).statement()
    assert lines[0] == (
        "Second site: trained on PHANTOM in the layout of CheXpert, scored on PHANTOM in the "
        "layout of MIMIC-CXR-JPG."
    )
    assert lines[1].startswith("The guarantee covers those who trained, and nobody for being")
    text = (mimic[0] / "report.md").read_text()
    assert text.index(lines[0]) < text.index(lines[1]) < text.index("No guarantee: this model")


@pytest.fixture
def no_report(monkeypatch):
    """Leaves the report out, which is another test's."""
    monkeypatch.setattr(evaluate.report, "run", lambda *args, **options: None)


@pytest.mark.usefixtures("no_report")
def test_held_out_people_of_the_run_itself_get_the_scores_that_they_had(home, trained):
    """The same drawing as a second site: who trained or validated is left out."""
    evaluate.run_site(trained, home / "again", _asked(trained, phantom__gap_contrast=0.6))
    own = pd.read_parquet(trained / "predictions.parquet").query("split == 'test'")
    again = pd.read_parquet(home / "again" / "predictions.parquet")
    keys = ["image_id", "task"]
    pd.testing.assert_frame_equal(
        own.sort_values(keys).reset_index(drop=True),
        again[own.columns].sort_values(keys).reset_index(drop=True),
    )
    assert (
        "who trained or validated in the run are left out"
        in load_run(home / "again").statement()[2]
    )


def _asked(run, **fields):
    config = evaluate.config_to_change(RunFolder(run))
    config.data.update_from_flattened_dict({n.replace("__", "."): v for n, v in fields.items()})
    return evaluate.Asked(config, frozenset(f"data.{n.replace('__', '.')}" for n in fields))


@pytest.mark.usefixtures("no_report")
def test_labels_of_other_names_are_paired_by_hand_and_the_rest_is_said(home, trained, capsys):
    line = command(trained, home / "cxr14", "--config=cxr14_resnet:phantom",
                   "--config.data.phantom.seed=1", "--config.data.phantom.n_images=60",
                   "--config.data.phantom.pixels=32", f"--config.data.root={home / 'phantoms'}",
                   "--labels=pleural_effusion=effusion", "--config.data.labels=('effusion',)",
                   "--config.data.split=random")  # fmt: skip
    assert evaluate.main(line) == 0
    rows = pd.read_parquet(home / "cxr14" / "predictions.parquet")
    assert set(rows["task"]) == {"pleural_effusion"} and 0 < rows["patient_id"].nunique() < 30
    lines = load_run(home / "cxr14").statement()
    assert "The second site lacks the labels edema: left out." in lines
    assert "The second site does not know race: it is unknown for everybody." in lines
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--config.data.source=mimic_cxr"], "--config.data.phantom.seed=1"),
        (["--config.data.phantom.seed=1", "--config.data.image_size=64"], "prepared as the run's"),
        (["--config.data.phantom.seed=1", "--config.dp.epsilon=3"], "dp.epsilon does not exist"),
        (["--config=mimic_resnet:phantom", "--config.dp.epsilon=3"], "config.data alone"),
        (["--config.data.phantom.sed=1"], "Did you mean config.data.phantom.seed?"),
        (["--config.data.source=rsna", "--config.data.phantom.seed=1"], "none is in both"),
        (["--config.data.phantom.seed=1", "--labels=edema"], "it takes OURS=THEIRS"),
        (["--config.data.phantom.seed=1", "--labels=oedema=edema"], "no label of the run"),
        ([], "name its data"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_sentence(
    home, trained, tmp_path, capsys, more, sentence
):
    assert evaluate.main(command(trained, tmp_path / "out", *more)) == 2
    assert sentence in told(capsys) and not (tmp_path / "out").exists()


def test_the_scores_need_a_folder_of_their_own(trained, mimic, tmp_path, capsys):
    more = ["--config.data.source=mimic_cxr", "--config.data.phantom.seed=1"]
    assert evaluate.main(["evaluate", f"--workdir={trained}", *more]) == 2
    assert "give --out DIR" in told(capsys)
    for out in (trained, trained / "there"):
        assert evaluate.main(command(trained, out, *more)) == 2
        assert "in the run itself" in told(capsys)
    (tmp_path / "notes.txt").write_text("mine")
    assert evaluate.main(command(trained, tmp_path, *more)) == 2
    assert "holds something else" in told(capsys)
    other = ["--config.data.phantom.seed=2", "--config.data.phantom.n_images=40"]
    assert evaluate.main(command(trained, mimic[0], *other)) == 2
    assert "another run or another site" in told(capsys)


def test_a_run_that_is_at_work_or_not_scored_yet_is_no_run_for_a_second_site(
    trained, tmp_path, capsys
):
    more = ["--config.data.phantom.seed=1"]
    with RunFolder(trained).locked():
        assert evaluate.main(command(trained, tmp_path / "out", *more)) == 2
    assert "Another process is training" in told(capsys)
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "thresholds.json").unlink()
    assert evaluate.main(command(tmp_path / "run", tmp_path / "out", *more)) == 2
    assert "has no thresholds.json" in told(capsys)


def test_a_folder_is_read_by_many_and_written_by_one(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.read():
        assert not folder.lock.exists()
    with folder.locked():
        pass
    refused = pytest.raises(InputError, match="Another process")
    with folder.read(), folder.read(), refused, folder.locked():
        pass


def test_maps_of_real_images_are_not_shown_for_a_model_of_drawn_ones(tmp_path):
    run = make_run(tmp_path / "run", n=200, data="phantom")
    assert load_run(run).maps()
    write_json(run / "site.json", {"data": "real", "lines": ["Second site: ..."]})
    read = load_run(run)
    assert not read.phantom and read.maps() == {} and read.maps(with_images=True)
    assert "The model was trained on PHANTOM images, drawn by a program." in read.statement()
    assert not any(line.startswith("PHANTOM") for line in read.statement())
