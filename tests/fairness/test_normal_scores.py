"""Scores of groups on one scale: false alarms even out, the order within a group stays."""

import functools
import json

import numpy as np
import pandas as pd
import pytest

from jaxfair.errors import InputError
from jaxfair.fairness.metrics import auroc
from jaxfair.fairness.normal_scores import LEVELS, fit_scales, on_one_scale, write_scales


@functools.cache
def shifted(normals=600, seed=0):
    """Women's scores are shifted up and twice as wide, sick or not."""
    rng = np.random.default_rng(seed)
    rows = []
    for split in ("validation", "test"):
        for sex, n in (("M", normals), ("F", normals), ("unknown", 20)):
            y = np.repeat([0, 1], [n, n // 2])
            score = rng.normal(size=len(y)) + 1.5 * y
            score = 2 * score + 3 if sex == "F" else score
            rows.append(pd.DataFrame({"y_true": y, "y_score": score, "sex": sex, "split": split}))
    table = pd.concat(rows, ignore_index=True)
    table["task"] = "anomaly"
    table["patient_id"] = table["image_id"] = [f"p{i}" for i in range(len(table))]
    return table


def false_alarms(table):
    test = table[(table["split"] == "test") & (table["y_true"] == 0)]
    high = test["y_score"].quantile(0.9)
    return {sex: (rows["y_score"] > high).mean() for sex, rows in test.groupby("sex")}


def test_one_threshold_raises_as_many_false_alarms_in_both_groups():
    before, table = false_alarms(shifted()), shifted()
    after = false_alarms(on_one_scale(table, fit_scales(table, "sex")))
    assert before["F"] - before["M"] > 0.15
    assert abs(after["F"] - after["M"]) < 0.05


def test_the_order_within_a_group_stays_and_so_does_its_auroc():
    table = shifted()
    moved = on_one_scale(table, fit_scales(table, "sex"))
    for sex in ("F", "M"):
        old, new = (t[t["sex"] == sex] for t in (table, moved))
        assert (
            np.argsort(old["y_score"]).to_numpy() == np.argsort(new["y_score"]).to_numpy()
        ).all()
        assert auroc(old["y_true"], old["y_score"]) == auroc(new["y_true"], new["y_score"])


def test_only_normal_validation_rows_decide():
    table = shifted()
    other = table.copy()
    free = (other["split"] == "test") | (other["y_true"] == 1)
    other.loc[free, "y_score"] = 77 - other.loc[free, "y_score"]
    assert fit_scales(table, "sex") == fit_scales(other, "sex")


def test_quantiles_of_a_group_come_to_lie_on_those_of_all():
    table = shifted()
    fitted = fit_scales(table, "sex")
    moved = on_one_scale(table, fitted)
    inside = moved[
        (moved["split"] == "validation") & (moved["y_true"] == 0) & (moved["sex"] == "F")
    ]
    np.testing.assert_allclose(
        inside["y_score"].quantile(LEVELS), fitted["anomaly"]["all"], atol=0.02
    )


def test_a_group_of_few_normals_keeps_its_scores():
    table = shifted()
    fitted = fit_scales(table, "sex")
    told = fitted["anomaly"]["groups"]["unknown"]
    assert not told["own"] and told["n"] == 20
    few = table["sex"] == "unknown"
    moved = on_one_scale(table, fitted)
    assert (moved["y_score"][few] == table["y_score"][few]).all()


def test_scores_that_tie_are_left_alone():
    table = shifted().assign(y_score=1.0)
    fitted = fit_scales(table, "sex")
    assert fitted["anomaly"]["all"] is None
    assert (on_one_scale(table, fitted)["y_score"] == 1).all()


def test_a_task_that_was_not_fitted_is_refused():
    with pytest.raises(InputError, match="Scores of 'anomaly' have no scale"):
        on_one_scale(shifted(), {})


def test_scales_of_an_earlier_evaluation_do_not_outlive_it(tmp_path):
    table, paths = shifted(), (tmp_path / "scales.json", tmp_path / "calibrated.parquet")
    fitted = fit_scales(table, "sex")
    write_scales(table, fitted, *paths)
    assert json.loads(paths[0].read_text()) == fitted
    moved = pd.read_parquet(paths[1])
    pd.testing.assert_series_equal(moved["y_score"], on_one_scale(table, fitted)["y_score"])
    write_scales(table, {}, *paths)
    assert not list(tmp_path.iterdir())
