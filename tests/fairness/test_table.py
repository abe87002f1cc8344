import numpy as np
import pandas as pd
import pytest

from jaxfair.errors import InputError
from jaxfair.fairness import metrics
from jaxfair.fairness.bootstrap import TableBootstrap, patient_weights
from jaxfair.fairness.catalog import METRICS, Metric
from jaxfair.fairness.groups import group_labels
from jaxfair.fairness.predictions import checked
from jaxfair.fairness.table import COLUMNS, fairness_table, fit_thresholds
from tests.fairness.conftest import make_predictions


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return make_predictions(600)


@pytest.fixture(scope="module")
def table(rows) -> pd.DataFrame:
    return fairness_table(rows, n_bootstrap=60)


def _value(table: pd.DataFrame, attribute: str, group: str, metric: str) -> pd.Series:
    chosen = (table["attribute"] == attribute) & (table["group"] == group)
    return table[chosen & (table["metric"] == metric)].iloc[0]


def test_columns_are_those_of_the_contract(table):
    contract = "task split attribute group metric value ci_low ci_high n n_images n_positive covers"
    assert list(table.columns) == contract.split() == list(COLUMNS)
    assert set(table["split"]) == {"test"}
    assert set(table["metric"]) == set(METRICS)
    assert list(table["attribute"].unique()) == [
        "overall",
        "sex",
        "age_group",
        "view",
        "sex x age_group",
    ]
    assert list(table.loc[table["attribute"] == "overall", "group"].unique()) == ["all"]


def test_every_value_equals_the_plain_function_on_the_groups_rows(rows, table):
    test = checked(rows).query("split == 'test'")
    fitted = fit_thresholds(rows)["anomaly"]
    for attribute in ("overall", "sex", "view", "sex x age_group"):
        labels = group_labels(test, attribute)
        for group in set(labels):
            inside = labels == group
            y, s = test["y_true"].to_numpy(), test["y_score"].to_numpy()
            expected = {
                "auroc": metrics.auroc(y[inside], s[inside]),
                "sauroc": metrics.sauroc(y, s, inside),
                "bpsn": metrics.bpsn(y, s, inside),
                "average_precision": metrics.average_precision(y[inside], s[inside]),
                "prevalence": metrics.prevalence(y[inside], s[inside]),
                "sensitivity": metrics.sensitivity(y[inside], s[inside], fitted["youden"]),
                "ppv": metrics.ppv(y[inside], s[inside], fitted["youden"]),
                "tpr_at_fpr_0.05": metrics.sensitivity(y[inside], s[inside], fitted["fpr@0.05"]),
                "fpr_at_tpr_0.95": metrics.fpr(y[inside], s[inside], fitted["sens@0.95"]),
            }
            for name, value in expected.items():
                found = _value(table, attribute, group, name)["value"]
                assert found == pytest.approx(value, nan_ok=True), (attribute, group, name)


def test_counts_are_patients_images_and_positive_images(rows, table):
    test = rows[(rows["split"] == "test") & (rows["sex"] == "F")]
    row = _value(table, "sex", "F", "auroc")
    assert row["n"] == test["patient_id"].nunique() < row["n_images"] == len(test)
    assert row["n_positive"] == test["y_true"].sum()


def test_intervals_hold_their_values_and_the_seed_makes_them(rows, table):
    ranked = table.dropna()
    assert (ranked["ci_low"] <= ranked["ci_high"]).all()
    auroc = ranked[ranked["metric"] == "auroc"]
    assert ((auroc["ci_low"] < auroc["value"]) & (auroc["value"] < auroc["ci_high"])).all()
    pd.testing.assert_frame_equal(table, fairness_table(rows, n_bootstrap=60))
    other = fairness_table(rows, n_bootstrap=60, seed=1)
    assert not table["ci_low"].equals(other["ci_low"])


def test_bootstrap_counts_whole_patients_as_repeating_their_rows_does():
    rows = make_predictions(200)
    rows["y_score"] = rows["y_score"].round(1)
    y, s = rows["y_true"].to_numpy(), rows["y_score"].to_numpy()
    patients = rows["patient_id"].astype(int).to_numpy()
    sex = (rows["sex"] == "F").to_numpy().astype(np.int64)
    engine = TableBootstrap(y, s, patients, [sex], rules=("youden",), validation=None, fixed=[0.5])
    rng = np.random.default_rng(3)
    for ((precision, others),), thresholds in engine.replicates(20, seed=3):
        assert others == {} and thresholds == [0.5]
        repeated = np.repeat(np.arange(200), patient_weights(100, rng)[patients])
        for g in (0, 1):
            part = repeated[sex[repeated] == g]
            assert precision[g] == pytest.approx(metrics.average_precision(y[part], s[part]))


def test_a_group_without_positives_is_empty_cells(rows):
    rows = rows.copy()
    rows["sex"] = np.where((rows["y_true"] == 0) & (rows["age"] < 30), "X", rows["sex"])
    table = fairness_table(rows, attributes=("sex",), n_bootstrap=20)
    for metric in ("auroc", "average_precision", "sensitivity", "underdiagnosis"):
        row = _value(table, "sex", "X", metric)
        assert np.isnan([row["value"], row["ci_low"], row["ci_high"]]).all()
    assert np.isfinite(_value(table, "sex", "X", "specificity")["value"])


