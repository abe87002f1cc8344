import re

import numpy as np
import pandas as pd
import pytest

from jaxfair import report
from jaxfair.errors import InputError
from jaxfair.fairness.catalog import METRICS, Metric
from jaxfair.files import slug, write_json
from jaxfair.report.__main__ import main
from tests.made_runs import make_run


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    every = ("sex", "age_group", "view", "sex x age_group")
    plain = make_run(root / "plain", epsilon=None, attributes=every)
    return make_run(root / "private", attributes=every), plain


@pytest.fixture(scope="module")
def written(folders, tmp_path_factory):
    return report.run(folders, tmp_path_factory.mktemp("report"))


def test_the_first_lines_say_what_the_guarantee_covers(written):
    first = (written / "report.md").read_text().split("\n## ")[0]
    assert first.startswith("# PHANTOM data.")
    assert "covers each patient among the training patients" in first
    assert "Validation and test patients, thresholds, tables and data_card are not covered" in first
    text = (written / "report.md").read_text()
    last = text.split("\n## ")[-1]
    assert last.startswith("Provenance") and "privacy statement\n" in text.split("\n## ")[-2]
    assert "epsilon 8, delta 1e-05, unit patient, seed 0, commit 0123abc" in last
    assert "No guarantee: this model was trained without differential privacy" in first


