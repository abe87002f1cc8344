"""What the first lines of the results say, for tables of anyone's predictions."""

import numpy as np
import pandas as pd
import pytest

from jaxfair.fairness.groups import OVERALL
from jaxfair.report.answers import answers_of
from jaxfair.report.loading import run_from_predictions
from jaxfair.report.verdict import verdict
from jaxfair.report.views import run_views

_FOUND = "No group was found worse"


def _rows(n: int = 1600, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    sex, site = rng.choice(["F", "M"], n), rng.choice(["a", "b", "c"], n)
    y = (rng.random(n) < 0.3).astype(float)
    split = np.where(rng.random(n) < 0.3, "validation", "test")
    score = rng.normal(size=n) + 1.5 * y
    return pd.DataFrame({"y_true": y, "y_score": score, "sex": sex, "site": site, "split": split})


def _verdicts(rows: pd.DataFrame, tmp_path, groups=("sex", "site")) -> list[list[str]]:
    rows.to_parquet(tmp_path / "t.parquet")
    run = run_from_predictions(tmp_path / "t.parquet", list(groups), n_bootstrap=2)
    return [view.verdict() for view in run_views(run, 199)]


def test_no_difference_is_said_with_the_number_of_comparisons(tmp_path):
    ((first, counted, *rest),) = _verdicts(_rows(), tmp_path)
    assert first == "No group was found worse than the rest."
    # Sex: 1 contrast, site: 3, each in four statistics.
    assert counted.startswith("16 comparisons of a group with the rest are one family")
    assert "for 5 of 5 groups" in counted and not rest


def test_who_is_missed_more_often_comes_first(tmp_path):
    rows = _rows(2400)
    rows["y_score"] += 1.5 * (rows["sex"] == "M")
    ((first, *_),) = _verdicts(rows, tmp_path)
    assert first.startswith("Missed more often than the rest: sex: F (sensitivity 0.")
    assert "False alarms more often than the rest: sex: M (specificity 0." in first
    assert "Risk stated too high: sex: M (observed minus stated risk -0." in first


def test_women_all_ap_and_men_all_pa_are_not_called_alike(tmp_path):
    rows = _rows()
    rows["view"] = np.where(rows["sex"] == "F", "AP", "PA")
    rows["y_score"] += rows["y_true"] * np.where(rows["sex"] == "F", -1.3, 1.0)
    ((first, *_),) = _verdicts(rows, tmp_path, ["sex"])
    assert first == (
        "Nothing was compared, so nothing is known of differences between groups: sex: F, sex: M"
        " (no view in common with the rest)."
    )


@pytest.mark.parametrize(
    ("change", "groups", "why"),
    [
        ({}, [], "there are no columns to form groups from"),
        ({"sex": "F"}, ["sex"], "sex: F (the only group)"),
        ({"y_score": 0.5}, ["sex"], "sex: F, sex: M (all scores are equal)"),
    ],
)
def test_where_nothing_is_compared_no_group_is_called_alike(tmp_path, change, groups, why):
    ((first, *rest),) = _verdicts(_rows().assign(**change), tmp_path, groups)
    assert first.startswith("Nothing was compared") and why in first and not rest


def test_where_all_groups_are_too_few_nothing_is_compared(tmp_path):
    rows = _rows()
    rows["site"] = [f"s{i % 60}" for i in range(len(rows))]
    ((first, *_),) = _verdicts(rows, tmp_path, ["site"])
    assert first.startswith("Nothing was compared") and "and 54 more (too few patients)" in first


def test_an_inverted_score_is_called_out_before_all_else(tmp_path):
    rows = _rows()
    ((first, *_),) = _verdicts(rows.assign(y_score=-rows["y_score"]), tmp_path)
    assert first.startswith("The score points the wrong way: its AUROC is 0.1")


def test_a_group_in_which_the_score_points_the_wrong_way_is_named(tmp_path):
    rows = _rows()
    rows["y_score"] -= 2.2 * rows["y_true"] * (rows["site"] == "b")
    ((first, *rest),) = _verdicts(rows, tmp_path)
    assert "site: b" in first
    (line,) = [line for line in rest if line.startswith("AUROC below one half")]
    assert "site: b (0." in line and "site: a" not in line


def test_a_score_that_may_be_of_no_use_is_not_said_to_point_the_wrong_way(tmp_path):
    """Below one half by chance: of scores that are drawn, half lie there."""
    rows = _rows()
    for seed in range(20):
        drawn = rows.assign(y_score=np.random.default_rng(seed).random(len(rows)))
        drawn.to_parquet(tmp_path / "t.parquet")
        run = run_from_predictions(tmp_path / "t.parquet", ["sex"], n_bootstrap=2)
        (view,) = run_views(run, 39)
        whole = view.headline[view.headline["attribute"] == OVERALL].iloc[0]
        if whole["auroc"] < 0.5 < whole["auroc_high"]:
            break
    else:
        raise AssertionError("no seed lies below one half by chance")
    assert not any("wrong way" in line for line in view.verdict())
    good, *_ = answers_of(run, [view])
    assert good.verdict.startswith("Not shown to be better than chance.")


def test_groups_that_are_left_out_are_named_with_the_reason(tmp_path):
    rows = _rows()
    rows.loc[rows.index % 40 == 0, "site"] = "tiny"
    ((*_, last),) = _verdicts(rows, tmp_path)
    assert last == "Groups not compared: site: tiny (too few patients)."


def test_without_validation_rows_it_is_said_that_rates_were_not_compared(tmp_path):
    ((_, counted, missing),) = _verdicts(_rows().assign(split="test"), tmp_path)
    assert "in AUROC, for 5 of 5 groups" in counted
    assert "Not compared for want of validation rows of both labels: sensitivity" in missing


def test_the_family_spans_the_labels_of_a_report(tmp_path):
    one = _rows()
    parts = [_rows(seed=s).assign(task=f"t{s}", image_id=np.arange(len(one))) for s in range(3)]
    for part in parts:
        part["sex"], part["site"], part["split"] = one["sex"], one["site"], one["split"]
    found = _verdicts(pd.concat(parts, ignore_index=True), tmp_path, ["sex"])
    for _, counted, *_ in found:
        assert counted.startswith(
            "12 comparisons of a group with the rest over 3 labels are one family and corrected"
            " together; 4 of them here"
        )


def test_a_report_keeps_what_too_few_patients_show_to_itself(tmp_path):
    rows = _rows()
    rows.loc[rows.index % 40 == 0, "site"] = "tiny"
    rows.to_parquet(tmp_path / "t.parquet")
    run = run_from_predictions(tmp_path / "t.parquet", ["site"], n_bootstrap=2)
    (view,) = run_views(run, 39)
    small = view.contrasts[view.contrasts["group"] == "tiny"]
    assert len(small) == 4 and small[["value", "rest", "difference"]].isna().all(axis=None)
    assert "site: tiny" not in set(view.shown_contrasts()["group"])


def test_a_table_without_any_contrast_has_a_verdict():
    columns = ["attribute", "group", "statistic", "value", "rest", "p", "flagged", "why"]
    assert verdict(pd.DataFrame(columns=columns), None, {}, 0, 1) == [
        "Nothing was compared, so nothing is known of differences between groups: there are no"
        " columns to form groups from."
    ]
