"""`evaluate --release.epsilon`: what the folder holds, that it verifies, and what it refuses."""

import hashlib
import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from jaxfair import account, evaluate, publish
from jaxfair.errors import InputError
from jaxfair.privacy.histogram import EVALUATED
from jaxfair.privacy.ledger import read_entries
from jaxfair.privacy.publication import LEDGER, check_release
from jaxfair.privacy.secret import insecure_secret
from jaxfair.publish import Asked, run
from jaxfair.publish.asking import Histogram, groups_of
from jaxfair.publish.page import page
from jaxfair.publish.recomputed import check_tables
from jaxfair.publish.release import tables
from jaxfair.run.folder import RunFolder
from tests.privacy.published import evaluated, predictions

FILES = {"histograms.csv", "index.html", "statement.json", "tables.csv"}


def release(folder, *flags):
    return evaluate.main(["evaluate", f"--workdir={folder}", "--release.epsilon=1", *flags])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = evaluated(tmp_path_factory.mktemp("runs") / "run", predictions(3000))
    assert release(folder) == 0
    return folder


def test_the_folder_holds_tables_a_page_and_a_statement_that_verifies(run_folder, capsys):
    made = run_folder / "release"
    assert {path.name for path in made.iterdir()} == FILES
    assert account.main(["account", f"--verify={made}"]) == 0
    assert "agrees" in capsys.readouterr().out
    told = json.loads((made / "statement.json").read_text())
    assert told["noise_source"] == "os" and told["population"] == EVALUATED
    assert 0.98 < told["epsilon"] <= 1.0 and told["true_positive_rates"]["0.01"] < 0.05


def test_the_tables_are_close_to_those_of_the_scores_and_hide_small_groups(run_folder):
    table = pd.read_csv(run_folder / "release" / "tables.csv")
    rows = table.set_index(["attribute", "group", "metric"])
    exact = predictions(3000).query("split == 'test'")
    share = exact.groupby("sex")["y_true"].mean()
    for sex in ("F", "M"):
        row = rows.loc["sex", sex, "auroc"]
        assert row["ci_low"] < row["value"] < row["ci_high"] and abs(row["value"] - 0.8) < 0.12
        assert abs(rows.loc["sex", sex, "prevalence"]["value"] - share[sex]) < 0.06
    assert np.isnan(rows.loc["sex", "other or unknown", "auroc"]["value"])
    assert (table["metric"] == "gap_auroc").sum() >= 1


def test_no_number_of_the_page_and_no_file_names_a_patient(run_folder):
    text = "".join(path.read_text() for path in (run_folder / "release").iterdir())
    assert "p17" not in text and "i17" not in text and "PHANTOM" in text
    assert "finds at most" in text and "not protected" not in text


def test_a_second_release_is_refused_until_its_budget_is_raised(tmp_path, capsys):
    folder = evaluated(tmp_path / "run", predictions(600))
    assert release(folder) == 0
    assert release(folder) == 2 and "is there" in capsys.readouterr().err
    other = f"--out={tmp_path / 'other'}"
    assert release(folder, other) == 2
    said = capsys.readouterr().err
    assert "above the budget of 1.0" in said and "has paid for 1 release before" in said
    assert not list(tmp_path.glob("*other*")) and len(read_entries(folder / LEDGER)[0]) == 1
    assert release(folder, other, "--release.budget=2") == 0
    told = json.loads((tmp_path / "other" / "statement.json").read_text())
    assert told["epsilon_alone"] <= 1.0 < told["epsilon"] <= 2.0
    first = json.loads((folder / "release" / "statement.json").read_text())
    assert first["epsilon_after_another"] == pytest.approx(told["epsilon"], rel=1e-9)
    assert "one more like it makes epsilon" in (folder / "release" / "index.html").read_text()


