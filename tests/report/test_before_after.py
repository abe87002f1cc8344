"""What a comparison begins with, and what a first page says of thresholds and of test time."""

import types

import numpy as np
import pandas as pd
import pytest

from jaxfair import evaluate, leakage, report, train
from jaxfair.fairness.metrics import accuracy, auroc
from jaxfair.fairness.thresholds import fit_thresholds
from jaxfair.files import slug, write_json
from jaxfair.report.__main__ import main
from tests.made_runs import make_run
from tests.small import small_config


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    before = make_run(root / "erm", n=2000, epsilon=None, gap=0.9, maps=False)
    after = make_run(root / "fair", n=2000, epsilon=None, gap=0.1, seed=1, maps=False)
    write_json(before / "model.json", {"note": "ERM."})
    write_json(after / "model.json", {"note": "Fair.", "needs": ["sex", "age_group"]})
    return before, after


@pytest.fixture(scope="module")
def written(folders, tmp_path_factory):
    return report.run(folders, tmp_path_factory.mktemp("report"))


def test_a_comparison_begins_with_the_gap_before_and_after(written):
    first, second, third = (written / "report.md").read_text().split("\n## ")[:3]
    assert "Fairness report: erm, fair" in first
    assert second.startswith("Before and after, anomaly: gaps, and what they cost")
    assert "Before: erm. After: fair. AUROC 0." in second and "by chance alone 0." in second
    assert third.startswith("PHANTOM data: erm, anomaly: results by group")
    lines = ("sex: delta-AUC", "sex: delta-EO, worst case, one threshold", "AUROC",
             "sex: delta-EO, worst case, a threshold per group", "sex: FATE_AUC",
             "sex: calibration: ECE, 15 bins")  # fmt: skip
    for words in lines:
        assert f"| {words} |" in second, words


def test_the_change_and_its_price_are_those_of_the_tables(folders, written):
    tables = written / "tables"
    gaps = pd.read_csv(tables / "_before_after.anomaly.fair.gaps.csv").set_index("gap")
    row = gaps.loc["sex: delta-EO, worst case, one threshold"]
    assert row["change_value"] == pytest.approx(row["after_value"] - row["before_value"])
    assert row["change_ci_high"] < 0 and row["before_p_value"] < 0.05 <= row["after_p_value"]
    assert row["before_excess"] == pytest.approx(row["before_value"] - row["before_null_mean"])
    cost = pd.read_csv(tables / "_before_after.anomaly.fair.cost.csv").set_index("what")
    runs = [report.load_run(folder) for folder in folders]
    for name, run in zip(("before", "after"), runs, strict=True):
        rows, at = run.rows(), run.thresholds["anomaly"]["min_gap"]
        assert cost.loc["AUROC", f"{name}_value"] == pytest.approx(
            auroc(rows["y_true"], rows["y_score"])
        )
        assert cost.loc["accuracy, one threshold", f"{name}_value"] == pytest.approx(
            accuracy(rows["y_true"], rows["y_score"], at)
        )
    front = pd.read_csv(tables / "_before_after.anomaly.front.csv").set_index("model")
    assert front["on_front"].to_dict() == {"erm": False, "fair": True}


def test_what_a_model_needs_at_test_time_stands_on_the_first_page(folders, tmp_path, written):
    first = (report.run([folders[1]], tmp_path) / "report.md").read_text().split("\n## ")
    assert "At test time the model needs, beside the image: sex, age_group." in first[0]
    assert "whoever decides so has to know a patient's group at test time" in first[1]
    both = (written / "report.md").read_text()
    assert "Needed at test time: erm: the image; fair: the image, sex, age_group." in both
    assert "At test time the model needs the image alone." in both


def test_a_single_run_and_anyones_table_show_both_kinds_of_thresholds(folders, tmp_path):
    rows = pd.read_parquet(folders[0] / "predictions.parquet")
    rows.drop(columns=["view", "task"]).to_csv(tmp_path / "mine.csv", index=False)
    argv = ["report", "--predictions", str(tmp_path / "mine.csv"), "--groups", "sex"]
    assert main([*argv, "--out", str(tmp_path / "o"), "--bootstraps", "2"]) == 0
    name = f"{slug('mine.csv')}.score.decisions.csv"
    table = pd.read_csv(tmp_path / "o" / "tables" / name)
    worst = table[table["gap"] == "delta-EO, worst case"].set_index("threshold")
    assert list(worst.index) == ["one threshold", "a threshold per group"]
    assert (worst["excess"] > 0.1).all() and worst["fewest_positives"].min() > 100
    page = (tmp_path / "o" / "report.md").read_text().split("\n## ")[1]
    assert "| sex | one threshold | 0." in page and "| sex | a threshold per group | 0." in page
    assert f"only {worst['fewest_positives'].iloc[0]} positives in a group" in page