def test_no_privacy_statement_means_no_table(tmp_path):
    folder = make_run(tmp_path / "run", n=100)
    (folder / "privacy.json").unlink()
    with pytest.raises(InputError, match=r"has no privacy\.json"):
        report.run([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tables_and_plots_are_written_and_linked(written):
    text = (written / "report.md").read_text()
    for name in ("private.anomaly.sex.roc.png", "plain.anomaly.sex.age_group.scores.png"):
        assert f"plots/{name}" in text
        assert (written / "plots" / name).read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(written / "tables" / "private.anomaly.headline.csv")
    assert {"sex", "view"} <= set(table["attribute"])


@pytest.mark.parametrize(
    ("privacy", "sentence"),
    [
        ({"unit": "image"}, "a patient with several images is protected less"),
        ({"noise_source": "insecure_seed", "grade": "research"}, "Research grade, not private"),
        ({"selection": "coupled"}, "Guarantee for the selected table only"),
    ],
)
def test_what_weakens_the_guarantee_is_said(tmp_path, privacy, sentence):
    run = report.load_run(make_run(tmp_path / "run", n=100, **privacy))
    assert any(sentence in line for line in run.statement())


def test_the_headline_names_the_planted_group_and_hides_what_is_too_few(written):
    text = (written / "report.md").read_text()
    assert "Missed more often than the rest: sex: F (sensitivity" in text
    table = pd.read_csv(written / "tables" / "private.anomaly.headline.csv")
    small = table[table["too_few"]]
    assert len(small) > 0 and small["n"].notna().all()
    assert small[["auroc", "sensitivity", "ece", "difference"]].isna().all().all()
    women = table.set_index("group").loc["F"]
    assert women["difference"] < 0 and women["p_corrected"] <= 0.05 and women["flagged"]


def test_every_section_that_a_reader_expects_is_there(written):
    text = (written / "report.md").read_text()
    for title in (
        "results by group",
        "Comparison of runs",
        "privacy statement",
        "population and flow",
        "by sex x age_group",
        "calibration",
        "worst cases",
        "anomaly maps",
        "Limits, and where checklists are answered",
    ):
        assert re.search(f"^## .*{title}", text, re.MULTILINE), title
    for item in ("TRIPOD+AI", "CLAIM", "FUTURE-AI", "NIST SP 800-226", "Model card"):
        assert item in text


def test_one_seed_per_arm_is_compared_without_an_interval(written):
    text = (written / "report.md").read_text()
    assert "1 plain and 1 private seeds. Below 5 seeds in each arm there is no interval" in text


def test_five_seeds_per_arm_get_an_interval_of_the_loss(tmp_path):
    folders = []
    for seed in range(5):
        for epsilon in (None, 8.0):
            name = f"{'plain' if epsilon is None else 'private'}{seed}"
            folder = tmp_path / name
            folders.append(make_run(folder, n=300, seed=seed, epsilon=epsilon, maps=False))
    out = report.run(folders, tmp_path / "out")
    table = pd.read_csv(out / "tables" / "_comparison.anomaly.loss_8.csv")
    overall = table.iloc[0]
    assert overall["n_plain"] == overall["n_private"] == 5
    assert overall["ci_low"] < overall["value"] < overall["ci_high"]
    assert overall["sd_plain_seed"] > 0


def test_runs_on_other_test_images_say_why_they_are_not_compared(tmp_path, folders):
    other = make_run(tmp_path / "other", n=900, epsilon=None)
    rows = pd.read_parquet(other / "predictions.parquet")
    rows.iloc[:600].to_parquet(other / "predictions.parquet")
    text = (report.run([folders[0], other], tmp_path / "out") / "report.md").read_text()
    assert "Loss to privacy is not shown: The runs were not tested on the same images" in text


def test_a_data_card_says_who_was_excluded_and_why(tmp_path):
    folder = make_run(tmp_path / "run", n=200)
    card = {"images": 90, "patients": 40, "missing": {"sex": 3}}
    card["rejected"] = {"total": 2, "by_reason": {"no pixels": 2}}
    write_json(folder / "data_card.json", card)
    text = (report.run([folder], tmp_path / "out") / "report.md").read_text()
    assert "| set aside: no pixels | 2 |" in text and "| sex unknown | 3 |" in text


def test_a_curated_table_has_its_rates_before_and_after(tmp_path):
    folder = make_run(tmp_path / "run", n=200)
    line = {"split": "train", "attribute": "sex", "images": 90, "toward": 0.3, "rest": 0.21}
    rates = {"before": [line | {"gap": 0.09}], "after": [line | {"toward": None, "gap": None}]}
    rule = {"curate": "counted", "curate_label": "mass", "curate_splits": ["train", "validation"]}
    write_json(folder / "data_card.json", {"curation": rates, "split_rule": rule})
    text = (report.run([folder], tmp_path / "out") / "report.md").read_text()
    assert "dropped from train and validation so that mass is more frequent" in text
    assert "score the run again" not in text and "| before | train | sex | 90 | 0.300 |" in text
    rule["curate_splits"].append("test")
    write_json(folder / "data_card.json", {"curation": rates, "split_rule": rule})
    text = (report.run([folder], tmp_path / "again") / "report.md").read_text()
    assert "score the run again with data.curate='' for the original one" in text


def test_a_group_without_positives_is_undefined_and_listed(tmp_path):
    rng = np.random.default_rng(0)
    n = 400
    site = np.repeat(["A", "B", "C"], [150, 150, 100])
    y = rng.integers(0, 2, n) * (site != "C")
    split = np.where(np.arange(n) % 2 == 0, "validation", "test")
    table = pd.DataFrame({"y_true": y, "y_score": rng.normal(size=n) + y, "site": site})
    table.assign(split=split).to_csv(tmp_path / "t.csv", index=False)
    argv = ["report", "--predictions", str(tmp_path / "t.csv"), "--groups", "site"]
    assert main([*argv, "--out", str(tmp_path / "o"), "--bootstraps", "20"]) == 0
    parity = pd.read_csv(tmp_path / "o" / "tables" / f"{slug('t.csv')}.score.site.parity.csv")
    assert (
        parity.set_index("criterion").loc["equal opportunity (sensitivity)", "undefined in"] == "C"
    )


def test_images_of_patients_are_shown_only_when_asked_for(tmp_path):
    real = make_run(tmp_path / "real", n=200, data="real")
    hidden = report.run([real], tmp_path / "hidden")
    shown = report.run([real], tmp_path / "shown", with_images=True)
    assert "i7.png" not in (hidden / "report.md").read_text()
    assert not (hidden / "plots" / "real._map.i7.png").exists()
    assert "Images of patients: do not pass on" in (shown / "report.md").read_text()
    assert (shown / "plots" / "real._map.i7.png").exists()
    assert "PHANTOM" not in (shown / "report.md").read_text()


def test_phantom_images_are_shown_and_called_so(written):
    assert "PHANTOM images" in (written / "report.md").read_text()
    assert (written / "plots" / "private._map.i7.png").exists()


def test_three_columns_by_hand_make_a_report(tmp_path, capsys):
    lines = ["y_true,y_score,sex"]
    lines += [f"{i % 2},{(i * 7) % 10 + 3 * (i % 2)},{'FM'[i % 3 == 0]}" for i in range(40)]
    table = tmp_path / "mine.csv"
    table.write_text("\n".join(lines))
    argv = ["report", "--predictions", str(table), "--groups", "sex", "--out", str(tmp_path / "o")]
    assert main([*argv, "--bootstraps", "50"]) == 0
    text = (tmp_path / "o" / "report.md").read_text()
    assert "came without privacy.json" in text
    assert "sex: F" in text and "too few" in text


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("y_true,score\n1,2\n0,1\n", "no column 'y_score'.*Did you mean 'score'"),
        ("y_true,y_score\n1,2\n1,1\n", "All 2 test rows of task 'score' have y_true 1"),
        ("y_true,y_score\n1,nan\n0,1\n", "not a finite number in 1 of 2 rows"),
        ("image_id,y_true,y_score\na,1,2\na,0,1\n", "Image 'a' has more than one row"),
        ("y_true,y_score\n2,2\n0,1\n", "column y_true, row 2: '2' is no label"),
        (
            "y_true,y_score\nyes,2\n0,1\n",
            "column y_true, row 2: 'yes' is no finite number; labels are 0",
        ),
        ("y_true,y_score\n", "have no rows"),
        ("", "cannot be read as a table"),
        ("y_true,y_score,split\n1,2,tset\n0,1,test\n", "column split, row 2: 'tset' is no split"),
        ("patient_id,y_true,y_score\n,1,2\nb,0,1\n", "patient_id is empty in 1 rows"),
        ("y_true,y_score,split\n1,2,train\n0,1,train\n", "No row has split 'test'"),
    ],
)
def test_a_bad_table_ends_in_one_sentence_and_status_2(tmp_path, capsys, content, sentence):
    table = tmp_path / "bad.csv"
    table.write_text(content)
    argv = ["report", "--predictions", str(table), "--out", str(tmp_path / "out")]
    assert main(argv) == 2
    printed = capsys.readouterr().err.strip()
    assert "\n" not in printed
    assert re.search(sentence, printed), printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--out", "o"], "either run folders or --predictions"),
        (["run"], "Give --out DIR"),
        (["nowhere", "--out", "o"], "There is no run folder nowhere"),
        (["--predictions", "no.csv", "--out", "o"], "There is no file no.csv"),
        (["--predictions", "no.csv", "--groups", "x", "--colour", "red"], "colour"),
    ],
)
def test_a_wrong_command_line_ends_in_one_sentence_and_status_2(argv, sentence, capsys):
    assert main(["report", *argv]) == 2
    assert sentence in capsys.readouterr().err