def test_a_release_that_was_cut_off_is_paid_for_and_lost_and_the_refusal_says_so(
    tmp_path, monkeypatch, capsys
):
    folder = evaluated(tmp_path / "run", predictions(60))
    written = publish.release.files.write_table

    def cut(path, table):
        written(path, table)
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(publish.release.files, "write_table", cut)
        assert release(folder) == 130
    assert len(read_entries(folder / LEDGER)[0]) == 1 and not (folder / "release").exists()
    for _ in range(2):  # and again, as long as nothing is released there
        assert release(folder) == 2
        said = capsys.readouterr().err
        assert f"one into {folder / 'release'} was cut off" in said and "is lost" in said
    assert release(folder, "--release.budget=2") == 0
    assert {path.name for path in (folder / "release").iterdir()} == FILES
    assert not list(folder.glob(".release*part"))


def test_a_disk_that_fails_after_the_payment_is_said_with_what_it_cost(
    tmp_path, monkeypatch, capsys
):
    folder = evaluated(tmp_path, predictions(60))

    def full(path, table):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish.release.files, "write_table", full)
    assert release(folder) == 2
    said = capsys.readouterr().err
    assert "(No space left on device), and its release was paid for" in said
    assert len(read_entries(folder / LEDGER)[0]) == 1


def test_what_cannot_be_cleared_away_after_the_payment_is_said_with_what_it_cost(tmp_path, capsys):
    folder = evaluated(tmp_path, predictions(60))
    (folder / ".release.part" / "mine").mkdir(parents=True)
    assert release(folder) == 2
    assert "(Is a directory), and its release was paid for" in capsys.readouterr().err
    assert len(read_entries(folder / LEDGER)[0]) == 1


def test_runs_on_the_same_patients_add_up_in_one_ledger(tmp_path, capsys):
    shared = f"--release.ledger={tmp_path / 'ledger.jsonl'}"
    assert release(evaluated(tmp_path / "one", predictions(600)), shared) == 0
    assert release(evaluated(tmp_path / "two", predictions(600)), shared) == 2
    assert "above the budget" in capsys.readouterr().err


def test_two_runs_at_once_do_not_overspend_one_ledger(tmp_path, monkeypatch):
    paid = publish.release.open_answers

    def slowly(*given):
        time.sleep(0.5)
        return paid(*given)

    monkeypatch.setattr(publish.release, "open_answers", slowly)
    folders = [evaluated(tmp_path / name, predictions(600)) for name in ("one", "two")]
    flag = f"--release.ledger={tmp_path / 'ledger.jsonl'}"
    with ThreadPoolExecutor() as pool:
        statuses = list(pool.map(lambda folder: release(folder, flag), folders))
    assert sorted(statuses) == [0, 2]
    assert len(read_entries(tmp_path / "ledger.jsonl")[0]) == 1


def changed(folder, tmp_path, name, text):
    copy = shutil.copytree(folder / "release", tmp_path / "copy")
    (copy / name).write_text(text)
    return check_release(copy)


def test_a_changed_table_an_added_file_and_a_missing_one_are_found(run_folder, tmp_path):
    table = (run_folder / "release" / "tables.csv").read_text()
    assert changed(run_folder, tmp_path, "tables.csv", table.replace("0", "1", 1))
    copy = tmp_path / "copy"
    (copy / "tables.csv").write_text(table)
    assert check_release(copy) == []
    (copy / "predictions.csv").write_text("p17")
    assert check_release(copy) == ["predictions.csv is not named by statement.json"]
    (copy / "predictions.csv").unlink()
    (copy / "index.html").unlink()
    assert check_release(copy) == ["index.html is missing"]


def test_every_changed_key_of_the_statement_is_found(run_folder, tmp_path):
    copy = shutil.copytree(run_folder / "release", tmp_path / "release")
    shutil.copy(run_folder / LEDGER, tmp_path / LEDGER)
    told = json.loads((copy / "statement.json").read_text())
    assert check_release(copy) == []
    for name in told:
        bad = "other" if isinstance(told[name], str | list | dict) else told[name] * 1.001
        for statement in (told | {name: bad}, {k: v for k, v in told.items() if k != name}):
            (copy / "statement.json").write_text(json.dumps(statement))
            assert check_release(copy) or name in ("budget", "delta", "minimum"), name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": {"grade": 1, "epsilon": "x", "delta": None, "unit": "?"}}, "grade is 1"),
        ({"data": "real"}, "data is 'real'"),
        ({"selection": "coupled"}, "selection is 'coupled'"),
    ],
)
def test_what_a_statement_says_of_its_run_is_compared_where_the_run_lies_beside(
    run_folder, tmp_path, change, said
):
    copy = shutil.copytree(run_folder / "release", tmp_path / "release")
    told = json.loads((copy / "statement.json").read_text())
    shutil.copy(run_folder / "privacy.json", tmp_path)
    assert check_release(copy) == []
    (copy / "statement.json").write_text(json.dumps(told | change))
    assert said in "".join(check_release(copy))


