"""What a report hides, and what it says of what was lost."""

import numpy as np
import pandas as pd
import pytest

from jaxfair import report
from jaxfair.fairness import metrics
from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.table import fairness_table, fit_thresholds
from jaxfair.files import write_table
from jaxfair.report.__main__ import main
from jaxfair.tables import read_table
from tests.made_runs import make_run

HIDDEN = ("auroc", "sensitivity", "specificity", "ppv", "ece", "difference", "difference_ci_low")


def test_of_two_groups_both_are_hidden_if_one_is_too_small():
    n = 400
    rows = pd.DataFrame({"y_true": np.arange(n) % 2, "y_score": np.arange(n) * 7 % 10})
    two = GroupFrame(rows.assign(sex=np.where(np.arange(n) < 30, "M", "F")), "sex")
    assert two.too_few == ["M"] and two.hidden == ["F", "M"]
    assert two.by_group(metrics.auroc).notna().all()  # functions return values all the same
    three = GroupFrame(rows.assign(sex=np.repeat(["F", "M", "D"], [180, 190, 30])), "sex")
    assert three.too_few == three.hidden == ["D"]
    small = GroupFrame(rows.assign(sex=np.repeat(["F", "M", "D"], [360, 20, 20])), "sex")
    assert small.too_few == ["D", "M"] and small.hidden == ["D", "F", "M"]
    assert GroupFrame(rows.assign(sex="F"), "sex").hidden == []


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs with 30 men among 900 images."""
    root = tmp_path_factory.mktemp("hidden")
    for name, epsilon in (("private", 8.0), ("plain", None)):
        folder = make_run(root / name, n=900, epsilon=epsilon, maps=False)
        rows = pd.read_parquet(folder / "predictions.parquet")
        rows["sex"] = np.where(np.arange(len(rows)) < 60, "M", "F")
        write_table(folder / "predictions.parquet", rows)
        table = fairness_table(
            rows, thresholds=fit_thresholds(rows), attributes=["sex"], n_bootstrap=2
        )
        write_table(folder / "fairness.csv", table)
    return root


def test_the_complement_of_a_hidden_group_is_hidden_in_every_table_of_the_report(folders, tmp_path):
    out = report.run([folders / "private", folders / "plain"], tmp_path)
    for run in ("private", "plain"):
        found = read_table(out / "tables" / f"{run}.anomaly.headline.csv").set_index("group")
        assert (found.loc[["F", "M"], list(HIDDEN)] == "").all(axis=None)
        assert (found.loc[["F", "M"], "n"] != "").all() and found.loc["all", "auroc"] != ""
        assert set(read_table(out / "tables" / f"{run}.anomaly.calibration.csv")["group"]) == {
            "all"
        }
    loss = read_table(out / "tables" / "_comparison.anomaly.loss_8.csv").set_index("group")
    assert (loss.loc[["F", "M"], ["plain", "private", "value", "disparity"]] == "").all(axis=None)
    side = read_table(out / "tables" / "_comparison.anomaly.auroc.csv").set_index("group")
    assert (side.loc[["sex: F", "sex: M"]] == "too few").all(axis=None)
    assert not list((out / "tables").glob("_choice.*"))
    page = (out / "report.html").read_text()
    assert "F (too few)" in page and "M (too few)" in page
    frame = report.load_run(folders / "private").frame("sex")
    women = repr(float(frame.by_group(metrics.auroc)["F"]))
    assert len(women) > 12
    assert not any(women in path.read_text() for path in (out / "tables").iterdir())
    assert '<th scope="row">sex: F</th><td>280</td>' in page
    assert "or 10 of either label, in the group or in all others together" in page


def test_the_page_says_what_was_lost_in_reading(tmp_path):
    n = 60
    rows = pd.DataFrame({"y_true": np.arange(n) % 2, "y_score": np.arange(n) * 7 % 10, "task": "a"})
    rows["age"] = ["045Y", "89+", "60+", "6M", "n/a", "forty"] * 10
    rows["sex"] = ["F", "M", ""] * 20
    bad = rows.assign(task="b", y_true=1)
    pd.concat([rows, bad]).to_csv(tmp_path / "t.csv", index=False)
    argv = ["report", "--predictions", str(tmp_path / "t.csv"), "--out", str(tmp_path / "o")]
    assert main([*argv, "--bootstraps", "2"]) == 0
    flow = (tmp_path / "o" / "report.md").read_text().split("population and flow")[1]
    for sentence in (
        "Label 'b' is left out: All 60 test rows of task 'b' have y_true 1",
        "Column age: 40 of 120 rows are not understood as one age group and are unknown; the"
        " commonest: '60+' (20), 'forty' (20).",
        "sex is unknown for 20 of 60 images",
        "age_group is unknown for 30 of 60 images",
    ):
        assert sentence in flow
    (path,) = (tmp_path / "o" / "tables").glob("*.age_group.by_split.csv")
    assert dict(read_table(path).to_numpy()) == {
        "0-17": "10", "31-45": "10", "76-110": "10", "unknown": "30",
    }  # fmt: skip