def test_runs_on_other_images_are_told_apart_and_no_change_is_made_up(tmp_path):
    first, other = (make_run(tmp_path / name, n=600, epsilon=None) for name in ("erm", "other"))
    rows = pd.read_parquet(other / "predictions.parquet")
    rows.iloc[:500].to_parquet(other / "predictions.parquet")
    out = report.run([first, other], tmp_path / "out")
    second = (out / "report.md").read_text().split("\n## ")[1]
    assert "erm and other: The runs were not tested on the same images" in second
    assert "change [95 %]" not in second and "on the front" not in second


def test_several_runs_are_set_beside_the_first_and_drawn(tmp_path):
    names = ("first", "second", "third")
    folders = [
        make_run(tmp_path / name, n=600, epsilon=None, seed=i, maps=False)
        for i, name in enumerate(names)
    ]
    out = report.run(folders, tmp_path / "out")
    for name in names[1:]:
        assert (out / "tables" / f"_before_after.anomaly.{name}.gaps.csv").is_file()
    assert (out / "plots" / "_before_after.anomaly.front.sex.png").is_file()


def test_what_embeddings_tell_stands_between_the_gaps_and_the_runs_tables(tmp_path):
    folders = [
        make_run(tmp_path / name, n=200, seed=i, maps=False)
        for i, name in enumerate(("erm", "fair"))
    ]
    for folder in folders:
        write_json(folder / "model.json", {"embeds": True})
    titles = [
        part.split("\n")[0]
        for part in (report.run(folders, tmp_path / "out") / "report.md").read_text().split("\n## ")
    ][1:]
    leaks = [i for i, title in enumerate(titles) if "what the embedding tells" in title]
    assert titles[0].startswith("Before and after") and leaks == [1, 2]


def test_stored_thresholds_of_groups_break_no_older_reader(folders, tmp_path):
    folder = make_run(tmp_path / "run", n=2000, epsilon=None, maps=False)
    rows = pd.read_parquet(folder / "predictions.parquet")
    old = report.load_run(folder)
    write_json(folder / "thresholds.json", fit_thresholds(rows, attributes=["sex"]))
    new = report.load_run(folder)
    assert new.threshold("anomaly") == old.threshold("anomaly")
    assert new.by_group("sex", "sensitivity").equals(old.by_group("sex", "sensitivity"))
    assert np.isfinite(new.thresholds["anomaly"]["groups"]["sex"]["F"]["min_gap"])


def test_the_run_before_is_asked_for_before_anything_is_trained(tmp_path, capsys):
    argv = ["train", "--config", "rsna_resnet:phantom", "--workdir", str(tmp_path / "run")]
    assert train.main([*argv, "--before", str(tmp_path / "nowhere")]) == 2
    assert "There is no run folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_report_of_a_run_begins_with_the_run_before_whoever_writes_it(tmp_path, monkeypatch):
    before, written = make_run(tmp_path / "before", n=200, maps=False), []
    config, folder = small_config(tmp_path), tmp_path / "run"
    trained = types.SimpleNamespace(run=folder.mkdir)
    monkeypatch.setattr(train, "open_training", lambda *args, **kwargs: trained)
    monkeypatch.setattr(train.evaluate, "run", lambda *args, **kwargs: None)
    named = lambda runs, out, **_: written.append([path.resolve().name for path in runs])
    monkeypatch.setattr(report, "run", named)
    train.run(config, folder, before=before, progress=False)
    again = lambda: [path.resolve().name for path in report.compared(folder)]
    assert written == [["before", "run"]] and again() == ["before", "run"]
    before.rename(tmp_path / "elsewhere")
    assert again() == ["run"]