@pytest.mark.parametrize(
    "change", [{"budget": True}, {"minimum": float("nan")}, {"minimum": float("inf")}]
)
def test_what_is_no_number_of_a_statement_is_found(run_folder, tmp_path, change):
    copy = shutil.copytree(run_folder / "release", tmp_path / "release")
    told = json.loads((copy / "statement.json").read_text())
    (copy / "statement.json").write_text(json.dumps(told | change))
    assert f"{min(change)} is {change[min(change)]}" in "".join(check_release(copy))


def resealed(copy, name, text):
    """Writes a file of a release, and its digest into the statement, as a forger would."""
    (copy / name).write_text(text)
    told = json.loads((copy / "statement.json").read_text())
    told["files"][name] = hashlib.sha256(text.encode()).hexdigest()
    (copy / "statement.json").write_text(json.dumps(told))


def test_a_changed_cell_is_found_though_its_digest_is_that_of_the_change(run_folder, tmp_path):
    copy = shutil.copytree(run_folder / "release", tmp_path / "release")
    table = pd.read_csv(copy / "tables.csv", dtype=str, keep_default_na=False)
    for name in table:
        changed = table.copy()
        place = changed[name].ne("").to_numpy().argmax()
        text = changed.loc[place, name]
        by = 1 if name.endswith("patients") else 0.001
        number = name in ("value", "ci_low", "ci_high", "correction") or "noise" in name or by == 1
        changed.loc[place, name] = str(float(text) + by) if number else f"{text} "
        resealed(copy, "tables.csv", changed.to_csv(index=False))
        assert check_release(copy) == []
        assert f"tables.csv: {name} of " in check_tables(copy)[0]
        assert account.main(["account", f"--verify={copy}"]) == 1


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("tables.csv", lambda text: text[: text.rindex("\n", 0, -1) + 1], "has other rows"),
        ("tables.csv", lambda text: text.replace("finding", "Finding"), "further cells"),
        ("histograms.csv", lambda text: text[: text.rindex("\n", 0, -1) + 1], "computed again"),
        ("histograms.csv", lambda text: text.replace("finding", "other"), "computed again"),
        ("histograms.csv", lambda text: "", "computed again"),
        ("histograms.csv", lambda text: re.sub(r",-\S+\n", ",-1.0\n", text, count=1), "noise_next"),
    ],
)
def test_tables_that_do_not_follow_from_the_histograms_are_found(
    run_folder, tmp_path, name, change, said
):
    copy = shutil.copytree(run_folder / "release", tmp_path / "release")
    resealed(copy, name, change((copy / name).read_text()))
    assert check_release(copy) == [] and said in check_tables(copy)[-1]


def test_another_minimum_than_that_of_the_tables_is_found(run_folder, tmp_path):
    copy = shutil.copytree(run_folder / "release", tmp_path / "release")
    told = json.loads((copy / "statement.json").read_text())
    (copy / "statement.json").write_text(json.dumps(told | {"minimum": 900}))
    assert check_release(copy) == [] and check_tables(copy)