def test_help_documents_the_columns_of_a_table(capsys):
    assert main(["report", "--help"]) == 0
    text = capsys.readouterr().out
    assert "y_score: a finite number" in text and "--predictions" in text


def _constant_scores(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(y_score=1.0)


def _one_label_in_test(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(y_true=rows["y_true"].where(rows["split"] != "test", 0.0))


def _no_validation(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["split"] == "test"]


def _perfect_separation(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(y_score=rows["y_true"] + np.arange(len(rows)) * 1e-6)


@pytest.mark.parametrize(
    "change", [_constant_scores, _one_label_in_test, _no_validation, _perfect_separation]
)
def test_a_run_that_leaves_much_undefined_still_has_a_report(tmp_path, change):
    folder = make_run(tmp_path / "run", n=300, maps=False)
    rows = change(pd.read_parquet(folder / "predictions.parquet"))
    rows.to_parquet(folder / "predictions.parquet")
    for name in ("fairness.csv", "thresholds.json"):
        (folder / name).unlink()
    text = (report.run([folder], tmp_path / "out") / "report.md").read_text()
    assert "results by group" in text and not re.search(r"\bnan\b", text.lower())


def test_a_new_metric_is_found_in_the_report_and_among_the_checklists(tmp_path, monkeypatch):
    def spread(y, s):
        return float(np.std(s) / (1 + np.std(s)))

    toy = Metric(spread, "scores", "Toy spread", "how wide the scores are")
    monkeypatch.setitem(METRICS, "toy_spread", toy)
    folder = make_run(tmp_path / "run", n=400, maps=False)
    out = report.run([folder], tmp_path / "out")
    assert "toy_spread" in set(pd.read_csv(folder / "fairness.csv")["metric"])
    table = pd.read_csv(out / "tables" / "run.anomaly.metrics.csv").set_index("metric")
    rows = report.load_run(folder).rows()
    value = spread(rows["y_true"], rows["y_score"])
    assert table.loc["Toy spread", "all [95 %]"].startswith(f"{value:.3f} [")
    assert table.loc["Toy spread", "what it is"] == "how wide the scores are"
    headline = pd.read_csv(out / "tables" / "run.anomaly.headline.csv")
    assert headline["toy_spread"].iloc[0] == pytest.approx(value)
    assert "Toy spread" in pd.read_csv(out / "tables" / "crosswalk.csv")["answered in"].str.cat()


def test_the_table_of_all_metrics_names_the_worst_group_by_the_right_end(written):
    table = pd.read_csv(written / "tables" / "private.anomaly.metrics.csv", keep_default_na=False)
    assert list(table["metric"]) == [metric.title for metric in METRICS.values()]
    worst = table.set_index("metric")["worst group"]
    headline = pd.read_csv(written / "tables" / "private.anomaly.headline.csv")
    groups = headline[headline["attribute"] != "overall"]
    assert worst["AUROC"].endswith(f"{groups['auroc'].min():.3f}")
    assert worst["missed per 1,000"].endswith(f"{groups['missed_per_1000'].max():.0f}")
    assert worst["prevalence"] == ""


def test_a_run_slices_decisions_by_name_at_its_stored_threshold(folders):
    run = report.load_run(folders[0])
    stored = run.by_group("sex", "sensitivity")["value"]
    assert run.frame("sex").by_group("sensitivity").to_dict() == pytest.approx(stored.to_dict())


def test_the_seed_and_the_number_of_resamples_come_from_the_command_line(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    table = pd.DataFrame({"y_true": y, "y_score": rng.normal(size=120) + y})
    table.to_csv(tmp_path / "t.csv", index=False)
    bounds = {}
    for name, flags in {"a": [0, 40], "b": [0, 40], "c": [1, 40], "d": [0, 80]}.items():
        out = tmp_path / name
        argv = ["report", "--predictions", str(tmp_path / "t.csv"), "--out", str(out)]
        assert main([*argv, f"--seed={flags[0]}", f"--bootstraps={flags[1]}"]) == 0
        headline = pd.read_csv(out / "tables" / f"{slug('t.csv')}.score.headline.csv")
        bounds[name] = headline["average_precision_low"].item()
    assert bounds["a"] == bounds["b"] and len(set(bounds.values())) == 3