@pytest.mark.parametrize("command", [evaluate, leakage])
def test_whoever_reports_a_run_again_keeps_the_comparison(command, tmp_path, monkeypatch):
    folder, written = make_run(tmp_path / "run", n=200, maps=False), []
    make_run(tmp_path / "before", n=200, maps=False)
    write_json(folder / "config.json", {"data": {}})
    write_json(folder / "before.json", {"run": "../before"})
    monkeypatch.setattr(command, "run", lambda *args, **kwargs: None)
    named = lambda runs, out, **_: written.append([path.resolve().name for path in runs])
    monkeypatch.setattr(report, "run", named)
    assert command.main([command.COMMAND.name, "--workdir", str(folder)]) == 0
    assert written == [["before", "run"]]


def _two_labels(folder, n, seed, gap):
    """A made run with a second label, of the same rows."""
    made = make_run(folder, n=n, epsilon=None, seed=seed, gap=gap, maps=False)
    rows = pd.read_parquet(made / "predictions.parquet")
    both = pd.concat([rows, rows.assign(task="edema")], ignore_index=True)
    both.to_parquet(made / "predictions.parquet")
    write_json(made / "thresholds.json", fit_thresholds(both, attributes=["sex"]))
    told = pd.read_csv(made / "fairness.csv")
    pd.concat([told, told.assign(task="edema")]).to_csv(made / "fairness.csv", index=False)
    write_json(made / "model.json", {"embeds": True, "needs": ["sex"] if seed else []})
    return made


def test_of_several_labels_the_first_page_has_every_gap_test_time_and_the_leak(tmp_path):
    folders = [_two_labels(tmp_path / name, 900, i, gap)
               for i, (name, gap) in enumerate({"erm": 0.9, "fair": 0.1}.items())]  # fmt: skip
    parts = (report.run(folders, tmp_path / "out") / "report.md").read_text().split("\n## ")[1:]
    for part, run in zip(parts, ("erm", "fair"), strict=False):
        assert part.startswith(f"PHANTOM data: {run}: all labels at once")
    glance = parts[2]
    assert glance.startswith("At a glance")
    assert "Needed at test time: erm: the image; fair: the image, sex." in glance
    rows = [line.split(" | ")[:3] for line in glance.split("\n") if line.startswith("| ")][2:]
    assert rows == [["| anomaly", "sex", "erm"], ["| anomaly", "sex", "fair"],
                    ["| edema", "sex", "erm"], ["| edema", "sex", "fair"]]  # fmt: skip
    assert all("what the embedding tells" in part.split("\n")[0] for part in parts[3:5])
    alone = (report.run(folders[1:], tmp_path / "one") / "report.md").read_text().split("\n## ")
    assert "all labels at once" in alone[1] and alone[2].startswith("At a glance")
    assert "what the embedding tells" in alone[3]


def test_an_attribute_of_too_few_patients_is_one_line_that_says_so(tmp_path):
    folders = [_two_labels(tmp_path / name, 120, i, 0.5) for i, name in enumerate(("a", "b"))]
    parts = (report.run(folders, tmp_path / "out") / "report.md").read_text().split("\n## ")[1:]
    why = "fewer than two groups have 50 test patients, and 10 of either label"
    (glance,) = (part for part in parts if part.startswith("At a glance"))
    assert f"Without a gap, since {why}: sex (anomaly, edema)." in glance
    assert "|" not in glance
    for part in parts:
        if part.startswith("Before and after, anomaly"):
            assert part.count("| sex: ") == 1 and "| sex: every gap | undefined |" in part
        if "a, anomaly: results by group" in part.split("\n")[0]:
            assert f"| sex | {why} |" in part and "a threshold per group |" not in part
    kept = pd.read_csv(tmp_path / "out" / "tables" / "_before_after.anomaly.b.gaps.csv")
    assert len(kept) > 3 and (kept["note"] == why).all()


def test_decisions_are_not_compared_where_thresholds_are_of_other_validation_images(tmp_path):
    """As of two folds with one test set; areas are compared all the same."""
    first, other = (
        make_run(tmp_path / name, n=900, epsilon=None, seed=i, maps=False)
        for i, name in enumerate(("erm", "other"))
    )
    rows = pd.read_parquet(other / "predictions.parquet")
    rows.drop(rows.index[rows["split"] == "validation"][:20]).to_parquet(
        other / "predictions.parquet"
    )
    out = report.run([first, other], tmp_path / "out")
    second = (out / "report.md").read_text().split("\n## ")[1]
    assert "not validated on the same images" in second
    assert "| sex: delta-AUC |" in second and "| sex: delta-EO" not in second
    assert "| accuracy, one threshold |" not in second