@pytest.mark.parametrize("text", [
    "[" * 100_000,
    {"noise_multiplier": 1e-300},
    {"events": [{"noise_multiplier": 3.7, "sampling_prob": 1.0, "steps": 10**12}]},
    {"events": [{"noise_multiplier": 3.7, "sampling_prob": 1.0, "steps": 10**400}]},
], ids=["nested", "no noise", "many steps", "steps beyond floats"])  # fmt: skip
def test_a_statement_by_which_nothing_can_be_computed_is_a_fault(
    run_folder, tmp_path, capsys, text
):
    copy = shutil.copytree(run_folder / "release", tmp_path / "release")
    told = json.loads((copy / "statement.json").read_text())
    (copy / "statement.json").write_text(text if isinstance(text, str) else json.dumps(told | text))
    with np.errstate(all="ignore"):
        assert account.main(["account", f"--verify={copy}"]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_a_plain_run_and_a_seed_and_a_counted_selection_are_said_on_the_page(tmp_path):
    folder = evaluated(
        tmp_path, predictions(300), epsilon=None, delta=None, grade="none", selection="coupled"
    )
    made = run(RunFolder(folder), Asked(1.0), secret=insecure_secret(0))
    text = (made / "index.html").read_text()
    for words in ("Training patients are not protected", "Research grade", "selected table only"):
        assert words in text


def test_everybody_has_the_noise_of_all_groups_together():
    noise = np.array([[4.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 4.0]])
    groups, edges = ("a", "b", "c"), np.array([0.3, 0.6])
    histogram = Histogram(np.full((3, 2, 3), 500.0), noise, groups, edges, 1)
    told = tables({"finding": {"sex": histogram}}, minimum=50).set_index(["group", "metric"])
    one, all_ = (told.loc[(name, "prevalence")] for name in ("a", "all"))
    assert one["noise_sd_patients"] == pytest.approx((2 * noise.sum()) ** 0.5, abs=0.051)
    assert all_["noise_sd_patients"] == pytest.approx((6 * noise.sum()) ** 0.5, abs=0.051)
    assert all_["patients"] == pytest.approx(3 * one["patients"])


def test_the_page_escapes_what_labels_attributes_and_groups_are_called():
    counts = np.full((2, 2, 4), 200.0)
    histogram = Histogram(counts, np.eye(4), ("<u>", "x & y"), np.array([0.2, 0.4, 0.6]), 2)
    found = {"<b>": {"<i>": histogram}}
    told = {
        "covered": "<s>", "epsilon": 1.0, "epsilon_after_another": 1.4, "delta": 1e-5,
        "budget": 1.0, "unit": "patient",
        "true_positive_rates": {"0.01": 0.02, "0.001": 0.003}, "noise_source": "os",
        "training": {"epsilon": None}, "selection": "independent", "data": "real",
    }  # fmt: skip
    text = page(tables(found, minimum=50), found, told)
    for name in ("<b>", "<i>", "<u>", "<s>"):
        assert name not in text and name.replace("<", "&lt;").replace(">", "&gt;") in text
    assert "x &amp; y" in text and "at a score of 0.4 or more" in text and "PHANTOM" not in text


def test_groups_are_public_and_values_that_nobody_named_are_refused():
    with pytest.raises(InputError, match="may not be read from the patients"):
        Asked(1.0, attributes=("race",))
    asked = Asked(1.0, attributes=("race", "sex x race"), values={"race": ("a", "b")})
    assert groups_of(asked, "race") == ("a", "b", "other or unknown")
    assert groups_of(asked, "sex x race")[:2] == ("F x a", "F x b")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--release.bins=2",), "release.bins is 2"),
        (("--release.range=1,0",), "two ascending numbers"),
        (("--release.range=1",), "takes LOW,HIGH"),
        (("--release.values=race",), "NAME=VALUE|VALUE"),
        (("--release.attributes=sex,sex",), "each attribute once"),
        (("--release.attributes=sex x sex",), "have 'sex' twice"),
        (("--release.attributes=sex,overall",), "which every release has"),
        (("--release.values=race=a|b",), "names groups of 'race', and release.attributes are sex"),
        (("--release.values=sex=F|M|F",), "The groups of 'sex' have 'F' twice"),
        (("--release.values=sex=F|other or unknown",), "have 'other or unknown' twice"),
        (("--release.values=sex=F|Unknown",), "'Unknown', which is no group of its own"),
        (("--release.values=sex=F||M",), "'', which is no group of its own"),
        (("--release.values=sex=F|M,sex=F|X",), "name each attribute once"),
        (("--release.epsilon=-1",), "must be positive"),
        (("--release.epsilon=nan",), "must be positive"),
        (("--release.epsilon=1e6",), "at most 100"),
        (("--release.budget=inf",), "release.budget is inf"),
        (("--release.budget=nan",), "release.budget is nan"),
        (("--release.minimum=nan",), "release.minimum is nan"),
        (("--release.minimum=-5",), "release.minimum is -5"),
        (("--release.minimum=0",), "release.minimum is 0"),
        (("--release.public_size=0",), "release.public_size is 0"),
        (("--release.public_size=-4",), "release.public_size is -4"),
        (("--out=/dev/null/released",), "cannot be written"),
        (("--release.ledger=/dev/null/ledger.jsonl",), "The ledger /dev/null/ledger.jsonl cannot"),
        (("--labels=a=b",), "own predictions"),
    ],
)
def test_odd_flags_end_in_one_sentence_before_anything_is_paid(tmp_path, capsys, flags, words):
    folder = evaluated(tmp_path, predictions(60))
    assert release(folder, *flags) == 2
    assert words in capsys.readouterr().err and not (folder / LEDGER).exists()