def test_without_validation_rows_thresholds_are_undefined_and_ranks_are_not(rows):
    table = fairness_table(rows[rows["split"] == "test"], attributes=("sex",), n_bootstrap=20)
    assert np.isnan(_value(table, "sex", "F", "sensitivity")["value"])
    assert np.isfinite(_value(table, "sex", "F", "auroc")["value"])
    assert np.isfinite(_value(table, "sex", "F", "prevalence")["value"])


def test_given_thresholds_are_applied_as_they_are(rows):
    given = {"anomaly": {"youden": 0.25}}
    table = fairness_table(rows, thresholds=given, attributes=(), n_bootstrap=5)
    test = rows[rows["split"] == "test"]
    expected = metrics.sensitivity(test["y_true"], test["y_score"], 0.25)
    assert _value(table, "overall", "all", "sensitivity")["value"] == pytest.approx(expected)
    assert np.isnan(_value(table, "overall", "all", "tpr_at_fpr_0.05")["value"])


def test_missing_sex_is_counted_as_unknown(rows):
    rows = rows.copy()
    rows.loc[rows["patient_id"].astype(int) < 20, "sex"] = None
    table = fairness_table(rows, attributes=("sex",), n_bootstrap=5)
    assert _value(table, "sex", "unknown", "auroc")["n"] == 13


def test_an_attribute_that_is_not_there_is_refused(rows):
    with pytest.raises(InputError, match="no column 'race'"):
        fairness_table(rows, attributes=("race",), n_bootstrap=5)


def test_intervals_at_a_threshold_hold_the_chance_of_fitting_it():
    rows = make_predictions(1200)
    small = rows["patient_id"].astype(int) < 150
    rows = rows[(rows["split"] == "test") | small].reset_index(drop=True)
    fitted = fit_thresholds(rows)
    options = {"thresholds": fitted, "attributes": (), "n_bootstrap": 200}
    refitted = fairness_table(rows, **options)
    fixed = fairness_table(rows[rows["split"] == "test"], **options)
    widths = []
    for table in (refitted, fixed):
        row = _value(table, "overall", "all", "sensitivity")
        widths.append(row["ci_high"] - row["ci_low"])
        assert row["value"] == _value(fixed, "overall", "all", "sensitivity")["value"]
    assert widths[0] > 1.3 * widths[1]


def brier_of_ranks(y, s):
    """A toy metric of scores: mean squared distance of the ranks in [0, 1] from the labels."""
    return float(((s.argsort().argsort() / max(len(s) - 1, 1) - y) ** 2).mean())


def informedness(y, s, threshold):
    """A toy metric of decisions."""
    return metrics.sensitivity(y, s, threshold) + metrics.specificity(y, s, threshold) - 1


TOYS = {
    "brier_of_ranks": Metric(
        brier_of_ranks, "scores", "Rank Brier", "how far ranks are from labels"
    ),
    "informedness": Metric(informedness, "decisions", "J", "Youden's J at the threshold", low=-1.0),
}


@pytest.mark.parametrize("name", TOYS)
def test_a_new_metric_is_one_line_and_then_in_the_table_with_its_interval(name, rows, monkeypatch):
    plain = fairness_table(rows, attributes=("sex",), n_bootstrap=60)
    monkeypatch.setitem(METRICS, name, TOYS[name])
    table = fairness_table(rows, attributes=("sex",), n_bootstrap=60)
    old = table[table["metric"] != name].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, plain)  # nothing else moves
    test = checked(rows).query("split == 'test'")
    y, s = test["y_true"].to_numpy(), test["y_score"].to_numpy()
    at = fit_thresholds(rows)["anomaly"]
    for group in ("F", "M"):
        row = _value(table, "sex", group, name)
        inside = (test["sex"] == group).to_numpy()
        assert row["value"] == pytest.approx(TOYS[name].of_group(y, s, inside, at))
        assert row["ci_low"] < row["value"] < row["ci_high"]
    assert _value(table, "overall", "all", name)["value"] == pytest.approx(
        TOYS[name].of_group(y, s, np.ones(len(y), dtype=bool), at)
    )


def test_every_metric_of_the_catalog_says_what_it_needs_and_keeps_its_range(table):
    for name, metric in METRICS.items():
        assert metric.needs in ("scores", "all scores", "decisions")
        assert metric.title and metric.meaning and not metric.meaning.endswith(".")
        values = table.loc[table["metric"] == name, ["value", "ci_low", "ci_high"]].to_numpy()
        known = values[np.isfinite(values)]
        assert len(known) and metric.low <= known.min() and known.max() <= metric.high, name
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)


@pytest.mark.parametrize("thresholds", [{}, {"youden": None}, {"youden": float("nan")}])
def test_a_new_metric_of_decisions_is_undefined_without_a_threshold(thresholds):
    called = Metric(lambda y, s, t: float((s >= t).mean()), "decisions", "called", "")
    y, s = np.array([0.0, 1.0]), np.array([0.2, 0.7])
    assert np.isnan(called.of_group(y, s, np.array([True, True]), thresholds))
    assert np.isnan(called.of_group(y, s, np.array([False, False]), {"youden": 0.5}))
    assert called.of_group(y, s, np.array([True, True]), {"youden": 0.5}) == 0.5