def test_a_run_that_was_not_evaluated_and_flags_without_an_epsilon_are_refused(tmp_path, capsys):
    assert release(tmp_path) == 2
    assert "train and evaluate the run" in capsys.readouterr().err
    assert evaluate.main(["evaluate", "--release.bins=9"]) == 2
    assert "give --release.epsilon too" in capsys.readouterr().err


def test_what_is_asked_does_not_follow_from_the_rows(tmp_path):
    """Half of the patients, none of one sex, other scores, a label that nobody has: the same rows
    of every file, and the same price."""
    one = predictions(300)
    one = pd.concat([one, one.iloc[:30].assign(task="rare")], ignore_index=True)
    other = predictions(150, seed=3).assign(sex="F", y_score=0.5)
    shapes, tasks = [], ("finding", "rare")
    for number, rows in enumerate((one, other)):
        folder = evaluated(tmp_path / str(number), rows, tasks)
        made = run(RunFolder(folder), Asked(1.0, bins=8))
        told = json.loads((made / "statement.json").read_text())
        table = pd.read_csv(made / "histograms.csv")
        names = ["task", "attribute", "group"]
        shapes.append(
            (told["queries"], told["epsilon"], table[names].drop_duplicates().to_numpy().tolist())
        )
    assert shapes[0] == shapes[1]


def test_a_label_that_the_config_does_not_declare_is_refused(tmp_path, capsys):
    folder = evaluated(tmp_path, predictions(60).assign(task="other"))
    assert release(folder) == 2
    assert "has the label 'other', which the run's config" in capsys.readouterr().err
    assert not (folder / LEDGER).exists()


def test_rows_that_do_not_say_whose_they_are_are_refused(tmp_path, capsys):
    """Without patients each image would count as one, under a statement that says patient."""
    folder = evaluated(tmp_path, predictions(60).drop(columns="patient_id"))
    assert release(folder) == 2
    assert "no column 'patient_id'" in capsys.readouterr().err and not (folder / LEDGER).exists()


def test_attributes_that_are_not_there_are_refused_before_anything_is_paid(tmp_path, capsys):
    folder = evaluated(tmp_path, predictions(60))
    assert release(folder, "--release.attributes=view") == 2
    assert "no column 'view'" in capsys.readouterr().err and not (folder / LEDGER).exists()


def test_a_run_without_a_declared_size_asks_for_one_and_a_plain_one_has_it(tmp_path, capsys):
    plain = {"epsilon": None, "delta": None, "grade": "none"}
    folder = evaluated(tmp_path / "old", predictions(60), public_size=None, **plain)
    assert release(folder) == 2
    assert "--release.public_size=N" in capsys.readouterr().err and not (folder / LEDGER).exists()
    assert release(folder, "--release.public_size=100000") == 0
    told = json.loads((folder / "release" / "statement.json").read_text())
    assert told["delta"] == 1e-6 and told["training"]["epsilon"] is None
    assert account.main(["account", f"--verify={folder / 'release'}"]) == 0


def test_the_scores_of_a_second_site_are_not_released_under_the_claim_of_the_run(tmp_path, capsys):
    folder = evaluated(tmp_path, predictions(60))
    (folder / "site.json").write_text("{}")
    assert release(folder) == 2
    assert "scores of a second site" in capsys.readouterr().err and not (folder / LEDGER).exists()
